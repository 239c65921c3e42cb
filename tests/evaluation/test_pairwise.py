"""Agreement with judged pairs, by hand."""

import pytest

from blender_hf.errors import InputError
from blender_hf.evaluation.pairwise import accuracy, by_source, credits, flip_rate, length_rule

pytestmark = pytest.mark.once

EVIDENCE = [2.0, -1.0, 0.1, 0.0, -0.1]
LABELS = [1.0, 1.0, 0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    ("ties", "threshold", "expected"),
    [
        ("decided", 0.0, [1.0, 0.0, None, 0.5, 1.0]),
        ("decided", 0.2, [1.0, 0.0, None, 0.5, 0.5]),
        ("errors", 0.0, [1.0, 0.0, 0.0, 0.5, 1.0]),
        ("errors", 0.2, [1.0, 0.0, 0.0, 0.5, 1.0]),
        ("three-way", 0.0, [1.0, 0.0, 0.0, 0.0, 1.0]),
        ("three-way", 0.2, [1.0, 0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_what_a_tie_is_worth(ties: str, threshold: float, expected: list[float | None]) -> None:
    assert credits(EVIDENCE, LABELS, ties=ties, tie_threshold=threshold) == expected
    counted = [value for value in expected if value is not None]
    found = accuracy(EVIDENCE, LABELS, ties=ties, tie_threshold=threshold)
    assert found == pytest.approx(sum(counted) / len(counted))


def test_swapping_the_candidates_changes_no_decided_pair() -> None:
    swapped = credits([-e for e in EVIDENCE], [1 - label for label in LABELS])
    assert swapped == credits(EVIDENCE, LABELS)


def test_nothing_to_count() -> None:
    assert accuracy([], []) is None
    assert accuracy([1.0], [0.5]) is None
    assert flip_rate([], []) is None


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="unknown rule for ties 'half'; use one of decided, errors, three-way"):
        accuracy([1.0], [1.0], ties="half")
    with pytest.raises(InputError, match="2 pairs and 1 labels"):
        accuracy([1.0, 2.0], [1.0])


def test_the_longer_answer() -> None:
    assert accuracy(length_rule(["long one", "a", "same"], ["b", "long one", "same"]), [1.0, 1.0, 1.0]) == 0.5


def test_flips() -> None:
    # A winner that stays has opposite signs: each logit is positive for what is read first.
    assert flip_rate([1.0, 1.0, -1.0, 0.0], [-2.0, 2.0, -1.0, 1.0]) == 0.5


def test_groups_are_sorted_by_name() -> None:
    assert list(by_source(["b", "a", "b"], "xyz").items()) == [("a", ["y"]), ("b", ["x", "z"])]


@pytest.mark.parametrize(("evidence", "label"), [(float("nan"), 1.0), (1.0, float("nan"))])
def test_nan_cannot_be_scored(evidence: float, label: float) -> None:
    with pytest.raises(InputError, match=r"pair 1 has evidence .*NaN evidence cannot be scored"):
        accuracy([1.0, evidence], [1.0, label])
