"""What users may pass in, and the errors that name what they may not."""

from typing import Any

import numpy as np
import pytest

from blender_hf import Candidate, InputError, InputTypeError
from blender_hf.data.records import item_from_mapping
from blender_hf.inputs import make_item, make_items
from blender_hf.modeling.conversations import render_answer


def test_candidates_are_texts_or_mappings() -> None:
    item = make_item("p", ["a", {"text": "b", "model": "m"}, {"text": ""}, Candidate("c", "n")])
    assert item.texts == ("a", "b", "", "c")
    assert [candidate.model for candidate in item.candidates] == [None, "m", None, "n"]


@pytest.mark.parametrize(
    "candidate",
    [
        {"model": "m", "response": "a"},
        {"generator": "m", "output": "a"},
        {"model_name": "m", "completion": "a", "text": None},
        {"model": "m", "generated_text": "a", "answer": "a"},
        {"model": "m", "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"},
        {"model": "m", "turns": ["a"]},
    ],
)
def test_candidates_by_the_names_that_data_sets_have(candidate: dict[str, Any]) -> None:
    [found] = make_item("p", [candidate]).candidates
    assert (found.text, found.model) == ("a", "m")


def test_candidates_are_messages_too() -> None:
    """Two tool calls were the same empty text."""
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"name": name, "arguments": {}}]} for name in "ab"]
    told = {"role": "tool", "content": "1"}
    said = {"role": "assistant", "content": "It is 1."}
    text = '<tool_call>{"name": "a", "arguments": {}}</tool_call>'
    given = [calls[0], {**calls[1], "model": "m"}, [calls[0], told, said], {"messages": [said], "model": "n"}, (said,)]
    item = make_item("p", given)
    assert item.texts[0] == text
    assert item.texts[1] == text.replace('"a"', '"b"')
    assert item.texts[2:] == (f"ASSISTANT: {text}\nTOOL: 1\nASSISTANT: It is 1.", "It is 1.", "It is 1.")
    assert [candidate.model for candidate in item.candidates] == [None, "m", None, "n", None]
    assert item.candidates[1].messages == (calls[1],)
    assert make_item("p", [candidate.fields for candidate in item.candidates]).candidates == item.candidates
    assert make_item("p", np.array([calls[0], {"text": "x"}], dtype=object)).texts == (text, "x")
    assert make_item("p", calls) != make_item("p", calls[::-1])
    with pytest.raises(
        InputError, match=r'item 0, candidate 0: the "text" of a candidate is not that of its "messages"'
    ):
        make_item("p", [{"text": "It is 2.", "messages": [said]}])
    with pytest.raises(InputTypeError, match=r"item 0, candidate 1: .*not None \(message 0, assistant\)"):
        make_item("p", [said, {"role": "assistant"}])


SAID = {"role": "assistant", "content": "It is 1."}
ASKED = [{"role": "user", "content": "p"}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"name": "a", "arguments": {}}]}


@pytest.mark.once
@pytest.mark.parametrize(
    ("prompt", "instruction", "candidate", "messages"),
    [
        ("p", None, [*ASKED, SAID], (SAID,)),
        (ASKED, None, {"generated_text": [*ASKED, SAID], "model": "m"}, (SAID,)),
        (ASKED, None, {"messages": [*ASKED, SAID]}, (SAID,)),
        (ASKED, None, [{"role": "user", "content": [{"type": "text", "text": "p"}]}, SAID], (SAID,)),
        (ASKED, "Be brief.", [{"role": "system", "content": "Be brief."}, *ASKED, SAID], (SAID,)),
        (ASKED, "Be brief.", [*ASKED, SAID], (SAID,)),
        ([*ASKED, SAID, *ASKED], None, [*ASKED, SAID, *ASKED, CALLED, SAID], (CALLED, SAID)),
        # No conversation that goes on from the prompt.
        ([*ASKED, SAID], None, [*ASKED, SAID], (*ASKED, SAID)),
        (ASKED, None, [CALLED, SAID], (CALLED, SAID)),
        (ASKED, None, [{"role": "user", "content": "q"}, SAID], ({"role": "user", "content": "q"}, SAID)),
    ],
)
def test_of_a_whole_conversation_the_answer_counts(
    prompt: Any, instruction: str | None, candidate: Any, messages: tuple[Any, ...]
) -> None:
    """A chat pipeline of transformers returns the prompt too, which was ranked as a part of the answer."""
    [found] = make_item(prompt, [candidate], instruction).candidates
    assert (found.messages, found.text) == (messages, render_answer(messages))


@pytest.mark.parametrize(
    ("candidate", "error", "message"),
    [
        (ASKED[0], InputError, "an answer has a message of the assistant, and this one has the role user alone"),
        ([{"role": "system", "content": "s"}, *ASKED], InputError, "this one has the role system, user alone"),
        ({"messages": [{"role": "tool", "content": "17 C"}]}, InputError, "this one has the role tool alone"),
        ({"model": "m", "role": "user", "content": "a"}, InputError, "this one has the role user alone"),
        ({"role": "boss", "content": "a"}, InputError, "a chat message has the role 'boss'"),
        ([], InputTypeError, "must be a string, .* or chat messages, not an empty list"),
        ([SAID, "a"], InputTypeError, r"a list of str \(message 1\)"),
    ],
)
def test_messages_that_are_no_answer(candidate: Any, error: type[Exception], message: str) -> None:
    """They were ranked as if the assistant had said what the user or a tool did."""
    with pytest.raises(error, match=f"the prompt, candidate 1: .*{message}"):
        make_items("p", [SAID, candidate])
    with pytest.raises(error, match=f"the record, candidate 1: .*{message}"):
        item_from_mapping({"prompt": "p", "candidates": ["a", candidate]}, where="the record")


def test_instruction_and_prompt_are_separated() -> None:
    """PEER_FAULTS: "You are a helpful assistant.Translate: cat"."""
    assert make_item("cat", ["a"], "Translate:").source == "Translate:\ncat"
    assert make_item("", ["a"], "Translate:").source == "Translate:"
    assert make_item("cat", ["a"], None).source == "cat"


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ("abc", InputTypeError, "item 7: candidates must be a list of strings.*not str"),
        (None, InputTypeError, "item 7: candidates must be a list.*not NoneType"),
        ({"text": "a"}, InputTypeError, "item 7: candidates must be a list.*not dict"),
        ([], InputError, "item 7: there are no candidates"),
        (["a", None], InputTypeError, "item 7, candidate 1: .*not None"),
        (["a", 3], InputTypeError, "item 7, candidate 1: .*not int"),
        ([["a"]], InputTypeError, "item 7, candidate 0: .*not list"),
        ([{"model": "m"}], InputTypeError, 'item 7, candidate 0: the "text".*not NoneType'),
        ([{"text": "a", "model": 3}], InputTypeError, 'item 7, candidate 0: the "model".*not int'),
    ],
)
def test_candidates_that_cannot_be_used(candidates: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_item("p", candidates, where="item 7")


def test_the_item_is_named_for_a_bad_prompt_or_instruction() -> None:
    with pytest.raises(InputTypeError, match="item 7: a prompt must be a text"):
        make_item(None, ["a"], where="item 7")
    with pytest.raises(InputError, match="item 7: a chat message has the role 'x'"):
        make_item([{"role": "x", "content": "a"}], ["a"], where="item 7")
    with pytest.raises(InputTypeError, match="item 7: the instruction must be a string, not int"):
        make_item("p", ["a"], 3, where="item 7")


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        (["p", ["a"]], InputTypeError, "expected a mapping.*not list"),
        ({"prompt": "p"}, InputError, 'no candidates were found: one of the keys "candidates".*it has "prompt"'),
        ({"candidates": ["a"]}, InputError, 'no prompt was found: one of the keys "prompt".*it has "candidates"'),
    ],
)
def test_mappings_that_cannot_be_used(record: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        item_from_mapping(record, where="item 0")


def test_one_prompt_or_many() -> None:
    chat = [{"role": "user", "content": "hi"}]
    assert [single for _, single in (make_items("p", ["a"]), make_items(chat, ["a"]))] == [True, True]
    items, single = make_items(["p", chat], [["a"], ["b", "c"]], [None, "Do it."])
    assert not single
    assert [item.texts for item in items] == [("a",), ("b", "c")]
    assert items[1].source == "SYSTEM: Do it.\nUSER: hi"
    assert make_items([], []) == ([], False)


@pytest.mark.parametrize(
    ("prompts", "candidates", "error", "message"),
    [
        # PEER_FAULTS: the letters of the texts were ranked.
        (["p", "q"], ["a", "b"], InputTypeError, "item 0: candidates must be a list of strings.*not str"),
        ("p", "abc", InputTypeError, "the prompt: candidates must be a list"),
        (["p"], "abc", InputTypeError, "candidates must be a list with one entry a prompt, not str"),
        (["p", "q"], [["a"]], InputError, "'prompts': 2, 'candidates': 1"),
        (["p", "q"], [["a"], [None]], InputTypeError, "item 1, candidate 0"),
        (3, [["a"]], InputTypeError, "prompts must be a list"),
    ],
)
def test_lists_that_do_not_fit(prompts: Any, candidates: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_items(prompts, candidates)
