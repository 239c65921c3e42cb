"""Judged pairs and their soft labels."""

import pytest

from blender_hf.data.preferences import PreferencePair, soft_label


@pytest.mark.parametrize(
    ("pair", "label"),
    [
        ({"label": 1}, 1.0),
        ({"label": -1}, 0.0),
        ({"label": 0}, 0.5),
        ({"label": 1, "votes": [1, 1, 0, -1]}, 0.625),
        ({"label": -1, "pref_b": 0.9}, 0.1),
    ],
)
def test_soft_labels(pair: dict[str, object], label: float) -> None:
    assert soft_label(pair) == pytest.approx(label)


def test_swapping_keeps_the_judgment() -> None:
    assert PreferencePair.of("p", "a", "b", 0.75, "s").swapped() == PreferencePair.of("p", "b", "a", 0.25, "s")
