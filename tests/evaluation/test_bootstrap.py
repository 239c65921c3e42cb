"""Figures and their intervals."""

import numpy as np
import pytest
from scipy import stats

from blender_hf.errors import InputError
from blender_hf.evaluation.bootstrap import figures, mean_of_figures, paired_differences

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


def test_a_difference_is_that_of_the_figures_on_the_same_prompts() -> None:
    first = [{"x": (1.0, 2.0), "y": (1.0, 1.0)}, {"x": (3.0, 4.0)}]
    second = [{"x": (0.0, 2.0)}, {"x": (3.0, 4.0), "z": (1.0, 1.0)}]
    found = paired_differences(first, second)
    assert list(found) == ["x"]
    assert (found["x"].value, found["x"].n) == (pytest.approx(4 / 6 - 3 / 6), 6)
    assert paired_differences([{"y": (1.0, 1.0)}], [{"x": (1.0, 1.0)}]) == paired_differences([], []) == {}
    assert paired_differences([{"x": (1.0, 1.0)}], [{"x": (0.0, 1.0)}])["x"].low is None
    with pytest.raises(InputError, match="2 rows and 1 rows"):
        paired_differences(first, second[:1])


def test_how_hard_the_prompts_are_cancels_out() -> None:
    """Two rankers that are wrong on the same prompts, but for one that one of them gets right as well."""
    first = [{"x": (float(n % 2), 1.0)} for n in range(60)]
    second = [{"x": (float(n % 2 and n != 1), 1.0)} for n in range(60)]
    found, alone = paired_differences(first, second)["x"], figures(first)["x"]
    assert found.value == pytest.approx(1 / 60)
    assert 0 <= found.low <= found.value <= found.high < 0.1
    assert alone.high - alone.low > 0.2
    same = paired_differences(first, first)["x"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_difference_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 80).astype(float), rng.integers(0, 4, 80).astype(float)
    rows = [[{"x": (value, 5.0)} for value in values] for values in (a, b)]
    found = paired_differences(*rows, resamples=4000)["x"]
    expected = stats.bootstrap(
        (a, b),
        lambda a, b, axis: (a - b).mean(axis) / 5,
        paired=True,
        method="percentile",
        n_resamples=4000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
