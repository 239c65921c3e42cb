"""Matrices small enough to check by hand."""

import math
import random

import pytest

from blender_hf import InputError
from blender_hf.aggregation import AGGREGATIONS, count_cycles, get_aggregation, max_logits, max_wins, order_of, ranks_of

NAN = math.nan
CIRCLE = [[NAN, 1.0, -1.0], [-1.0, NAN, 1.0], [1.0, -1.0, NAN]]
LINE = [[NAN, 3.0, 1.0], [-3.0, NAN, -2.0], [-1.0, 2.0, NAN]]


def test_max_logits_is_the_mean_over_the_others() -> None:
    """PEER_FAULTS: the empty diagonal was counted in."""
    assert max_logits(LINE) == (2.0, -2.5, 0.5)


def test_max_wins_counts_a_tie_as_half() -> None:
    assert max_wins([[NAN, 0.0, 2.0], [0.0, NAN, -0.1], [-2.0, 0.1, NAN]]) == (1.5, 0.5, 1.0)


def test_comparisons_that_were_not_made_count_for_nothing() -> None:
    assert max_logits([[NAN, 3.0, NAN], [-3.0, NAN, NAN], [NAN, NAN, NAN]]) == (3.0, -3.0, 0.0)


def test_equals_share_a_rank_and_keep_their_order() -> None:
    scores = [0.5, 2.0, 0.5, 0.1]
    assert order_of(scores) == (1, 0, 2, 3)
    assert ranks_of(scores) == (2, 1, 2, 4)


def test_cycles() -> None:
    assert count_cycles(CIRCLE) == 1
    assert count_cycles(LINE) == 0
    assert count_cycles([]) == 0


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
    scores = get_aggregation(name)(logits)
    assert get_aggregation(name)(shuffled) == tuple(scores[i] for i in order)


def test_an_unknown_aggregation_is_refused() -> None:
    with pytest.raises(InputError, match="'max_logit'; use one of max_logits, max_wins"):
        get_aggregation("max_logit")
