"""How near one order of candidates is to another, and what its first place is worth. Scores in, numbers out.

Scores are one number a candidate, higher is better; ranks are 1 for the best, and equal scores share a rank.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean

from blender_hf.engine.aggregation import order_of, ranks_of


def pearson(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Pearson's correlation of scores with the gold scores, -1 to 1; None where one of them does not vary."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, scores, gold)


def spearman(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, -1 to 1; None where one of them does not vary."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, scores, gold)


def kendall(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return Kendall's tau-b, -1 to 1, which takes ties into account; None where one of them does not vary."""
    from scipy.stats import kendalltau

    return _correlation(kendalltau, scores, gold)


def footrule(scores: Sequence[float], gold: Sequence[float]) -> float:
    """Return Spearman's footrule: the sum over the candidates of the distance between their two ranks; 0 is best.

    >>> footrule([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    4.0
    """
    return float(sum(abs(a - b) for a, b in zip(ranks_of(scores), ranks_of(gold), strict=True)))


def relative_footrule(scores: Sequence[float], gold: Sequence[float]) -> float:
    """Return the footrule over the largest that two orders of so many candidates can have: 0 is best, 1 worst.

    >>> relative_footrule([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    1.0
    """
    return footrule(scores, gold) / max(len(gold) ** 2 // 2, 1)


def chosen_of(scores: Sequence[float]) -> list[int]:
    """Return the candidates that stand first: several where their scores are equal, for nothing prefers one of them."""
    return [index for index in order_of(scores) if scores[index] == max(scores)]


def top1_regret(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return what is lost by taking the first, as a share of the gap between the best and the worst: 0 best, 1 worst.

    None where all candidates are worth the same. Of several that stand first, the mean.

    >>> top1_regret([1.0, 3.0, 2.0], [10.0, 7.5, 0.0])
    0.25
    """
    gap = max(gold) - min(gold)
    return None if gap == 0 else (max(gold) - fmean(gold[index] for index in chosen_of(scores))) / gap


def top1_found(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """Return whether the first is one of the best, 1 or 0; None where all candidates are worth the same.

    >>> top1_found([1.0, 3.0, 2.0], [10.0, 10.0, 0.0])
    1.0
    """
    if max(gold) == min(gold):
        return None
    return fmean(gold[index] == max(gold) for index in chosen_of(scores))


def win_rate(scores: Sequence[float], shares: Sequence[float | None]) -> float | None:
    """Return the share of its judged pairs that the chosen candidate wins, 0 to 1; None if it was not judged.

    Args:
        scores: What the ranker says.
        shares: For each candidate the share of its judged pairs that it wins, see `labelled.win_shares`.

    >>> win_rate([1.0, 3.0], [0.25, 0.75])
    0.75
    """
    known = [share for share in (shares[index] for index in chosen_of(scores)) if share is not None]
    return fmean(known) if known else None


def _correlation(function: Callable[..., tuple[float, float]], a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    with warnings.catch_warnings():
        # Scores that differ in the last bit alone; the result is NaN, and the caller told so by None.
        warnings.simplefilter("ignore")
        found = float(function(a, b)[0])
    return None if math.isnan(found) else found
