"""Agreement of a ranking with gold scores, and the quality of its first candidate: numbers in, numbers out.

Scores are one number a candidate, higher is better; ranks are 1 for the best, and equal scores share a rank.
"""

import math
import warnings
from collections.abc import Sequence
from statistics import fmean

from blender_hf.errors import require
from blender_hf.modeling.ranking_math import order_of, ranks_of


def require_scipy() -> None:
    """Raise BlenderError, before long work begins, if SciPy is missing, which the correlations need."""
    require("scipy", "evaluate", "evaluation")


def pearson(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Pearson's correlation with the gold scores, -1 to 1; None if either is constant."""
    return _correlation("pearsonr", scores, gold)


def spearman(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, -1 to 1; None if either is constant."""
    return _correlation("spearmanr", scores, gold)


def kendall(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Kendall's tau-b, -1 to 1, which takes ties into account; None if either is constant."""
    return _correlation("kendalltau", scores, gold)


def footrule(scores: Sequence[float], gold: Sequence[float]) -> float:
    """Return Spearman's footrule: the sum over the candidates of the distance between their two ranks; 0 is best.

    >>> footrule([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    4.0
    """
    return float(sum(abs(a - b) for a, b in zip(ranks_of(scores), ranks_of(gold), strict=True)))


def relative_footrule(scores: Sequence[float], gold: Sequence[float]) -> float:
    """Return the footrule relative to its maximum for that many candidates: 0 is best, 1 worst.

    >>> relative_footrule([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    1.0
    """
    return footrule(scores, gold) / max(len(gold) ** 2 // 2, 1)


def chosen_of(scores: Sequence[float]) -> list[int]:
    """Return the indices of the highest score: several if it is shared."""
    return [index for index in order_of(scores) if scores[index] == max(scores)]


def top1_regret(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return the gap between the best and the first, relative to that between best and worst: 0 is best, 1 worst.

    None if all gold scores are equal; the mean if several share the first place.

    >>> top1_regret([1.0, 3.0, 2.0], [10.0, 7.5, 0.0])
    0.25
    """
    gap = max(gold) - min(gold)
    return None if gap == 0 else (max(gold) - fmean(gold[index] for index in chosen_of(scores))) / gap


def top1_found(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return whether the first is one of the best, 1 or 0; None if all gold scores are equal.

    >>> top1_found([1.0, 3.0, 2.0], [10.0, 10.0, 0.0])
    1.0
    """
    if max(gold) == min(gold):
        return None
    return fmean(gold[index] == max(gold) for index in chosen_of(scores))


def win_rate(scores: Sequence[float], shares: Sequence[float | None]) -> float | None:
    """Return the share of its judged pairs that the first candidate wins, 0 to 1; None if it was not judged.

    The shares of all candidates are those of `labelled.win_shares`.

    >>> win_rate([1.0, 3.0], [0.25, 0.75])
    0.75
    """
    known = [share for share in (shares[index] for index in chosen_of(scores)) if share is not None]
    return fmean(known) if known else None


def _correlation(function: str, a: Sequence[float], b: Sequence[float]) -> float | None:
    from scipy import stats

    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    with warnings.catch_warnings():
        # Scores that differ in the last bit alone give NaN, returned as None.
        warnings.simplefilter("ignore")
        found = float(getattr(stats, function)(a, b)[0])
    return None if math.isnan(found) else found
