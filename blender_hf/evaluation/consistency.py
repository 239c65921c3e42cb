"""Does a ranker contradict itself? Circles among the comparisons of a prompt."""

import math
from collections.abc import Sequence
from itertools import combinations

from blender_hf.engine.aggregation import count_cycles


def count_triples(comparisons: Sequence[Sequence[float]]) -> int:
    """Count the triples of candidates whose three pairs were all compared.

    Args:
        comparisons: (candidates, candidates), NaN where not compared, as in `Ranking`.
    """
    n = range(len(comparisons))
    known = [[not math.isnan(logit) for logit in row] for row in comparisons]
    return sum(known[i][j] and known[j][k] and known[i][k] for i, j, k in combinations(n, 3))


def cycles_and_triples(comparisons: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return how many triples beat each other in a circle, and how many there are."""
    return count_cycles(comparisons), count_triples(comparisons)
