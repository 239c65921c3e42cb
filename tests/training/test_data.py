"""Self-made examples for both models."""

import random

import pytest

from blender_hf.modeling.processing_gen_fuser import split_passages
from blender_hf.training.fusion_data import good_answers, merging_examples, selection_examples
from blender_hf.training.ranking_data import LABEL, SOURCE, damaged_pairs

RECORDS = [
    {
        "prompt": f"prompt {n}",
        "candidates": [
            {"text": f"Good {n}. It is so. The end {n}."},
            {"text": f"Bad {n}."},
            {"text": f"Middling {n}."},
        ],
        "pairs": [{"a": 0, "b": 1, "label": 1}, {"a": 2, "b": 0, "label": -1}, {"a": 1, "b": 2, "label": 0}],
    }
    for n in range(40)
]


def test_good_answers_won_and_never_lost() -> None:
    assert good_answers(RECORDS[0]) == ["Good 0. It is so. The end 0."]
    assert good_answers({"candidates": [{"text": "a"}, {"text": "b"}], "pairs": [{"a": 0, "b": 1, "label": 0}]}) == []


def test_every_passage_of_the_target_is_in_a_damaged_copy() -> None:
    examples = list(merging_examples(RECORDS, copies=3, seed=0))
    assert len(examples) == 39  # the first has no foreign passages to take yet
    for example in examples:
        assert len(example.candidates) == 3
        for passage in split_passages(example.target):
            assert any(passage.strip() in candidate for candidate in example.candidates)
    assert any(example.target not in example.candidates for example in examples)


def test_the_selection_task_holds_the_target_among_others() -> None:
    examples = list(selection_examples(RECORDS, most=2, seed=0))
    assert len(examples) == 40
    assert all(e.target in e.candidates and len(set(e.candidates)) == 2 for e in examples)
    assert len({e.candidates.index(e.target) for e in examples}) == 2, "the place of the target tells which it is"


def test_damaged_pairs_prefer_the_whole_answer() -> None:
    pairs = list(damaged_pairs(RECORDS, seed=0))
    assert len(pairs) > 30
    for pair in pairs:
        assert (pair.label, pair.source) == (LABEL, SOURCE)
        assert pair.candidate_a != pair.candidate_b
    cut = [pair for pair in pairs if pair.candidate_a.startswith(pair.candidate_b)]
    foreign = [pair for pair in pairs if pair.candidate_b.startswith("Good") and pair not in cut]
    loops = [pair for pair in pairs if len(pair.candidate_b) > len(pair.candidate_a) + 3]
    assert min(len(cut), len(foreign), len(loops)) > 3


@pytest.mark.parametrize("make", [lambda: merging_examples(RECORDS, 3, 5), lambda: damaged_pairs(RECORDS, 5)])
def test_the_seed_fixes_everything(make: object) -> None:
    random.seed(1)
    first = list(make())
    random.seed(2)
    assert list(make()) == first
