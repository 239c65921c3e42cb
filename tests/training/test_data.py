"""Which pairs and examples a model is trained on."""

import random
from itertools import combinations

import pytest

from blender_hf import InputError
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.modeling.segmentation import split_segments
from blender_hf.training.fusion_data import (
    FusionExample,
    good_answers,
    merging_examples,
    reference_examples,
    selection_examples,
)
from blender_hf.training.pair_data import balance_lengths, balance_sources, training_pairs
from blender_hf.training.synthetic_negatives import synthetic_negatives


def prompts_of(*records: dict) -> list[LabelledPrompt]:
    return list(read_labelled(records))


RECORDS = [
    {
        "prompt": f"prompt {n}",
        "candidates": [
            {"text": f"Good {n}. It is so. The end {n}."},
            {"text": f"Bad {n}."},
            {"text": f"Middling {n}."},
        ],
        "pairs": [{"a": 0, "b": 1, "label": 1}, {"a": 2, "b": 0, "label": -1}, {"a": 1, "b": 2, "label": 0}],
        "reference": f"Good {n}. It is so. The end {n}.",
    }
    for n in range(40)
]
PROMPTS = prompts_of(*RECORDS)
SCORED = {
    "instruction": "Add.",
    "input": "2 + 2",
    "output": "4, of course",
    "candidates": [
        {"text": text, "model": text, "scores": {"bleurt": bleurt, "rougeL": rouge}}
        for text, bleurt, rouge in (("4", 0.9, 0.5), ("four", 0.9, 0.2), ("5", 0.1, 0.8), ("a hen", 0.0, 0.0))
    ],
}


def test_judged_pairs_keep_the_share_of_votes_and_ties() -> None:
    record = {**RECORDS[0], "pairs": [{"a": 0, "b": 1, "label": 1, "votes": [1, 1, -1, 1]}, RECORDS[0]["pairs"][2]]}
    assert [pair.label for pair in training_pairs(prompts_of(record))] == [0.75, 0.5]


def test_preferences_of_trl_are_pairs_too() -> None:
    chat = {
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "chosen": [{"role": "assistant", "content": "4"}],
        "rejected": [{"role": "assistant", "content": "5"}],
    }
    for record in (chat, {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}):
        [pair] = training_pairs(prompts_of(record))
        assert pair.prompt == "2 + 2?"
        better = pair.candidate_a if pair.label == 1 else pair.candidate_b
        assert better == "4"


def test_a_pair_keeps_the_conversation_and_the_models() -> None:
    """A reward model with a chat template, and a teacher of that kind, read the turns and not a rendering of them."""
    chat = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Sure?"},
    ]
    candidates = [{"text": text, "model": f"m{n}"} for n, text in enumerate(("Four. Sorry. Really.", "b", "c"))]
    prompts = prompts_of({"prompt": chat, "candidates": candidates, "pairs": [{"a": 2, "b": 0, "label": -1}]})
    [judged], [negative] = list(training_pairs(prompts)), synthetic_negatives(prompts, 1, 0, ["cut"])
    for pair in (judged, negative, judged.swapped()):
        assert pair.item.messages == prompts[0].item.messages
        assert len(pair.item.messages) == 3
        assert pair.prompt.startswith("USER: 2 + 2?")
    assert [candidate.model for candidate in judged.item.candidates] == ["m2", "m0"]


def test_each_quality_function_is_a_task() -> None:
    pairs = list(training_pairs(prompts_of(SCORED), metrics=["bleurt", "rougeL"]))
    assert [(p.candidate_a, p.candidate_b) for p in pairs] == list(combinations(("4", "four", "5", "a hen"), 2))
    assert pairs[0].targets == (0.5, 1.0)
    assert pairs[1].targets == (1.0, 0.0)
    assert pairs[1].swapped().targets == (0.0, 1.0)
    assert pairs[1].label == 0.5


def test_the_samplings_of_the_paper() -> None:
    def sample(sampling: str, most: int | None) -> list[PreferencePair]:
        return list(training_pairs(prompts_of(SCORED), metrics=["bleurt"], sampling=sampling, pairs_per_prompt=most))

    assert len(sample("all_pair", None)) == 6
    assert len(sample("random", 5)) == 5
    best_worst, second = sample("top_bottom", 2)
    assert {best_worst.candidate_a, best_worst.candidate_b} == {"4", "a hen"}
    assert {second.candidate_a, second.candidate_b} == {"four", "5"}
    assert sample("all_pair", 3) == sample("all_pair", 3)
    spread = [prompts_of({**SCORED, "input": str(n)})[0] for n in range(8)]
    drawn = list(training_pairs(spread, metrics=["bleurt"], sampling="all_pair", pairs_per_prompt=2))
    assert len(drawn) == 16
    assert {pair.candidate_a for pair in drawn} == {"4", "four", "5"}, "not the first candidate's pairs alone"
    with pytest.raises(InputError, match="unknown sampling 'bottom'"):
        sample("bottom", 1)


def test_large_sources_are_cut_and_small_ones_repeated_three_times_at_most() -> None:
    pairs = [
        PreferencePair.of("p", "a", str(n), 1.0, source) for source, size in (("x", 50), ("y", 4)) for n in range(size)
    ]
    chosen = balance_sources(pairs, most=20, least=15, seed=0)
    counts = {source: sum(p.source == source for p in chosen) for source in ("x", "y")}
    assert counts == {"x": 20, "y": 12}
    assert len({p.candidate_b for p in chosen if p.source == "x"}) == 20
    assert chosen == balance_sources(pairs, most=20, least=15, seed=0) != balance_sources(pairs, most=20, seed=1)


def test_good_answers_won_and_never_lost() -> None:
    assert good_answers(PROMPTS[0]) == ["Good 0. It is so. The end 0."]
    tied = {"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0, "b": 1, "label": 0}]}
    assert good_answers(prompts_of(tied)[0]) == []


def test_lengths_are_balanced_within_each_collection() -> None:
    def pair(a: str, b: str, label: float, source: str) -> PreferencePair:
        return PreferencePair.of("p", a, b, label, source)

    longer, shorter = [pair("long", "s", 1.0, "x"), pair("s", "long", 0.0, "x")], [pair("s", "long", 0.9, "x")]
    others = [pair("a", "long", 0.5, "x"), pair("a", "b", 1.0, "x"), pair("long", "s", 1.0, "y")]
    kept = balance_lengths([*longer, *shorter, *others])
    assert len(kept) == 4
    assert shorter[0] in kept
    assert [p for p in kept if p in others] == others[:2], "a tie and equal lengths stay; y has no shorter winner"
    assert balance_lengths([]) == []


def test_every_segment_of_the_target_is_in_a_corrupted_copy() -> None:
    examples = list(merging_examples(PROMPTS, copies=3, seed=0))
    assert len(examples) == 39  # the first has no foreign segments to take yet
    for example in examples:
        assert len(example.candidates) == 3
        for segment in split_segments(example.target):
            assert any(segment.strip() in candidate for candidate in example.candidates)
    assert any(example.target not in example.candidates for example in examples)


def test_the_selection_task_holds_the_target_among_others() -> None:
    examples = list(selection_examples(PROMPTS, max_candidates=2, seed=0))
    assert len(examples) == 40
    assert all(e.target in e.candidates and len(set(e.candidates)) == 2 for e in examples)
    assert len({e.candidates.index(e.target) for e in examples}) == 2, "the place of the target tells which it is"


def test_the_reference_is_never_among_what_the_fuser_reads() -> None:
    [example, *others] = reference_examples(PROMPTS, max_candidates=3)
    assert len(others) == 39
    assert example.target == "Good 0. It is so. The end 0."
    assert set(example.candidates) == {"Middling 0.", "Bad 0."}
    [scored] = reference_examples(
        prompts_of({**SCORED, "candidates": [{**c, "score": -n} for n, c in enumerate(SCORED["candidates"])]}), 2
    )
    asked = ({"role": "user", "content": "Add.\n2 + 2"},)
    assert scored == FusionExample("Add.\n2 + 2", ("4", "four"), "4, of course", asked)
    assert list(reference_examples(prompts_of(SCORED), 2)) == [], "nothing says which are the best"
    [by_metric] = reference_examples(prompts_of(SCORED), 2, metric="rougeL")
    assert by_metric.candidates == ("5", "4")
    [ranked] = reference_examples(prompts_of(SCORED), 2, [[3, 2, 1, 0]])
    assert ranked.candidates == ("a hen", "5")


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(merging_examples(PROMPTS, 3, 5)),
        lambda: synthetic_negatives(PROMPTS, 9, 5),
    ],
)
def test_the_seed_fixes_everything(make: object) -> None:
    random.seed(1)
    first = make()
    random.seed(2)
    assert make() == first
