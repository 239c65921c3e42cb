"""The answers of reasoning models, whose thoughts stand between marks that differ by the family."""

import pytest

from blender_hf.generation.thoughts import MARKS, answer_in

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 4 \n", "4"),
        ("<think>2 and 2</think>\n\n4", "4"),
        ("\n<think>\n</think>4", "4"),
        ("2 and 2 are\n</think>\n4", "4"),  # the template wrote the opening mark
        ("<think>2 and", ""),  # it ended within its thoughts
        ("Use <think> and </think> as marks.", "Use <think> and </think> as marks."),
        ("<think>a</think> Write </think> here", "Write </think> here"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(text: str, answer: str) -> None:
    assert answer_in(text) == answer


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_every_family_marks_its_thoughts(begin: str, end: str) -> None:
    assert answer_in(f"{begin}2 and 2{end}4") == "4"
    assert answer_in(f"\n{begin}\n2\n{end}\n\n{begin}3{end}\n4\n") == "4"
    assert answer_in(f"2 and 2\n{end}\n\n4") == "4"
    assert answer_in(f"2 and 2.{end}4") == "4"
    assert answer_in(f"{begin}2 and") == ""
    for mention in (
        f"Write {begin} and {end} around it.",
        f"End it with {end} and go on.",
        f"End it with `{end}`\nand go on.",
        f"Like this:\n```\n2 and 2\n{end}\n4\n```",
        f'It ends with "{end}"; no more.',
        f"So:\n\n{begin}2{end}4",
    ):
        assert answer_in(mention) == mention


CHANNEL = "<|channel|>{}<|message|>{}"
NEXT = "<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (CHANNEL.format("analysis", "hm") + NEXT + CHANNEL.format("final", "4"), "4"),
        (CHANNEL.format("analysis", "hm") + NEXT + CHANNEL.format("final", "4") + "<|return|>", "4"),
        (CHANNEL.format("final <|constrain|>json", '{"a": "<b>"}'), '{"a": "<b>"}'),
        ("<|start|>assistant" + CHANNEL.format("final", "4"), "4"),
        ("hm" + NEXT + CHANNEL.format("final", "4"), "4"),  # the template wrote the first mark
        (CHANNEL.format("analysis", "hm"), ""),
        (CHANNEL.format("analysis", "hm") + NEXT + CHANNEL.format("commentary to=functions.f", "{}") + "<|call|>", ""),
        ("It writes <|channel|>final<|message|> first.", "It writes <|channel|>final<|message|> first."),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>", "4"),
        ("<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>\n4\n<|end_of_solution|>", "4"),
    ],
)
def test_channels_and_wrapped_answers(text: str, answer: str) -> None:
    assert answer_in(text) == answer
