"""Conversations: what stays as it came in, the one text of it, and what is refused, naming the message."""

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_hf import InputError, InputTypeError
from blender_hf.inputs import make_item
from blender_hf.modeling.conversations import (
    PART_TYPES,
    as_answer,
    as_messages,
    fold_system,
    is_conversation,
    render_answer,
    render_prompt,
)

QUESTION = [{"role": "user", "content": "What is the weather in Lima?"}]
CALL_TEXT = '<tool_call>{"name": "weather", "arguments": {"city": "Lima"}}</tool_call>'
ARGUMENTS = '{"city": "Lima"}'


def calling(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def parts(*content: Any, role: str = "user") -> list[Any]:
    return [{"role": role, "content": list(content)}]


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
        (
            [*QUESTION, {"role": "assistant", "content": None}],
            TypeError,
            r"not None \(message 1, assistant\); it may be missing beside",
        ),
        ([*QUESTION, {"role": "tool"}], TypeError, r"not None \(message 1, tool\)"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], TypeError, r"message 0, assistant"),
        ([*QUESTION, {"role": "user", "content": 3}], TypeError, r"not int \(message 1\)"),
        ([*QUESTION, {"role": "user", "content": [3]}], TypeError, "message 1, part 0 must be text"),
        (
            [*QUESTION, {"role": "user", "content": [{"type": "hologram"}]}],
            ValueError,
            "message 1, part 0 .*'hologram'",
        ),
        ([*QUESTION, {"role": "user", "content": [{"type": ["text"]}]}], ValueError, "message 1, part 0 has the type"),
        ([*QUESTION, {"role": "user", "content": [{"type": "text"}]}], TypeError, 'message 1, part 0: its "text"'),
        ([*QUESTION, calling("weather")], TypeError, "message 1, tool call 0 must be an object"),
        ([*QUESTION, calling({"function": {"arguments": "{}"}})], ValueError, 'message 1, tool call 0: the "name"'),
        ([*QUESTION, calling({"name": "weather", "city": "Lima"})], ValueError, '"arguments" is missing; it has city'),
        (
            [*QUESTION, {"role": "assistant", "tool_calls": {"name": "w"}}],
            TypeError,
            "message 1: its tool_calls must be",
        ),
        ([*QUESTION, {"role": "assistant", "function_call": 3}], TypeError, "message 1, function_call must be"),
        ([*QUESTION, 3], TypeError, r"a list of int \(message 1\)"),
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
        (parts({"type": "text", "text": "H"}, "i"), None, parts({"type": "text", "text": "H"}, "i")),
        (
            parts({"type": "input_text", "text": "Hi"}, role="system"),
            "In French.",
            parts(
                {"type": "input_text", "text": "In French.\n\n"}, {"type": "input_text", "text": "Hi"}, role="system"
            ),
        ),
        ([USER], "Be brief.", [SYSTEM, USER]),
        ([SYSTEM, USER], "In French.", [{"role": "system", "content": "In French.\n\nBe brief."}, USER]),
        ([{**USER, "name": "bob", "x": [1]}], None, [{**USER, "name": "bob", "x": [1]}]),
        ([{**SYSTEM, "role": "developer"}, USER], None, [{**SYSTEM, "role": "developer"}, USER]),
        (
            [{**SYSTEM, "role": "developer"}, USER],
            "In French.",
            [{"role": "developer", "content": "In French.\n\nBe brief."}, USER],
        ),
    ],
)
def test_a_prompt_becomes_messages(prompt: Any, instruction: str | None, expected: list[dict[str, str]]) -> None:
    assert [*as_messages(prompt, instruction)] == expected


# The ways in which a call of a tool is stated.
CALLS = {
    "OpenAI": {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}},
    "Hugging Face": {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}},
    "Hermes": {"name": "weather", "arguments": {"city": "Lima"}},
    "LangChain": {"name": "weather", "args": {"city": "Lima"}, "id": "c1", "type": "tool_call"},
    "Llama": {"name": "weather", "parameters": {"city": "Lima"}},
    "Responses": {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS},
    "spaces": {"function": {"name": "weather", "arguments": '{ "city" :"Lima" }'}},
    "nulls of Arrow": {"id": None, "function": {"name": "weather", "arguments": {"city": "Lima", "unit": None}}},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_is_read_alike_however_it_is_stated(call: dict[str, Any]) -> None:
    expected = f"USER: What is the weather in Lima?\nASSISTANT: {CALL_TEXT}"
    assert render_prompt([*QUESTION, calling(call)]) == expected
    assert render_prompt([*QUESTION, {"role": "assistant", "tool_calls": json.dumps([call])}]) == expected
    assert render_answer(as_answer(calling(call))) == CALL_TEXT


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (calling(CALLS["OpenAI"], content="Let me see."), f"Let me see.\n{CALL_TEXT}"),
        (calling(CALLS["OpenAI"], content=""), CALL_TEXT),
        (calling(CALLS["OpenAI"], CALLS["Hermes"]), f"{CALL_TEXT}\n{CALL_TEXT}"),
        ({"role": "assistant", "content": None, "function_call": CALLS["Hermes"]}, CALL_TEXT),
        (
            parts(
                {"type": "thinking", "thinking": "Hm."},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Lima"}},
                role="assistant",
            )[0],
            f"Let me see.\n{CALL_TEXT}",
        ),
        (
            {
                **parts({"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Lima"}})[0],
                **calling({"id": "t", "name": "weather", "args": {"city": "Lima"}}, content=""),
            },
            CALL_TEXT,
        ),
        (calling({"function": {"name": "now"}}), '<tool_call>{"name": "now", "arguments": {}}</tool_call>'),
        (
            calling({"function": {"name": "now", "arguments": ""}}),
            '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
        ),
        (calling({"name": "x", "arguments": "{half"}), '<tool_call>{"name": "x", "arguments": "{half"}</tool_call>'),
        (
            calling({"type": "custom", "custom": {"name": "sh", "input": '{"ls": 1}'}}),
            '<tool_call>{"name": "sh", "input": "{\\"ls\\": 1}"}</tool_call>',
        ),
        (
            calling({"name": "müß", "arguments": {"b": 1, "a": [None, True]}}),
            '<tool_call>{"name": "müß", "arguments": {"b": 1, "a": [null, true]}}</tool_call>',
        ),
        ({"role": "assistant", "content": None, "refusal": "I can't."}, "I can't."),
        (parts({"type": "refusal", "refusal": "I can't."}, role="assistant")[0], "I can't."),
        ({"role": "assistant", "content": "4", "reasoning_content": "Hm.", "reasoning": "Hm.", "thinking": "Hm."}, "4"),
        (parts({"type": "reasoning", "summary": []}, {"type": "output_text", "text": "4"})[0], "4"),
        (parts({"type": "image"}, {"type": "text", "text": "What is "}, {"text": "it?"})[0], "[image]\nWhat is it?"),
        (parts("Look:", {"type": "image_url", "image_url": {"url": "u"}}, "!")[0], "Look:\n[image]\n!"),
        (
            parts({"type": "input_image"}, {"type": "document"}, {"type": "input_audio"}, {"type": "video"})[0],
            "[image]\n[file]\n[audio]\n[video]",
        ),
        ({"role": "user", "content": "Look", "images": ["aa"]}, "[image]\nLook"),
        ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "[audio]"),
        ({"role": "assistant", "content": None, "audio": {"id": "a", "transcript": "Hello"}}, "Hello"),
        ({"role": "assistant", "content": []}, ""),
    ],
)
def test_what_a_message_says(message: dict[str, Any], text: str) -> None:
    assert render_answer(as_messages([message])) == text
    assert as_messages([message]) == (message,)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"role": "tool", "tool_call_id": "c1", "content": "17 C"}, "TOOL: 17 C"),
        ({"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "17 C"}, "TOOL (weather): 17 C"),
        ({"role": "function", "name": "weather", "content": "17 C"}, "TOOL (weather): 17 C"),
        ({"role": "ipython", "content": "17 C"}, "TOOL: 17 C"),
        (parts({"type": "tool_result", "tool_use_id": "c1", "content": "17 C"})[0], "TOOL: 17 C"),
        (
            parts({"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "17 C"}]}, "And?")[
                0
            ],
            "TOOL: 17 C\nUSER: And?",
        ),
    ],
)
def test_the_result_of_a_tool(result: dict[str, Any], line: str) -> None:
    call = calling(CALLS["OpenAI"])
    assert render_prompt([*QUESTION, call, result]) == f"USER: {QUESTION[0]['content']}\nASSISTANT: {CALL_TEXT}\n{line}"
    several = as_answer([call, result, {"role": "assistant", "content": "17."}])
    assert render_answer(several) == f"ASSISTANT: {CALL_TEXT}\n{line}\nASSISTANT: 17."


def test_items_of_the_responses_api_have_no_role() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": []}
    result = {"type": "function_call_output", "call_id": "c1", "output": "17 C"}
    talk = [*QUESTION, thought, CALLS["Responses"], result]
    text = f"USER: {QUESTION[0]['content']}\nASSISTANT: {CALL_TEXT}\nTOOL: 17 C"
    assert render_prompt(talk) == text
    assert as_messages(talk) == tuple(talk)
    assert render_prompt(talk, "Be brief.") == f"SYSTEM: Be brief.\n{text}"
    assert render_answer(as_answer(CALLS["Responses"])) == CALL_TEXT
    with pytest.raises(ValueError, match="at least one message that is no thought"):
        as_messages([thought])


TALK = [*QUESTION, calling(CALLS["OpenAI"], content="Wait."), {"role": "tool", "name": "weather", "content": "17 C"}]


@pytest.mark.parametrize(
    "other",
    [
        [{"role": "system", "content": QUESTION[0]["content"]}, *TALK[1:]],
        [*parts(QUESTION[0]["content"], {"type": "image"}), *TALK[1:]],
        [*QUESTION, {**TALK[1], "content": "Hm."}, TALK[2]],
        [*QUESTION, {**TALK[1], "content": None}, TALK[2]],
        [*QUESTION, {**TALK[1], "tool_calls": []}, TALK[2]],
        [*QUESTION, {**TALK[1], "refusal": "No."}, TALK[2]],
        [*QUESTION, calling({"name": "hen", "arguments": ARGUMENTS}, content="Wait."), TALK[2]],
        [*QUESTION, calling({"name": "weather", "arguments": {"city": "Rome"}}, content="Wait."), TALK[2]],
        [*QUESTION, calling({"name": "weather", "arguments": {"town": "Lima"}}, content="Wait."), TALK[2]],
        [*TALK[:2], {**TALK[2], "content": "18 C"}],
        [*TALK[:2], {**TALK[2], "name": "hen"}],
        [*TALK[:2], {**TALK[2], "role": "user"}],
        TALK[:2],
    ],
)
def test_what_has_a_meaning_is_read(other: list[dict[str, Any]]) -> None:
    assert render_prompt(other) != render_prompt(TALK)


def test_nulls_of_arrow_are_no_values() -> None:
    """A table of Arrow has a key for whatever one of its messages has."""
    filled = [
        {"role": "user", "content": "Hi", "tool_calls": None, "name": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"name": "f", "arguments": {"a": 1, "b": None}}],
            "name": None,
        },
    ]
    assert as_messages(filled) == (USER, calling({"name": "f", "arguments": {"a": 1}}))


def test_conversations_of_arrays_are_read_like_lists() -> None:
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    talk = [*QUESTION, calling(CALLS["OpenAI"])]
    column = pa.array([talk, talk])
    messages = np.array(talk, dtype=object)
    series = pd.Series(talk, index=[5, 6])
    by_pandas = pd.DataFrame({"m": column.to_pylist()})["m"][0]
    for given_ in (messages, series, tuple(talk), column[0], column[0].values, by_pandas):
        assert is_conversation(given_)
        assert list(as_messages(given_)) == talk
        json.dumps(as_messages(given_))
    nested = {**talk[1], "tool_calls": np.array(talk[1]["tool_calls"], dtype=object)}
    assert list(as_messages([talk[0], nested])) == talk
    assert not any(map(is_conversation, (column, np.array(["a"]), pd.Series(["a"]), [], "a", [talk], {"role": "user"})))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)
KEYS = ("role", "content", "tool_calls", "function_call", "refusal", "audio", "images", "name", "tool_call_id", "type")
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(PART_TYPES) | JSON},
    optional=dict.fromkeys(
        ("text", "refusal", "name", "input", "arguments", "content", "tool_use_id", "function", "id"), JSON
    ),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(("user", "assistant", "tool")) | JSON},
    optional={
        **dict.fromkeys(KEYS[1:], JSON),
        "content": JSON | st.lists(PART | JSON, max_size=3),
        "tool_calls": JSON | st.lists(PART | JSON, max_size=2),
    },
)


@pytest.mark.once
@given(st.lists(MESSAGE | JSON, min_size=1, max_size=2) | JSON)
def test_whatever_is_given_is_read_or_refused_by_name(prompt: Any) -> None:
    is_talk = isinstance(prompt, list) and prompt and all(isinstance(message, dict) for message in prompt)
    for make in (lambda: make_item(prompt, ["a"], where="item 7"), lambda: make_item("p", [prompt], where="item 7")):
        try:
            item, refusal = make(), None
        except (InputError, InputTypeError) as error:
            item, refusal = None, str(error)
        if item is not None:
            json.dumps([item.messages, item.source, item.texts])
        else:
            assert "item 7" in refusal
            assert not is_talk or "message " in refusal or "surrogate" in refusal


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = "x"
    for _ in range(20_000):
        deep = [deep]
    for where in ("content", "tool_calls", "x"):
        with pytest.raises(InputError, match=r"item 7.*nested too deeply"):
            make_item([{**USER, where: deep}], ["a"], where="item 7")


def test_what_is_not_read_is_said_once_an_item(caplog: pytest.LogCaptureFixture) -> None:
    talk = parts({"type": "image"}, "What is it?", {"type": "file"})
    picture = {"role": "assistant", "content": [{"type": "image"}]}
    with caplog.at_level(logging.WARNING):
        item = make_item(talk, ["a", picture], where="item 7")
        assert not caplog.messages, "a server would be sent it whole"
        for _ in range(2):
            assert item.source == "[image]\nWhat is it?\n[file]"
            assert replace(item, candidates=item.candidates[::-1]).source
    first, second = caplog.messages
    assert first.startswith("item 7: not read: message 0, part 0 (image), message 0, part 2 (file)")
    assert second.startswith("item 7, candidate 1: not read: message 0, part 0 (image)")


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
