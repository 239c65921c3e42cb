"""Figures and their intervals."""

import numpy as np
import pytest
from scipy import stats

from blender_hf.evaluation.bootstrap import figures, mean_of_figures

pytestmark = pytest.mark.once


def test_a_figure_is_a_sum_over_a_sum() -> None:
    found = figures([{"x": (1.0, 2.0)}, {"x": (3.0, 4.0), "y": (0.5, 1.0)}, {}])
    assert (found["x"].value, found["x"].n) == (pytest.approx(4 / 6), 6)
    assert (found["y"].value, found["y"].n) == (0.5, 1)
    assert (found["y"].low, found["y"].high) == (None, None)  # one prompt has no spread
    assert figures([]) == {}
    assert figures([{"x": (0.0, 0.0)}]) == {}


def test_the_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    right, counts = rng.integers(0, 5, 60).astype(float), np.full(60, 5.0)
    found = figures([{"x": (r, n)} for r, n in zip(right, counts, strict=True)], resamples=4000)["x"]
    expected = stats.bootstrap(
        (right, counts),
        lambda r, n, axis: r.sum(axis) / n.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)
    assert found.low < found.value < found.high


def test_pairs_of_a_prompt_are_drawn_together() -> None:
    # The same pairs, once as few prompts that are wholly right or wrong, once as many that are not.
    together = figures([{"x": (10.0 * (n % 2), 10.0)} for n in range(10)])["x"]
    apart = figures([{"x": (float(n % 2), 1.0)} for n in range(100)])["x"]
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = [{"x": (n**0.5, 7.0)} for n in range(20)]
    assert figures(rows, seed=1) == figures(rows, seed=1)
    assert figures(rows, seed=1) != figures(rows, seed=2)


def test_the_mean_over_sources_counts_each_once() -> None:
    large, small = [{"x": (1.0, 1.0)}] * 50, [{"x": (0.0, 1.0)}, {"y": (1.0, 1.0)}]
    found = mean_of_figures([large, small])
    assert set(found) == {"x"}
    assert (found["x"].value, found["x"].n) == (0.5, 2)
    assert mean_of_figures([]) == {}
