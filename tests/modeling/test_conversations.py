"""Prompts as text and as chat messages."""

from typing import Any

import pytest

from blender_hf import InputError, InputTypeError
from blender_hf.inputs import make_item
from blender_hf.modeling.conversations import as_messages, fold_system, render_prompt

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("as it is\n", "as it is\n"),
        ([{"role": "user", "content": "hi"}], "hi"),
        (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            "SYSTEM: Be brief.\nUSER: hi",
        ),
        (
            [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            "SYSTEM: Be brief.\nUSER: hi",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "ab"),
    ],
)
def test_rendered(prompt: Any, text: str) -> None:
    assert render_prompt(prompt) == text


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (None, TypeError, "not None"),
        (3, TypeError, "not int"),
        ([], ValueError, "at least one message"),
        (["a"], TypeError, "a list of str"),
        ([{"role": "human", "content": "hi"}], ValueError, "'human'.*user"),
        ([{"role": "user"}], TypeError, "must be text, not None"),
        ([{"role": "user", "content": [{"type": "image"}]}], TypeError, "must be text"),
    ],
)
def test_refused(prompt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        render_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "instruction", "expected"),
    [
        ("Hi", None, [USER]),
        ("cat", "Translate.", [{"role": "user", "content": "Translate.\ncat"}]),
        ([USER], None, [USER]),
        ([{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}], None, [USER]),
        ([USER], "Be brief.", [SYSTEM, USER]),
        ([SYSTEM, USER], "In French.", [{"role": "system", "content": "In French.\n\nBe brief."}, USER]),
        ([{**USER, "name": "bob"}], None, [USER]),
        ([{**SYSTEM, "role": "developer"}, USER], None, [SYSTEM, USER]),
    ],
)
def test_a_prompt_becomes_messages(prompt: Any, instruction: str | None, expected: list[dict[str, str]]) -> None:
    assert [*as_messages(prompt, instruction)] == expected


def test_bad_prompts_are_named() -> None:
    with pytest.raises(InputError, match=r"prompt 3: .*role 'robot'"):
        make_item([{"role": "robot", "content": "x"}], ["a"], where="prompt 3")
    with pytest.raises(InputTypeError, match="prompt 3"):
        make_item(3, ["a"], where="prompt 3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [USER]),
        ([SYSTEM, USER], [{"role": "user", "content": "Be brief.\n\nHi"}]),
        ([SYSTEM, {"role": "assistant", "content": "?"}], [{"role": "user", "content": "Be brief."}, "answer"]),
        ([SYSTEM], [{"role": "user", "content": "Be brief."}]),
    ],
)
def test_without_a_system_role(messages: list[Any], expected: list[Any]) -> None:
    expected = [messages[1] if message == "answer" else message for message in expected]
    assert [*fold_system(messages)] == expected
