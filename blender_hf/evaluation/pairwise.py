"""Agreement with judged pairs: numbers in, numbers out.

Evidence is anything that is positive if it favours a and negative if it favours b: a logit, a probability less one
half, a difference of lengths. A label is the probability, 0 to 1, that a is the better one; 0.5 is a tie.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from blender_hf.errors import InputError

Row = TypeVar("Row")

# Evidence, label and tie threshold to the credit of a pair, 0 to 1; None if it does not count.
TieRule = Callable[[float, float, float], float | None]


def _decided(evidence: float, label: float, tie_threshold: float) -> float | None:
    """Decided pairs only; no evidence is half right."""
    if label == 0.5:
        return None
    return 0.5 if abs(evidence) <= tie_threshold else float((evidence > 0) == (label > 0.5))


def _errors(evidence: float, label: float, tie_threshold: float) -> float:
    """All pairs; an annotator's tie is an error, and no evidence a coin flip."""
    return _decided(evidence, label, 0.0) or 0.0


def _three_way(evidence: float, label: float, tie_threshold: float) -> float:
    """All pairs; a, b and tie are three classes."""
    predicted = 0 if abs(evidence) <= tie_threshold else (1 if evidence > 0 else -1)
    return float(predicted == (label > 0.5) - (label < 0.5))


TIE_RULES: dict[str, TieRule] = {"decided": _decided, "errors": _errors, "three-way": _three_way}


def credits(
    evidence: Sequence[float], labels: Sequence[float], *, ties: str = "decided", tie_threshold: float = 0.0
) -> list[float | None]:
    """Return the credit of each pair: 1 if the evidence agrees with the annotator, 0 if not, None if it does not count.

    >>> credits([2.0, -1.0, 0.1], [1.0, 1.0, 0.5])
    [1.0, 0.0, None]
    >>> credits([2.0, -1.0, 0.1], [1.0, 1.0, 0.5], ties="three-way", tie_threshold=0.2)
    [1.0, 0.0, 1.0]
    """
    if ties not in TIE_RULES:
        raise InputError(f"unknown rule for ties {ties!r}; use one of {', '.join(TIE_RULES)}")
    if len(evidence) != len(labels):
        raise InputError(f"{len(evidence)} pairs and {len(labels)} labels: give one of each for every pair")
    for pair, numbers in enumerate(zip(evidence, labels, strict=True)):
        if any(map(math.isnan, numbers)):
            raise InputError(
                f"pair {pair} has evidence {numbers[0]} and label {numbers[1]}: NaN evidence cannot be scored; fix its "
                "source, or drop the pair"
            )
    rule = TIE_RULES[ties]
    return [rule(found, label, tie_threshold) for found, label in zip(evidence, labels, strict=True)]


def accuracy(
    evidence: Sequence[float], labels: Sequence[float], *, ties: str = "decided", tie_threshold: float = 0.0
) -> float | None:
    """Return the share of pairs, 0 to 1, in which the evidence agrees with the annotator; None if no pair counts.

    The arguments are those of `credits`; chance is 0.5 under "decided".

    >>> accuracy([2.0, -1.0, 0.1, 0.0], [1.0, 1.0, 0.5, 0.0])
    0.5
    >>> accuracy([2.0, -1.0, 0.1, 0.0], [1.0, 1.0, 0.5, 0.0], ties="errors")
    0.375
    """
    found = credits(evidence, labels, ties=ties, tie_threshold=tie_threshold)
    counted = [credit for credit in found if credit is not None]
    return fmean(counted) if counted else None


def length_rule(candidates_a: Sequence[str], candidates_b: Sequence[str]) -> list[float]:
    """Return the evidence of the rule that the longer answer is better: the difference in characters.

    >>> length_rule(["long", "b"], ["a", "c"])
    [3.0, 0.0]
    """
    return [float(len(a) - len(b)) for a, b in zip(candidates_a, candidates_b, strict=True)]


def flip_rate(logits_ab: Sequence[float], logits_ba: Sequence[float]) -> float | None:
    """Return the share of pairs whose winner changes with the presentation order; None for no pairs.

    Args:
        logits_ab: For each pair the logit with a read first, positive for a.
        logits_ba: For each pair the logit with b read first, positive for b.

    >>> flip_rate([1.0, 1.0], [-1.0, 0.5])
    0.5
    """
    flips = [ab * ba > 0 for ab, ba in zip(logits_ab, logits_ba, strict=True)]
    return fmean(flips) if flips else None


def by_source(sources: Sequence[str], rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by their source, or any other key, sorted by its name.

    >>> by_source(["x", "w", "x"], [1, 2, 3])
    {'w': [2], 'x': [1, 3]}
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for source, row in zip(sources, rows, strict=True):
        groups[source].append(row)
    return dict(sorted(groups.items()))
