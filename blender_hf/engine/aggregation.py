"""From a matrix of comparisons to one score a candidate.

An aggregation takes the (candidates, candidates) logits of `Ranking.comparisons` and returns a score for each
candidate, higher is better. Where two were not compared, NaN, it takes what the other comparisons say of them, see
`complete`. Sums are exact (`math.fsum`), so that permuting the candidates permutes the scores to the last bit.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from blender_hf.errors import BlenderError, InputError

Matrix = Sequence[Sequence[float]]
Scores = tuple[float, ...]

# Differences below what the optimiser can tell are no differences.
BRADLEY_TERRY_DIGITS = 6


def max_logits(comparisons: Matrix) -> Scores:
    """Mean logit against the others (paper, section 3.4, "MaxLogits"); 0 for a single candidate.

    >>> max_logits([[math.nan, 1.0, 2.0], [-1.0, math.nan, 0.0], [-2.0, 0.0, math.nan]])
    (1.5, -0.5, -1.0)
    """
    return tuple(math.fsum(row) / max(len(row), 1) for row in _others(comparisons))


def max_wins(comparisons: Matrix) -> Scores:
    """Number of others that it beats, a tie counting one half (paper, section 3.4, "MaxWins").

    >>> max_wins([[math.nan, 1.0, 2.0], [-1.0, math.nan, 0.0], [-2.0, 0.0, math.nan]])
    (2.0, 0.5, 0.5)
    """
    return tuple(math.fsum(1.0 if logit > 0 else 0.5 for logit in row if logit >= 0) for row in _others(comparisons))


def copeland(comparisons: Matrix) -> Scores:
    """Number of others that it beats, less the number of those that beat it (Copeland 1951).

    >>> copeland([[math.nan, 1.0, 2.0], [-1.0, math.nan, 0.0], [-2.0, 0.0, math.nan]])
    (2.0, -1.0, -1.0)
    """
    return tuple(float(sum((logit > 0) - (logit < 0) for logit in row)) for row in _others(comparisons))


def bradley_terry(comparisons: Matrix) -> Scores:
    """Scores whose differences are logits, as likely as can be (Bradley and Terry 1952); their sum is 0.

    Each comparison counts as a win with its probability and a loss with the rest, so the scores are finite even of a
    candidate that always wins. They are rounded to 6 decimals, which the optimiser reaches.

    Raises:
        BlenderError: If SciPy is not installed.

    >>> bradley_terry([[math.nan, 1.0, 2.0], [-1.0, math.nan, 1.0], [-2.0, -1.0, math.nan]])
    (1.0, 0.0, -1.0)
    """
    logits = np.nan_to_num(np.array(complete(comparisons), dtype=float))
    if len(logits) < 2:
        return (0.0,) * len(logits)
    # In an order of their own: where the likelihood is flat, its last digits depend on the order of the sums.
    order = sorted(range(len(logits)), key=lambda index: sorted(logits[index]))
    scores = np.empty(len(logits))
    scores[order] = _most_likely(logits[np.ix_(order, order)])
    # Adding 0.0 turns -0.0 into 0.0.
    return tuple(round(float(score), BRADLEY_TERRY_DIGITS) + 0.0 for score in scores - scores.mean())


AGGREGATIONS: dict[str, Callable[[Matrix], Scores]] = {
    "max_logits": max_logits,
    "max_wins": max_wins,
    "bradley_terry": bradley_terry,
    "copeland": copeland,
}


def get_aggregation(name: str) -> Callable[[Matrix], Scores]:
    """Return an aggregation by its name.

    Raises:
        InputError: If there is none of that name.
    """
    if not isinstance(name, str) or name not in AGGREGATIONS:
        raise InputError(f"there is no aggregation {name!r}; use one of {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[name]


def complete(comparisons: Matrix) -> list[list[float]]:
    """Fill in the comparisons that were not made, from scores fitted to those that were.

    The scores are those whose differences come nearest to the logits (least squares, Jiang et al. 2011, "HodgeRank").
    Where the comparisons are a tree, as those of a tournament, the fit is exact: who won stays above whom it beat.

    Args:
        comparisons: (candidates, candidates), NaN where not compared.

    Returns:
        The matrix, NaN on its diagonal alone.

    >>> complete([[math.nan, 1.0, math.nan], [-1.0, math.nan, 0.5], [math.nan, -0.5, math.nan]])[0]
    [nan, 1.0, 1.5]
    """
    filled = [list(row) for row in comparisons]
    missing = [pair for pair in combinations(range(len(filled)), 2) if math.isnan(filled[pair[0]][pair[1]])]
    if missing:
        scores = _nearest_scores(filled)
        for i, j in missing:
            filled[i][j], filled[j][i] = scores[i] - scores[j], scores[j] - scores[i]
    return filled


def _others(comparisons: Matrix) -> list[list[float]]:
    """Return each candidate's logits against the others."""
    return [[float(logit) for j, logit in enumerate(row) if j != i] for i, row in enumerate(complete(comparisons))]


def _nearest_scores(comparisons: Matrix) -> list[float]:
    made = [(i, j) for i, j in combinations(range(len(comparisons)), 2) if not math.isnan(comparisons[i][j])]
    differences = np.zeros((len(made), len(comparisons)))
    for row, (i, j) in enumerate(made):
        differences[row, i], differences[row, j] = 1.0, -1.0
    logits = np.array([comparisons[i][j] for i, j in made])
    scores = np.linalg.lstsq(differences, logits, rcond=None)[0] if made else np.zeros(len(comparisons))
    return [round(float(score), 9) for score in scores]  # beyond that is the noise of the solver


def _most_likely(logits: np.ndarray) -> np.ndarray:
    """Maximise the likelihood, which has one summit, by Newton's method with a trust region."""
    try:
        from scipy.optimize import minimize
        from scipy.special import expit
    except ImportError as error:
        raise BlenderError(
            "aggregation='bradley_terry' needs SciPy: pip install 'blender-hf[evaluate]'; or use 'max_logits'"
        ) from error
    others = 1 - np.eye(len(logits))
    probabilities = expit(logits)

    def loss(scores: np.ndarray) -> float:
        return float((others * probabilities * np.logaddexp(0, scores[None, :] - scores[:, None])).sum())

    def gradient(scores: np.ndarray) -> np.ndarray:
        return (others * (expit(scores[:, None] - scores[None, :]) - probabilities)).sum(axis=1)

    def hessian(scores: np.ndarray) -> np.ndarray:
        slopes = expit(scores[:, None] - scores[None, :]) * expit(scores[None, :] - scores[:, None]) * others
        return np.diag(slopes.sum(axis=1)) - slopes

    start = np.zeros(len(logits))
    return minimize(loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10}).x
