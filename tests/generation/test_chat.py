from typing import Any

import pytest

from blender_hf import InputError, InputTypeError
from blender_hf.generation.chat import answer_in, as_messages

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("prompt", "instruction", "expected"),
    [
        ("Hi", None, [USER]),
        ("cat", "Translate.", [{"role": "user", "content": "Translate.\ncat"}]),
        ([USER], None, [USER]),
        ([{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}], None, [USER]),
        ([USER], "Be brief.", [SYSTEM, USER]),
        ([SYSTEM, USER], "In French.", [{"role": "system", "content": "In French.\nBe brief."}, USER]),
        ([{**USER, "name": "bob"}], None, [USER]),
        ([{**SYSTEM, "role": "developer"}, USER], None, [SYSTEM, USER]),
    ],
)
def test_a_prompt_becomes_messages(prompt: Any, instruction: str | None, expected: list[dict[str, str]]) -> None:
    assert as_messages(prompt, instruction) == expected


def test_bad_prompts_are_named() -> None:
    with pytest.raises(InputError, match=r"prompt 3: .*role 'robot'"):
        as_messages([{"role": "robot", "content": "x"}], where="prompt 3")
    with pytest.raises(InputTypeError, match="prompt 3"):
        as_messages(3, where="prompt 3")  # type: ignore[arg-type]


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
