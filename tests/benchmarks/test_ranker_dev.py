"""The arithmetic of benchmarks/ranker_dev.py."""

from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ranker_dev(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return pytest.importorskip("ranker_dev")


def test_a_taste_for_length_gains_nothing_without_length(ranker_dev: ModuleType) -> None:
    lengths = [5.0, 9.0, -2.0, 4.0, -1.0, 0.0]
    labels = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]  # the longer one is better in three of five; the last has no longer one
    assert ranker_dev.without_length(lengths, lengths, labels) == 0.5
    assert ranker_dev.without_length([-length for length in lengths], lengths, labels) == 0.5
    assert ranker_dev.without_length([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], lengths, labels) == 1.0
    assert ranker_dev.without_length([1.0, 1.0, -1.0, -1.0, -1.0, 1.0], lengths, labels) == 0.75
