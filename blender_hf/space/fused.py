"""A fused answer with all that the page shows of it: where its passages come from, and the text while it is written."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from transformers.generation.streamers import BaseStreamer

from blender_hf.engine.fusion import Fuser, ItemFuser, duel, subset
from blender_hf.engine.rankers import Ranker
from blender_hf.engine.results import Comparison, Fusion, Ranking, Unread
from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.modeling.ranking_math import best_distinct, keeps_fusion, preferred_of
from blender_hf.modeling.segmentation import split_segments

from .settings import FusionSettings

# Share of the pairs of neighbouring words that a passage must have in common with a candidate to be called its own.
ENOUGH = 0.6


@dataclass(frozen=True)
class SourcedPassage:
    """A passage of a fused text."""

    text: str  # the passage with the white space in front of it; joined, they are the fused text
    source: int | None  # index of the candidate that it is from; None if it is new
    exact: bool  # whether it stands in that candidate word for word


@dataclass(frozen=True)
class Fused:
    """A fused text, judged.

    Args:
        text: The fused text.
        sources: Indices of the candidates that went in, the best first.
        passages: Its passages with their sources.
        copied: Index of the source that it equals, apart from white space; None if it is a new text.
        comparison: The fused text (a) against the best candidate (b).
        truncated: How many tokens of each source the fuser did not read.
        unread: What the fuser could not read of them; None if it does not say.
        unfinished: Whether the text ends where it does only because the fuser might write no more tokens.
    """

    text: str
    sources: tuple[int, ...]
    passages: tuple[SourcedPassage, ...]
    copied: int | None
    comparison: Comparison
    truncated: tuple[int, ...]
    unread: Unread | None = None
    unfinished: bool = False

    @property
    def kept(self) -> bool:
        """Whether it is the answer, as `Blender.blend` decides: no win over the best candidate is too narrow."""
        return keeps_fusion(self.text, preferred_of(self.comparison.probability))

    @property
    def used(self) -> tuple[int, ...]:
        """Indices of the candidates that a passage comes from, the best first."""
        found = {passage.source for passage in self.passages}
        return tuple(index for index in self.sources if index in found)


def fusion_item(item: Item, ranking: Ranking, top_k: int, most: int) -> tuple[Item, tuple[int, ...]]:
    """Return the best different candidates as an item for the fuser, and their indices."""
    if not 2 <= top_k <= most:
        raise InputError(f"top_k={top_k}; this fuser takes from 2 to {most} candidates")
    chosen = tuple(best_distinct(ranking.candidates, ranking.order, top_k))
    if len(chosen) < 2:
        raise InputError("there is nothing to fuse: all candidates are the same text")
    return subset(item, chosen), chosen


def judge_fusion(
    item: Item, ranking: Ranking, fusion: Fusion, chosen: tuple[int, ...], ranker: Ranker, tie_threshold: float
) -> Fused:
    """Compare a fused text with the best candidate, and find where its passages come from."""
    sources = {index: item.texts[index] for index in chosen}
    return Fused(
        fusion.text,
        chosen,
        tuple(sourced_passages(fusion.text, sources)),
        next((index for index, text in sources.items() if text.split() == fusion.text.split()), None),
        ranker.compare([duel(item, fusion, ranking)], tie_threshold)[0],
        fusion.truncated.candidates,
        fusion.unread,
        fusion.unfinished,
    )


def blend_fields(ranking: Ranking, fused: Fused | None) -> dict[str, Any]:
    """Return a ranking, what was fused of it, and the better of both, as plain values."""
    better = fused is not None and fused.kept
    return {
        "ranking": ranking.to_dict(),
        "fused": None if fused is None else fused.text,
        "fused_from": [] if fused is None else list(fused.sources),
        "returned": "fused" if better else "best",
        "output": fused.text if fused is not None and better else ranking.best,
    }


def iter_fusion(
    item: Item, fuser: ItemFuser, settings: FusionSettings, lock: AbstractContextManager[Any]
) -> Iterator[str | Fusion]:
    """Yield the text as far as it is written, again and again, and at last the fusion.

    With several beams nothing is certain before the end, and a chat model answers at once, so then only the fusion is
    yielded.
    """
    if not isinstance(fuser, Fuser):
        yield from _in_background(lambda: fuser.fuse([item], settings.chat_generation())[0], SimpleQueue())
        return
    streamer = QueueStreamer(fuser.processor.decode_text)
    generation = settings.generation() | ({"streamer": streamer} if settings.num_beams == 1 else {})

    def write() -> Fusion:
        with lock:
            return fuser.fuse([item], generation)[0]

    yield from _in_background(write, streamer.texts)


class QueueStreamer(BaseStreamer):
    """Puts the text so far into a queue with every token, decoded from its beginning: no token is a text of its own.

    Args:
        decode: Turns token ids into text.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.texts: SimpleQueue[str] = SimpleQueue()
        self._decode = decode
        self._ids: list[int] = []

    def put(self, value: Any) -> None:
        """Take token ids, (1,) or (1, length)."""
        self._ids += value.flatten().tolist()
        if text := self._decode(self._ids):
            self.texts.put(text)

    def end(self) -> None:
        """Nothing is left to be written."""


def _in_background(work: Callable[[], Fusion], texts: "SimpleQueue[str]") -> Iterator[str | Fusion]:
    outcome: list[Fusion | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised again where the visitor waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() or not texts.empty():
        try:
            text = texts.get(timeout=0.1)
            while not texts.empty():  # who reads slowly gets the newest
                text = texts.get()
            yield text
        except Empty:
            continue
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    yield outcome[0]


def sourced_passages(fused: str, candidates: Mapping[int, str]) -> list[SourcedPassage]:
    """Find the source of each passage.

    >>> [p.source for p in sourced_passages("It is four. Ask me more!", {2: "I say: it is  four.", 0: "Five."})]
    [2, None]
    """
    return [_sourced(passage, candidates) for passage in split_segments(fused)]


def _sourced(passage: str, candidates: Mapping[int, str]) -> SourcedPassage:
    plain = _plain(passage)
    for index, text in candidates.items():
        if f" {plain} " in f" {_plain(text)} ":
            return SourcedPassage(passage, index, True)
    pairs = _neighbours(plain)
    shares = {index: len(pairs & _neighbours(_plain(text))) / max(len(pairs), 1) for index, text in candidates.items()}
    best = max(shares, key=lambda index: shares[index], default=None)
    if best is None or shares[best] < ENOUGH:
        return SourcedPassage(passage, None, False)
    return SourcedPassage(passage, best, False)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _neighbours(plain: str) -> set[tuple[str, str]]:
    words = re.findall(r"\w+", plain)
    return set(itertools.pairwise(words))
