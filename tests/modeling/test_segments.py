"""A segment and the ways in which it is written."""

from collections.abc import Sequence

import torch

from blender_hf.modeling.fusion_encoding import Segment
from blender_hf.modeling.fusion_generation import SegmentLogitsProcessor, shortest_candidate

# "Hi. Yes. One." and "Hi.\nYes.\nTwo.": the second segment is the same but for its white space.
HI = Segment((5,), frozenset({(0, 0), (1, 0)}), apart=(4, 5))
YES = Segment((6, 7), frozenset({(0, 1), (1, 1)}), {(1, 1): (3, 6, 7)})
ONE, TWO = Segment((8,), frozenset({(0, 2)})), Segment((3, 9), frozenset({(1, 2)}))
SEGMENTS = [HI, YES, ONE, TWO]
VOCABULARY = 10_000


def allowed_tokens(processor: SegmentLogitsProcessor, written: Sequence[int]) -> dict[int, float]:
    """Return what is added to the score of each token that may follow what is written of an answer."""
    [added] = processor(torch.tensor([[0, *written]]), torch.zeros(1, VOCABULARY, dtype=torch.float64)).tolist()
    return {token: score for token, score in enumerate(added) if score > float("-inf")}


def test_a_passage_is_written_as_it_stands_where_it_follows() -> None:
    assert YES.after(HI) == {(6, 7), (3, 6, 7)}
    assert YES.after(TWO) == {(6, 7)}, "as in the first that has it"
    assert HI.after(None) == {(5,)}
    assert HI.after(YES) == {(4, 5)}, "set apart"
    assert TWO.after(None) == {(3, 9)}


def test_either_candidate_may_be_followed() -> None:
    held = SegmentLogitsProcessor([SEGMENTS], eos_token_id=1, min_length_ratio=1.0, coherence=4.0)
    assert allowed_tokens(held, []) == {5: 4, 6: 0, 8: 0, 3: 0}
    assert allowed_tokens(held, [5]) == {6: 4, 3: 4, 8: 0}
    assert allowed_tokens(held, [5, 3]) == {6: 4, 9: 0}
    assert allowed_tokens(held, [5, 3, 6, 7]) == {3: 4, 8: 4, 1: 0}
    assert allowed_tokens(held, [6, 7]) == {4: 0, 3: 4, 8: 4}


def test_the_room_is_that_of_the_way_it_is_written() -> None:
    held = SegmentLogitsProcessor([SEGMENTS], eos_token_id=1, max_tokens=3)
    assert sorted(allowed_tokens(held, [5])) == [1, 3, 6, 8], "3 begins TWO, for which there is room"
    assert sorted(allowed_tokens(held, [5, 3])) == [9]


def test_the_shortest_candidate_is_as_long_as_it_stands() -> None:
    assert shortest_candidate(SEGMENTS) == 1 + 2 + 1
    assert shortest_candidate([HI, YES, TWO]) == 1 + 2, "of the first, which lacks its end"
    alone = Segment((9, 9, 9), frozenset({(0, 0), (1, 0)}), {(1, 0): (9,)})
    assert shortest_candidate([alone]) == 1
