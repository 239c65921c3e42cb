"""Examples for training a fuser: what it reads, and what it should write."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blender_hf.modeling.processing_gen_fuser import split_passages


@dataclass(frozen=True)
class FusionExample:
    """A prompt, candidates and the answer that a fuser should write from them."""

    prompt: str
    candidates: tuple[str, ...]
    target: str


def good_answers(record: dict[str, Any]) -> list[str]:
    """Return the texts of a record that are known to be good: those preferred at least once and never rejected."""
    won: set[int] = set()
    lost: set[int] = set()
    for pair in record["pairs"]:
        if pair["label"]:
            winner, loser = (pair["a"], pair["b"]) if pair["label"] > 0 else (pair["b"], pair["a"])
            won.add(winner)
            lost.add(loser)
    return [record["candidates"][index]["text"] for index in sorted(won - lost)]


def merging_examples(records: Iterable[dict[str, Any]], copies: int, seed: int) -> Iterator[FusionExample]:
    """Yield the self-made task: a good answer, scattered over damaged copies, is to be put together again.

    Each copy lacks passages of the answer and holds passages of an answer to another prompt. Every passage of the
    answer is in at least one copy.

    Args:
        records: Records with `prompt`, `candidates` and `pairs`.
        copies: How many damaged copies there are.
        seed: Of the damage.

    Returns:
        An iterator of one example a good answer of at least two passages.
    """
    rng = random.Random(seed)
    foreign: list[str] = []
    for record in records:
        for answer in good_answers(record):
            passages = split_passages(answer)
            if foreign and len(passages) > 1:
                yield FusionExample(record["prompt"], _damaged(passages, foreign, copies, rng), answer)
            foreign = (foreign + passages)[-200:]


def selection_examples(records: Iterable[dict[str, Any]], most: int, seed: int) -> Iterator[FusionExample]:
    """Yield the real task: from a preferred answer and others to the same prompt, write the preferred one."""
    rng = random.Random(seed)
    for record in records:
        texts = list(
            dict.fromkeys(candidate["text"] for candidate in record["candidates"] if candidate["text"].strip())
        )
        for answer in good_answers(record)[:1]:
            others = [text for text in texts if text != answer]
            if answer.strip() and others:
                chosen = [answer, *rng.sample(others, min(most - 1, len(others)))]
                rng.shuffle(chosen)
                yield FusionExample(record["prompt"], tuple(chosen), answer)


def _damaged(passages: Sequence[str], foreign: Sequence[str], copies: int, rng: random.Random) -> tuple[str, ...]:
    keepers = [rng.randrange(copies) for _ in passages]
    return tuple(_copy(passages, keepers, number, foreign, rng) for number in range(copies))


def _copy(
    passages: Sequence[str], keepers: Sequence[int], number: int, foreign: Sequence[str], rng: random.Random
) -> str:
    kept = [p for p, keeper in zip(passages, keepers, strict=True) if keeper == number or rng.random() < 0.6]
    if rng.random() < 0.5:
        kept.insert(rng.randrange(len(kept) + 1), " " + rng.choice(foreign).strip())
    return "".join(kept).strip() or passages[0]
