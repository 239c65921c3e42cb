"""Matrices small enough to check by hand."""

import math
import random
from itertools import combinations

import numpy as np
import pytest

from blender_hf import InputError
from blender_hf.engine.aggregation import (
    AGGREGATIONS,
    bradley_terry,
    complete,
    copeland,
    max_logits,
    max_wins,
)
from blender_hf.errors import chosen
from blender_hf.modeling.ranking_math import count_cycles, order_of, ranks_of

NAN = math.nan
CIRCLE = [[NAN, 1.0, -1.0], [-1.0, NAN, 1.0], [1.0, -1.0, NAN]]
LINE = [[NAN, 3.0, 1.0], [-3.0, NAN, -2.0], [-1.0, 2.0, NAN]]


def test_max_logits_is_the_mean_over_the_others() -> None:
    """PEER_FAULTS: the empty diagonal was counted in."""
    assert max_logits(LINE) == (2.0, -2.5, 0.5)


def test_max_wins_counts_a_tie_as_half() -> None:
    assert max_wins([[NAN, 0.0, 2.0], [0.0, NAN, -0.1], [-2.0, 0.1, NAN]]) == (1.5, 0.5, 1.0)


def test_copeland_is_wins_less_losses() -> None:
    assert copeland(LINE) == (2.0, -2.0, 0.0)
    assert copeland([[NAN, 0.0, 2.0], [0.0, NAN, -0.1], [-2.0, 0.1, NAN]]) == (1.0, -1.0, 0.0)


def test_bradley_terry_finds_scores_whose_differences_are_the_logits() -> None:
    assert bradley_terry([[NAN, 1.0, 3.0], [-1.0, NAN, 2.0], [-3.0, -2.0, NAN]]) == (1.333333, 0.333333, -1.666667)


def test_bradley_terry_of_two_is_half_the_logit_each() -> None:
    assert bradley_terry([[NAN, 0.5], [-0.5, NAN]]) == (0.25, -0.25)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_in_a_circle_nobody_is_better(name: str) -> None:
    assert len(set(AGGREGATIONS[name](CIRCLE))) == 1


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize(("matrix", "size"), [([], 0), ([[NAN]], 1)])
def test_nothing_to_compare(name: str, matrix: list[list[float]], size: int) -> None:
    assert AGGREGATIONS[name](matrix) == (0.0,) * size


def test_what_was_not_compared_follows_from_the_rest() -> None:
    """The winner of a tournament, and whom it beat: 0 beats 1 by 1, 1 beats 2 by 2, so 0 beats 2 by 3."""
    tree = [[NAN, 1.0, NAN], [-1.0, NAN, 2.0], [NAN, -2.0, NAN]]
    assert complete(tree)[0][2] == 3.0
    assert complete(tree)[2][0] == -3.0
    assert max_logits(tree) == (2.0, 0.5, -2.5)
    assert max_wins(tree) == (2.0, 1.0, 0.0)
    assert copeland(tree) == (2.0, 0.0, -2.0)
    assert bradley_terry(tree) == (1.333333, 0.333333, -1.666667)


def test_two_ways_that_disagree_are_averaged() -> None:
    """0 beats 3 by 2 over 1, and by 4 over 2; the fit takes 3."""
    square = [[NAN, 1.0, 2.0, NAN], [-1.0, NAN, NAN, 1.0], [-2.0, NAN, NAN, 2.0], [NAN, -1.0, -2.0, NAN]]
    assert complete(square)[0][3] == pytest.approx(3.0)
    assert complete(square)[0][1] == 1.0, "what was compared stays"


def test_without_any_comparison_all_are_equal() -> None:
    assert max_logits([[NAN] * 3] * 3) == (0.0, 0.0, 0.0)
    assert max_logits([[NAN, 3.0, NAN], [-3.0, NAN, NAN], [NAN, NAN, NAN]]) == (2.25, -2.25, 0.0)


def test_equals_share_a_rank_and_keep_their_order() -> None:
    scores = [0.5, 2.0, 0.5, 0.1]
    assert order_of(scores) == (1, 0, 2, 3)
    assert ranks_of(scores) == (2, 1, 2, 4)


def test_cycles() -> None:
    assert count_cycles(CIRCLE) == 1
    assert count_cycles(LINE) == 0
    assert count_cycles([]) == 0
    drawn = np.triu(np.random.default_rng(0).normal(size=(12, 12)), 1)
    logits = drawn - drawn.T
    circles = [c for c in combinations(range(12), 3) if len({sum(logits[i, j] > 0 for j in c) for i in c}) == 1]
    assert count_cycles(logits.tolist()) == len(circles) > 0


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_permuting_the_candidates_permutes_the_scores_to_the_last_bit(name: str) -> None:
    rng = random.Random(0)
    n = 9
    logits = [[NAN] * n for _ in range(n)]
    for i in range(n):
        for j in range(i):
            logits[i][j] = rng.uniform(-3, 3)
            logits[j][i] = -logits[i][j]
    order = rng.sample(range(n), n)
    shuffled = [[logits[i][j] for j in order] for i in order]
    scores = AGGREGATIONS[name](logits)
    assert AGGREGATIONS[name](shuffled) == tuple(scores[i] for i in order)


def test_an_unknown_aggregation_is_refused() -> None:
    with pytest.raises(InputError, match="'max_logit'; use one of max_logits, max_wins"):
        chosen(AGGREGATIONS, "max_logit", "aggregation")


@pytest.mark.parametrize("scale", [5, 10, 50])
def test_bradley_terry_of_strong_contradictions_is_the_likeliest(scale: float) -> None:
    """At the summit, as many wins are expected as there were, and the order of the candidates moves no digit."""
    rng = np.random.default_rng(0)
    for n in (3, 5, 7):
        logits = np.triu(rng.normal(size=(n, n)) * scale, k=1)
        logits -= logits.T
        scores = np.array(bradley_terry(logits.tolist()))
        gaps = (np.subtract.outer(scores, scores), logits)
        expected, wins = (np.where(np.eye(n), 0, 1 / (1 + np.exp(-gap))) for gap in gaps)
        assert expected.sum(axis=1) == pytest.approx(wins.sum(axis=1), abs=1e-5)
        places = rng.permutation(n)
        assert bradley_terry(logits[np.ix_(places, places)].tolist()) == tuple(scores[places])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_logits_may_be_huge_and_arrays(name: str) -> None:
    scores = AGGREGATIONS[name](np.array([[math.nan, 1000.0], [-1000.0, math.nan]]))
    assert scores[0] == -scores[1] or name == "max_wins"
    assert scores[0] > scores[1]
