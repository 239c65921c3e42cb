"""From a matrix of comparisons to one score a candidate.

An aggregation takes the (candidates, candidates) logits of `Ranking.comparisons` and returns a score for each
candidate, higher is better. Where two were not compared, NaN, it takes what the other comparisons say of them, see
`complete`. Sums are exact (`math.fsum`), so that permuting the candidates permutes the scores to the last bit.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

Matrix = Sequence[Sequence[float]]
Scores = tuple[float, ...]

# Digits of a Bradley-Terry score: far fewer than the fit is accurate to.
BRADLEY_TERRY_DIGITS = 6
# Logits beyond this are certain; their probabilities would underflow.
MAX_LOGIT = 300.0


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
    """Maximum-likelihood scores whose differences are log-odds (Bradley and Terry 1952); they sum to 0.

    Each comparison counts as a win with its probability and a loss with the rest, so that scores are finite even for a
    candidate that always wins. They are rounded to 6 decimals.

    >>> bradley_terry([[math.nan, 1.0, 2.0], [-1.0, math.nan, 1.0], [-2.0, -1.0, math.nan]])
    (1.0, 0.0, -1.0)
    """
    logits = np.nan_to_num(np.array(complete(comparisons), dtype=float).reshape((len(comparisons),) * 2))
    # In an order that depends only on the comparisons: the last digits of a sum depend on its order.
    order = sorted(range(len(logits)), key=lambda index: sorted(logits[index]))
    scores = np.zeros(len(logits))
    scores[order] = fit_bradley_terry(_sigmoid(logits[np.ix_(order, order)]))
    # Adding 0.0 turns -0.0 into 0.0.
    return tuple(round(float(score), BRADLEY_TERRY_DIGITS) + 0.0 for score in scores)


def fit_bradley_terry(wins: np.ndarray, steps: int = 100) -> np.ndarray:
    """Fit Bradley-Terry scores by maximum likelihood, with Newton's method.

    Args:
        wins: (..., n, n), how often, fractions allowed, the row beat the column; above 0 off the diagonal.
        steps: Maximum Newton steps; the likelihood is concave, so that few are needed.

    Returns:
        (..., n), scores whose differences are log-odds; they sum to 0.

    >>> fit_bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]])).round(4).tolist()
    [0.5493, -0.5493]
    """
    n = wins.shape[-1]
    if n < 2:
        return np.zeros(wins.shape[:-1])
    wins = np.where(np.eye(n, dtype=bool), 0.0, wins)
    losses = np.swapaxes(wins, -1, -2)

    def leads(scores: np.ndarray) -> np.ndarray:
        return scores[..., :, None] - scores[..., None, :]

    def loss(scores: np.ndarray) -> np.ndarray:
        return (wins * np.logaddexp(0, -leads(scores))).sum(axis=(-2, -1))

    # Mean log-odds are exact if the comparisons agree; if they contradict each other, zeros may be nearer.
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.nan_to_num(np.log(wins) - np.log(losses)).mean(axis=-1)
    scores = np.where((loss(scores) < loss(0 * scores))[..., None], scores, 0.0)
    for _ in range(steps):
        lead = leads(scores)
        # Products, not differences of probabilities, which would lose all digits where one candidate always wins.
        gradient = (wins * _sigmoid(-lead) - losses * _sigmoid(lead)).sum(axis=-1)
        slopes = (wins + losses) * _sigmoid(lead) * _sigmoid(-lead)
        curvature = np.eye(n) * slopes.sum(axis=-1)[..., None] - slopes
        # Only differences count, so the matrix is singular. A direction that is next to flat keeps its mean log-odds.
        step = (np.linalg.pinv(curvature, rcond=1e-12, hermitian=True) @ gradient[..., None])[..., 0]
        share = np.ones(scores.shape[:-1])
        before = loss(scores)
        while ((worse := loss(scores + share[..., None] * step) > before * (1 + 1e-12)) & (share > 1e-6)).any():
            share = np.where(worse, share / 2, share)
        scores = scores + share[..., None] * step
        if abs(step).max() < 1e-10:
            break
    return scores - scores.mean(axis=-1, keepdims=True)


AGGREGATIONS: dict[str, Callable[[Matrix], Scores]] = {
    "max_logits": max_logits,
    "max_wins": max_wins,
    "bradley_terry": bradley_terry,
    "copeland": copeland,
}


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


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -MAX_LOGIT, MAX_LOGIT)))
