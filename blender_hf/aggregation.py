"""From a matrix of comparisons to one score a candidate.

An aggregation takes the (candidates, candidates) logits of `Ranking.comparisons`, NaN where not compared, and returns a
score for each candidate, higher is better. Sums are exact (`math.fsum`), so that permuting the candidates permutes the
scores to the last bit.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from .errors import InputError

Matrix = Sequence[Sequence[float]]


def max_logits(comparisons: Matrix) -> tuple[float, ...]:
    """Mean logit against the others, (paper, section 3.4, "MaxLogits"), over those that were compared; 0 with none.

    >>> max_logits([[math.nan, 1.0, 2.0], [-1.0, math.nan, 0.0], [-2.0, 0.0, math.nan]])
    (1.5, -0.5, -1.0)
    """
    return tuple(_mean(_known(row)) for row in comparisons)


def max_wins(comparisons: Matrix) -> tuple[float, ...]:
    """Number of others that it beats, a tie counting one half (paper, section 3.4, "MaxWins").

    >>> max_wins([[math.nan, 1.0, 2.0], [-1.0, math.nan, 0.0], [-2.0, 0.0, math.nan]])
    (2.0, 0.5, 0.5)
    """
    return tuple(sum(1.0 if logit > 0 else 0.5 for logit in _known(row) if logit >= 0) for row in comparisons)


AGGREGATIONS: dict[str, Callable[[Matrix], tuple[float, ...]]] = {"max_logits": max_logits, "max_wins": max_wins}


def get_aggregation(name: str) -> Callable[[Matrix], tuple[float, ...]]:
    """Return an aggregation by its name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in AGGREGATIONS:
        raise InputError(f"there is no aggregation {name!r}; use one of {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[name]


def order_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the indices by falling score, equals in the order given.

    >>> order_of([0.5, 2.0, 0.5])
    (1, 0, 2)
    """
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index]))


def ranks_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the rank of each score, 1 for the highest; equals share a rank and the next is skipped.

    >>> ranks_of([0.5, 2.0, 0.5, 0.1])
    (2, 1, 2, 4)
    """
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def count_cycles(comparisons: Matrix) -> int:
    """Count the triples that beat each other in a circle; 0 if the comparisons are transitive."""
    beats = [[logit > 0 for logit in row] for row in comparisons]
    return sum(
        (beats[i][j] and beats[j][k] and beats[k][i]) or (beats[j][i] and beats[k][j] and beats[i][k])
        for i, j, k in combinations(range(len(beats)), 3)
    )


def _known(row: Sequence[float]) -> list[float]:
    return [logit for logit in row if not math.isnan(logit)]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
