"""The arithmetic of pairwise ranking and blending, for the package's engine and the pipeline on the Hub alike."""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

Matrix = Sequence[Sequence[float]]
Preferred = Literal["a", "b", "tie"]


def mean_logit(ab: float, ba: float) -> float:
    """Return the mean over both presentation orders: positive if a is better, negated when a and b are swapped."""
    return (ab - ba) / 2


def compare_encodings(first: Any, second: Any) -> Any:
    """Return the logits of pairs of candidates that were encoded one by one, positive if the first is better.

    An encoding begins with a score; the rest are coordinates of a preference embedding, in pairs (x, y). The logit is
    the difference of the scores, plus the sum of x1 y2 - y1 x2 over the pairs of coordinates, which can express
    preferences in a circle (general preference model, arXiv 2410.02197). Swapping two candidates negates it exactly.

    Args:
        first: (..., tasks, 1 + preference_dim). Arrays of numpy or tensors, which are broadcast against each other.
        second: The same.

    Returns:
        (..., tasks), one logit for each task.
    """
    x, y = slice(1, None, 2), slice(2, None, 2)
    turned = first[..., x] * second[..., y] - first[..., y] * second[..., x]
    return first[..., 0] - second[..., 0] + turned.sum(-1)


def is_flip(ab: float, ba: float) -> bool:
    """Return whether the winner depends on the presentation order: the first candidate, or the second, wins both."""
    return ab * ba > 0


def probability_of(logit: float, temperature: float = 1.0) -> float:
    """Return the sigmoid of a logit over the temperature, without overflow."""
    small = math.exp(-abs(logit) / temperature)
    return (1.0 if logit >= 0 else small) / (1 + small)


def preferred_of(probability: float, tie_threshold: float = 0.0) -> Preferred:
    """Return which candidate wins with the probability that a is better; a tie within the threshold of 0.5."""
    if abs(probability - 0.5) <= tie_threshold:
        return "tie"
    return "a" if probability > 0.5 else "b"


def order_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the indices by descending score, ties in the given order.

    >>> order_of([0.5, 2.0, 0.5])
    (1, 0, 2)
    """
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index]))


def ranks_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the rank of each score, 1 for the highest; ties share a rank and the next is skipped.

    >>> ranks_of([0.5, 2.0, 0.5, 0.1])
    (2, 1, 2, 4)
    """
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def count_cycles(comparisons: Matrix) -> int:
    """Count the triples i > j > k > i in a matrix of logits; 0 if the comparisons are transitive."""
    # Integers as floats, exact up to 2^53: integer matrix products are a hundred times slower.
    beats = (np.array(comparisons, dtype=float).reshape((len(comparisons),) * 2) > 0).astype(float)
    # The closed walks of three steps: each cycle is one from each of its candidates.
    return round(float(((beats @ beats) * beats.T).sum())) // 3


def best_distinct(candidates: Sequence[str], order: Sequence[int], top_k: int) -> list[int]:
    """Return the indices of the best `top_k` different texts, best first; of equal texts the first in the order."""
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(candidates[index], index)
    return list(first.values())[:top_k]


def indistinguishable(texts: Sequence[str], read: Iterable[Hashable]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of different texts of which a model reads the same.

    >>> indistinguishable(["Yes", "yes", "No"], ["yes", "yes", "no"])
    ((0, 1),)
    """
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(read):
        groups.setdefault(key, []).append(index)
    return tuple(tuple(group) for group in groups.values() if len({texts[index] for index in group}) > 1)


def keeps_fusion(text: str, preferred: Preferred) -> bool:
    """Return whether a fused text (a) replaces the best candidate (b): it is preferred to it, and not blank."""
    return preferred == "a" and bool(text.strip())
