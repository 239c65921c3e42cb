"""What a ranking derives from its logits."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from blender_hf import Blender, Schedule
from blender_hf.data.sources import read_records
from blender_hf.engine.results import POINTWISE, Ranking, Truncation, make_ranking
from blender_hf.inputs import Item, make_item
from blender_hf.modeling.ranking_math import probability_of
from tests.conftest import EXAMPLES

NAN = math.nan


@pytest.fixture(scope="module")
def item() -> Item:
    return next(iter(read_records(EXAMPLES))).item


def ranking_of(logits: list[list[float]], texts: str = "abc", schedule: str = "full") -> Ranking:
    item, truncated = make_item("?", list(texts)), Truncation(0, (0,) * len(texts))
    rows = tuple(map(tuple, logits))
    return make_ranking(item, rows, "max_logits", temperature=2.0, truncated=truncated, schedule=schedule)


def test_the_logits_are_those_of_both_orders(blender: Blender, item: Item) -> None:
    ranking = blender.rank(item.prompt, item.texts)
    assert np.isnan(np.diagonal(ranking.logits)).all()
    for i, a in enumerate(item.texts):
        for j, b in enumerate(item.texts):
            if i == j:
                continue
            comparison = blender.compare(item.prompt, a, b)
            assert ranking.logits[i][j] == pytest.approx(comparison.logit_ab, abs=1e-5)
            assert ranking.logits[j][i] == pytest.approx(comparison.logit_ba, abs=1e-5)
            assert ranking.comparisons[i][j] == pytest.approx(comparison.logit, abs=1e-5)
            assert ranking.probability(i, j) == pytest.approx(comparison.probability, abs=1e-5)
            assert ranking.flipped(i, j) == comparison.flipped


def test_where_one_order_was_asked_the_comparison_is_that_one(blender: Blender, item: Item) -> None:
    ranking = blender.rank(item.prompt, item.texts, schedule=Schedule(orders="one"))
    logits, comparisons = np.array(ranking.logits), np.array(ranking.comparisons)
    asked = ~np.isnan(logits)
    assert asked.sum() == ranking.n_comparisons == ranking.n_possible
    assert (comparisons[asked] == logits[asked]).all()
    assert (comparisons.T[asked] == -logits[asked]).all()
    assert ranking.flip_rate is None
    assert ranking.flipped(0, 1) is None


def test_what_is_derived_is_exact() -> None:
    ranking = ranking_of([[NAN, 3.0, 1.0], [-1.0, NAN, 1.0], [0.5, -3.0, NAN]])
    assert np.array_equal(ranking.comparisons, [[NAN, 2, 0.25], [-2, NAN, 2], [-0.25, -2, NAN]], equal_nan=True)
    assert ranking.scores == (1.125, 0.0, -1.125)
    assert (ranking.n_comparisons, ranking.n_possible, ranking.n_cycles) == (3, 3, 0)
    assert [ranking.flipped(*pair) for pair in ((0, 1), (0, 2), (1, 2), (0, 0))] == [False, True, False, False]
    assert ranking.flip_rate == pytest.approx(1 / 3)
    assert ranking.probability(0, 1) == probability_of(2.0, 2.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert ranking.win_probability(0) == pytest.approx((probability_of(1.0) + probability_of(0.125)) / 2)
    circle = [[NAN, 1.0, -1.0], [-1.0, NAN, 1.0], [1.0, -1.0, NAN]]
    assert ranking_of(circle).n_cycles == 1


def test_what_was_not_compared_is_inferred_and_repeats_of_a_text_change_nothing() -> None:
    sparse = [[NAN, 1.0, NAN, NAN], [-1.0, NAN, 0.5, 2.0], [NAN, -0.5, NAN, 1.0], [NAN, -2.0, -1.0, NAN]]
    ranking = ranking_of(sparse, "abcd")
    twice = [0, 0, 1, 2, 3, 1]
    repeated = [
        [NAN if i == j else 0.0 if twice[i] == twice[j] else sparse[twice[i]][twice[j]] for j in range(6)]
        for i in range(6)
    ]
    again = ranking_of(repeated, "aabcdb")
    assert math.isnan(ranking.comparisons[0][2])
    assert ranking.inferred[0][2] == pytest.approx(1 + ranking.inferred[1][2], abs=0.2)
    assert again.inferred[0][3] == ranking.inferred[0][2]
    assert again.inferred[0][1] == 0.0
    assert (again.n_comparisons, again.n_possible) == (ranking.n_comparisons, ranking.n_possible) == (4, 6)


def test_probabilities_are_calibrated_by_the_temperature(blender: Blender) -> None:
    ranking = blender.rank("2 + 2?", ["4", "Bananas."])
    best, logit = ranking.order[0], max(ranking.scores)
    for temperature in (1.0, 4.0):
        expected = 1 / (1 + math.exp(-logit / temperature))
        warm = replace(ranking, temperature=temperature)
        assert warm.win_probability(best) == pytest.approx(expected)
        assert warm.probability(best, 1 - best) == pytest.approx(expected)
    assert ranking_of([[NAN]], "a").win_probability(0) == 0.5


def test_a_pointwise_ranking_has_differences_and_no_comparisons() -> None:
    ranking = ranking_of([[NAN, 1.0, 3.0], [-1.0, NAN, 2.0], [-3.0, -2.0, NAN]], schedule=POINTWISE)
    assert (ranking.n_comparisons, ranking.flip_rate, ranking.n_cycles) == (0, None, 0)
    assert ranking.flipped(0, 1) is False
    assert ranking.comparisons[0][2] == 3.0


def test_a_copy_is_equal_whatever_was_derived_before(blender: Blender, item: Item) -> None:
    ranking = blender.rank(item.prompt, item.texts, schedule="knockout")
    fresh = pickle.dumps(ranking)
    assert ranking.inferred[0][1] == -ranking.inferred[1][0]
    assert pickle.dumps(ranking) == fresh
    copy = pickle.loads(fresh)
    assert copy == ranking
    assert hash(copy) == hash(ranking)
    assert copy.to_dict() == ranking.to_dict()
    assert "best=" in repr(copy)
