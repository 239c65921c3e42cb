"""Where the passages of a fused text come from."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from blender_hf.modeling.processing_gen_fuser import split_passages

# Share of the pairs of neighbouring words that a passage must have in common with a candidate to be called its own.
ENOUGH = 0.6


@dataclass(frozen=True)
class SourcedPassage:
    """A passage of a fused text.

    Args:
        text: The passage with the white space in front of it; joined, they are the fused text.
        source: Index of the candidate that it is from; None if it is new.
        exact: Whether it stands in that candidate word for word.
    """

    text: str
    source: int | None
    exact: bool


def sourced_passages(fused: str, candidates: Mapping[int, str]) -> list[SourcedPassage]:
    """Find the source of each passage.

    Args:
        fused: The fused text.
        candidates: The candidates that it was fused from by index, the best first: of several sources it is the first.

    Returns:
        The passages in order.

    >>> [p.source for p in sourced_passages("It is four. Ask me more!", {2: "I say: it is  four.", 0: "Five."})]
    [2, None]
    """
    return [_sourced(passage, candidates) for passage in split_passages(fused)]


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
