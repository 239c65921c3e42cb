"""Rewards against a reference and within a group."""

import math

import pytest

from blender_hf import Blender, InputError
from tests.conftest import build_ranker, example_texts

TEXTS = example_texts()
PROMPT, ANSWERS = TEXTS[0], list(TEXTS[1:5])


def test_a_reward_is_the_comparison_with_the_reference(blender: Blender) -> None:
    rewards = blender.reward(PROMPT, ANSWERS, reference="No.")
    expected = [blender.compare(PROMPT, answer, "No.").logit for answer in ANSWERS]
    assert rewards == pytest.approx(expected, abs=1e-5)
    assert blender.reward(PROMPT, ["No."], reference="No.") == [0.0]


def test_the_scales(blender: Blender) -> None:
    logits, probabilities, old = (
        blender.reward(PROMPT, ANSWERS, reference="No.", scale=scale)
        for scale in ("logit", "probability", "llm-blender")
    )
    assert probabilities == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits])
    assert old == pytest.approx([2 * logit for logit in logits])
    comparison = blender.compare(PROMPT, ANSWERS[0], "No.")
    assert old[0] == pytest.approx(comparison.logit_ab - comparison.logit_ba, abs=1e-5), "what the old package returns"


@pytest.mark.parametrize(("rule", "index"), [("first", 0), ("last", 3)])
def test_rules_by_place(blender: Blender, rule: str, index: int) -> None:
    assert blender.reward(PROMPT, ANSWERS, rule=rule)[index] == 0.0


def test_rules_by_length(blender: Blender) -> None:
    texts = ["bb", "a", "ccc"]
    assert [blender.reward("p", texts, rule=rule).index(0.0) for rule in ("longest", "shortest")] == [2, 1]


def test_many_prompts_with_a_reference_each(blender: Blender) -> None:
    rewards = blender.reward(["p", "q"], [["a", "b", "c"], ["d"]], reference=["a", "x"])
    assert [len(group) for group in rewards] == [3, 1]
    assert rewards[0] == pytest.approx(blender.reward("p", ["a", "b", "c"], reference="a"), abs=1e-5)
    assert blender.reward([], [], reference=[]) == []


def test_a_group_is_its_own_reference(blender: Blender) -> None:
    rewards = blender.group_reward(PROMPT, ANSWERS)
    assert rewards == pytest.approx(blender.rank(PROMPT, ANSWERS).scores)
    assert sum(rewards) == pytest.approx(0, abs=1e-6)
    probabilities = blender.group_reward([PROMPT, "p"], [ANSWERS, ["only"]], scale="probability")
    assert sum(probabilities[0]) / len(ANSWERS) == pytest.approx(0.5)
    assert probabilities[1] == [0.5]


def test_the_temperature_of_the_checkpoint_calibrates_the_probability() -> None:
    model, processor = build_ranker(logit_temperature=2.0)
    blender = Blender(model, processor)
    comparison = blender.compare(PROMPT, *ANSWERS[:2])
    assert comparison.probability == pytest.approx(1 / (1 + math.exp(-comparison.logit / 2)))
    [reward, _] = blender.group_reward(PROMPT, ANSWERS[:2], scale="probability")
    assert reward == pytest.approx(comparison.probability)
    assert blender.reward(PROMPT, ANSWERS[:1], reference=ANSWERS[1]) == pytest.approx([comparison.logit])


def test_bad_options_are_errors(blender: Blender) -> None:
    with pytest.raises(InputError, match=r"either reference=, .* or rule="):
        blender.reward("p", ["a"])
    with pytest.raises(InputError, match=r"either reference=, .* or rule="):
        blender.reward("p", ["a"], reference="b", rule="first")
    with pytest.raises(
        InputError, match="unknown rule for the reference 'best'; use one of first, last, longest, shortest"
    ):
        blender.reward("p", ["a"], rule="best")
    with pytest.raises(InputError, match="unknown scale 'percent'; use one of logit, probability, llm-blender"):
        blender.group_reward("p", ["a"], scale="percent")
    with pytest.raises(InputError, match=r"lengths are .*'reference': 1"):
        blender.reward(["p", "q"], [["a"], ["b"]], reference=["ab"])
