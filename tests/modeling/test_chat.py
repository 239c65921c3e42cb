"""Prompts as text and as chat messages."""

from typing import Any

import pytest

from blender_hf.modeling.chat import render_prompt


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
