"""Agreement with judged pairs: numbers in, numbers out.

Evidence is anything that is positive where it favours a and negative where it favours b: a logit, a probability less
one half, a difference of lengths. A label is the probability, 0 to 1, that a is the better one; 0.5 is a tie.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from blender_hf.errors import InputError

Row = TypeVar("Row")

# What a pair is worth, 0 to 1, or None where it does not count.
TieRule = Callable[[float, float, float], float | None]


def _decided(evidence: float, label: float, tie_threshold: float) -> float | None:
    """Pairs that the annotator decided; no evidence is half right."""
    if label == 0.5:
        return None
    return 0.5 if abs(evidence) <= tie_threshold else float((evidence > 0) == (label > 0.5))


def _card(evidence: float, label: float, tie_threshold: float) -> float:
    """All pairs; the ranker has to choose, so an annotator's tie is a miss, and no evidence is a throw of a coin."""
    return _decided(evidence, label, 0.0) or 0.0


def _three_way(evidence: float, label: float, tie_threshold: float) -> float:
    """All pairs; a, b and tie are three answers, of which one is right."""
    said = 0 if abs(evidence) <= tie_threshold else (1 if evidence > 0 else -1)
    return float(said == (label > 0.5) - (label < 0.5))


TIE_RULES: dict[str, TieRule] = {"decided": _decided, "card": _card, "three-way": _three_way}


def credits(
    evidence: Sequence[float], labels: Sequence[float], *, ties: str = "decided", tie_threshold: float = 0.0
) -> list[float | None]:
    """Return what each pair is worth: 1 if the evidence agrees with the annotator, 0 if not, None if it does not count.

    Args:
        evidence: For each pair, positive if a is said to be better.
        labels: For each pair, the judged probability that a is the better one.
        ties: "decided" leaves out what the annotator calls a tie, and no evidence is half right. "card" counts these
            pairs as misses, as the figures on the card of `llm-blender/PairRM` do. "three-way" takes a tie as an
            answer of its own.
        tie_threshold: Evidence up to this, in its own unit, is a tie; "card" knows none.

    Returns:
        One number, or None, for each pair.

    Raises:
        InputError: If there is no such rule, not a label for each pair, or a number is NaN.

    >>> credits([2.0, -1.0, 0.1], [1.0, 1.0, 0.5])
    [1.0, 0.0, None]
    >>> credits([2.0, -1.0, 0.1], [1.0, 1.0, 0.5], ties="three-way", tie_threshold=0.2)
    [1.0, 0.0, 1.0]
    """
    if ties not in TIE_RULES:
        raise InputError(f"there is no rule for ties {ties!r}; use one of {', '.join(TIE_RULES)}")
    if len(evidence) != len(labels):
        raise InputError(
            f"evidence for {len(evidence)} pairs and {len(labels)} labels: give one of each for every pair"
        )
    for pair, numbers in enumerate(zip(evidence, labels, strict=True)):
        if any(map(math.isnan, numbers)):
            raise InputError(
                f"pair {pair} has the evidence {numbers[0]} and the label {numbers[1]}: NaN agrees with nobody; find "
                "out what made it, or leave the pair out"
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
    >>> accuracy([2.0, -1.0, 0.1, 0.0], [1.0, 1.0, 0.5, 0.0], ties="card")
    0.375
    """
    counted = [
        credit for credit in credits(evidence, labels, ties=ties, tie_threshold=tie_threshold) if credit is not None
    ]
    return fmean(counted) if counted else None


def length_rule(candidates_a: Sequence[str], candidates_b: Sequence[str]) -> list[float]:
    """Return the evidence of the rule that the longer answer is better: the difference in characters.

    >>> length_rule(["long", "b"], ["a", "c"])
    [3.0, 0.0]
    """
    return [float(len(a) - len(b)) for a, b in zip(candidates_a, candidates_b, strict=True)]


def flip_rate(logits_ab: Sequence[float], logits_ba: Sequence[float]) -> float | None:
    """Return the share of pairs whose winner changes with the order of presentation; None for no pairs.

    Args:
        logits_ab: For each pair what is said with a read first, positive for a.
        logits_ba: For each pair what is said with b read first, positive for b.

    >>> flip_rate([1.0, 1.0], [-1.0, 0.5])
    0.5
    """
    flips = [ab * ba > 0 for ab, ba in zip(logits_ab, logits_ba, strict=True)]
    return fmean(flips) if flips else None


def by_source(sources: Sequence[str], rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group the rows of pairs by their source, sorted by its name; for languages as for any other division.

    >>> by_source(["x", "w", "x"], [1, 2, 3])
    {'w': [2], 'x': [1, 3]}
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for source, row in zip(sources, rows, strict=True):
        groups[source].append(row)
    return dict(sorted(groups.items()))
