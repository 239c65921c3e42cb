"""The figures of an evaluation in both orders, on pairs whose result is known."""

import pytest

from blender_hf.data.preferences import PreferencePair
from blender_hf.training.ranker_metrics import MEAN, metric_names, pair_metrics, source_table

PAIRS = [
    PreferencePair.of("p", "long answer", "short", 1.0, "x"),
    PreferencePair.of("p", "no", "longer", 1.0, "x"),
    PreferencePair.of("p", "a", "b", 0.5, "x"),
    PreferencePair.of("p", "right", "no", 0.0, "y"),
]
AB = [2.0, 1.0, 3.0, 1.0]
BA = [-2.0, 0.5, -3.0, 3.0]


def test_each_source_has_its_row_and_ties_have_none() -> None:
    table = source_table(PAIRS, AB, BA)
    assert table["x"] == {"pairs": 2, "both orders": 1.0, "one order": 1.0, "longer is better": 0.5, "flips": 0.5}
    assert table["y"] == {"pairs": 1, "both orders": 1.0, "one order": 0.0, "longer is better": 0.0, "flips": 1.0}
    assert table[MEAN] == {"pairs": 3, "both orders": 1.0, "one order": 0.5, "longer is better": 0.25, "flips": 0.75}


def test_the_metrics_of_a_trainer() -> None:
    found = pair_metrics(PAIRS, AB, BA)
    assert (found["accuracy"], found["accuracy_one_order"], found["accuracy_longer"]) == (1.0, 0.5, 0.25)
    assert (found["accuracy_x"], found["accuracy_y"], found["flip_rate"]) == (1.0, 1.0, 0.75)
    # The logits are 2, 0.25, 3, -1; at this temperature the likelihood of the labels no longer rises nor falls.
    assert found["temperature"] == pytest.approx(1.8712, abs=1e-3)
    # All probabilities are in bins of their own: 0.744, 0.533, 0.832 and 0.369 against the labels 1, 1, 0.5 and 0.
    assert found["ece"] == pytest.approx((0.2556 + 0.4666 + 0.3325 + 0.3695) / 4, abs=1e-3)
    assert set(found) == set(metric_names(PAIRS))


def test_pairs_without_a_verdict_give_no_accuracy() -> None:
    assert source_table(PAIRS[2:3], [1.0], [1.0]) == {}
    assert list(pair_metrics(PAIRS[2:3], [1.0], [1.0])) == metric_names(PAIRS[2:3]) == ["ece", "temperature"]
    with pytest.raises(ValueError, match="0 logits"):
        pair_metrics([], [], [])
