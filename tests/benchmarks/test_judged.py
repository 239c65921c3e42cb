"""Metrics on judged pairs."""

import pytest

from benchmarks.judged import sampled, without_length

pytestmark = pytest.mark.once


def test_a_length_bias_gains_nothing_without_length() -> None:
    lengths = [5.0, 9.0, -2.0, 4.0, -1.0, 0.0]
    labels = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]  # the longer one is better in three of five; the last has no longer one
    assert without_length(lengths, lengths, labels) == 0.5
    assert without_length([-length for length in lengths], lengths, labels) == 0.5
    assert without_length([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], lengths, labels) == 1.0
    assert without_length([1.0, 1.0, -1.0, -1.0, -1.0, 1.0], lengths, labels) == 0.75


def test_a_sample_has_at_most_so_many_of_each_group() -> None:
    rows = [(name, n) for n in range(9) for name in ("large", "small") if name == "large" or n < 2]
    found = sampled(rows, lambda row: row[0], 4, seed=0)
    assert [name for name, _ in found] == ["large"] * 4 + ["small"] * 2
    assert len(set(found)) == 6
    assert found == sampled(rows, lambda row: row[0], 4, seed=0)
