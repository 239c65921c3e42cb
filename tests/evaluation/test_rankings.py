"""Rankings against gold scores, and self-contradiction, by hand."""

import math

import pytest

from blender_hf.evaluation import rankings
from blender_hf.evaluation.measuring import cycles_and_triples

pytestmark = pytest.mark.once

GOLD = [4.0, 3.0, 2.0, 1.0]


def test_the_same_order_is_best_and_the_reverse_worst() -> None:
    for correlation in (rankings.pearson, rankings.spearman, rankings.kendall):
        assert correlation(GOLD, GOLD) == pytest.approx(1)
        assert correlation(GOLD[::-1], GOLD) == pytest.approx(-1)
        assert correlation([1.0] * 4, GOLD) is None
        assert correlation(GOLD, [1.0] * 4) is None
    assert rankings.footrule(GOLD, GOLD) == 0
    assert rankings.footrule(GOLD[::-1], GOLD) == 8
    assert rankings.relative_footrule(GOLD[::-1], GOLD) == 1


def test_one_swap_of_neighbours() -> None:
    scores = [3.0, 4.0, 2.0, 1.0]
    assert rankings.spearman(scores, GOLD) == pytest.approx(0.8)
    assert rankings.kendall(scores, GOLD) == pytest.approx(2 / 3)
    assert rankings.footrule(scores, GOLD) == 2


def test_what_the_first_place_is_worth() -> None:
    assert rankings.top1_regret([0.0, 9.0, 1.0, 2.0], GOLD) == pytest.approx(1 / 3)
    assert rankings.top1_found([9.0, 0.0, 1.0, 2.0], GOLD) == 1
    # Of two that stand first alike, either may be taken.
    assert rankings.top1_regret([9.0, 9.0, 1.0, 2.0], GOLD) == pytest.approx(1 / 6)
    assert rankings.top1_found([9.0, 9.0, 1.0, 2.0], GOLD) == 0.5
    assert rankings.top1_regret([1.0, 2.0], [5.0, 5.0]) is None
    assert rankings.top1_found([1.0, 2.0], [5.0, 5.0]) is None


def test_a_constant_expects_what_random_guessing_gets() -> None:
    assert rankings.top1_regret([0.0] * 4, GOLD) == pytest.approx(0.5)
    assert rankings.top1_found([0.0] * 4, GOLD) == 0.25


def test_win_rates_of_what_was_judged() -> None:
    assert rankings.win_rate([1.0, 3.0, 2.0], [0.2, 0.9, None]) == 0.9
    assert rankings.win_rate([1.0, 2.0, 3.0], [0.2, 0.9, None]) is None
    assert rankings.win_rate([3.0, 3.0, 3.0], [0.2, 0.9, None]) == pytest.approx(0.55)


def test_circles_among_what_was_compared() -> None:
    nan = math.nan
    circle = [[nan, 1, -1, nan], [-1, nan, 1, 1], [1, -1, nan, 1], [nan, -1, -1, nan]]
    assert cycles_and_triples(circle) == (1, 2)
    assert cycles_and_triples([[nan, 1], [-1, nan]]) == (0, 0)
