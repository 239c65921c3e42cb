"""Figures and their intervals."""

import random

import numpy as np
import pytest
from scipy import stats

from blender_hf.engine.results import probability_of
from blender_hf.evaluation.bootstrap import figures, mean_of_figures
from blender_hf.evaluation.calibration import calibration_of


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


def test_a_calibrated_ranker_lies_on_the_diagonal() -> None:
    rng = random.Random(0)
    logits = [rng.gauss(0, 2) for _ in range(6000)]
    labels = [float(rng.random() < probability_of(logit)) for logit in logits]
    honest = calibration_of([probability_of(logit) for logit in logits], labels)
    boastful = calibration_of([probability_of(4 * logit) for logit in logits], labels)
    assert honest is not None
    assert boastful is not None
    assert max(abs(a - b) for a, b in zip(honest.said, honest.came_true, strict=True)) < 0.08
    assert honest.error < 0.02 < boastful.error
    assert honest.brier < boastful.brier
    assert sum(honest.counts) == 6000
    assert len(honest.counts) == len(honest.said) == len(honest.came_true)


def test_ties_do_not_count_and_swapping_changes_nothing() -> None:
    said, labels = [0.9, 0.3, 0.5, 0.8], [1.0, 1.0, 0.5, 0.0]
    found = calibration_of(said, labels)
    assert found == calibration_of(said[:2] + said[3:], labels[:2] + labels[3:])
    swapped = calibration_of([1 - p for p in said], [1 - label for label in labels])
    assert found is not None
    assert swapped is not None
    assert swapped.error == pytest.approx(found.error)
    assert sum(found.counts) == 3
    assert calibration_of([0.9], [0.5]) is None
    assert calibration_of([], []) is None
