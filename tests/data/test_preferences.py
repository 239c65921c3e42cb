"""Judged pairs and their soft labels."""

import json
from pathlib import Path

import pytest

from blender_hf.data.preferences import PreferencePair, read_preferences, sample_per_source, soft_label


def test_pairs_of_a_file(tmp_path: Path) -> None:
    record = {
        "source": "s",
        "prompt": "p",
        "candidates": [{"text": "a"}, {"text": "b"}],
        "pairs": [{"a": 0, "b": 1, "label": 1}, {"a": 1, "b": 0, "label": 0}],
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    first, second = read_preferences(tmp_path / "x.jsonl")
    assert first == PreferencePair("p", "a", "b", 1.0, "s")
    assert second == PreferencePair("p", "b", "a", 0.5, "s")


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
    assert PreferencePair("p", "a", "b", 0.75, "s").swapped() == PreferencePair("p", "b", "a", 0.25, "s")


def test_sampling_is_per_source_and_repeatable() -> None:
    pairs = [PreferencePair("p", str(k), "b", 1.0, "large" if k else "small") for k in range(50)]
    sample = sample_per_source(pairs, 5, seed=1)
    assert sorted(pair.source for pair in sample) == ["large"] * 5 + ["small"]
    assert sample == sample_per_source(pairs, 5, seed=1)
    assert sample != sample_per_source(pairs, 5, seed=2)
