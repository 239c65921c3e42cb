"""A prompt that is stated beside conversations, and messages that stand alone."""

from typing import Any

import pytest

from blender_hf.data.implicit_prompts import completions


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
HELLO, MORE, GOOD, BAD = assistant("Hello."), user("More?"), assistant("Good."), assistant("Bad.")


@pytest.mark.parametrize(
    ("prompt", "shared", "expected"),
    [
        ("Hi", [HELLO, MORE], [user("Hi"), HELLO, MORE]),
        ([user("Hi")], [HELLO, MORE], [user("Hi"), HELLO, MORE]),
        ([SYSTEM], [user("Hi")], [SYSTEM, user("Hi")]),
        ([user("Hi"), HELLO], [MORE], [user("Hi"), HELLO, MORE]),
        ("Hi", [user("Hi"), HELLO, MORE], [user("Hi"), HELLO, MORE]),
        ([user("Hi")], [{**user("Hi"), "name": None}], [user("Hi")]),
        ("Hi", [SYSTEM, user("Hi")], [SYSTEM, user("Hi")]),
        ("Hi", [], "Hi"),
        (None, [user("Hi")], [user("Hi")]),
    ],
)
def test_no_turn_is_lost_or_doubled(prompt: Any, shared: list[Any], expected: Any) -> None:
    """Completions that began with the same turn lost the prompt that was stated beside them."""
    found = completions(prompt, [*shared, GOOD], [*shared, BAD])
    assert found.prompt == expected
    assert (found.chosen, found.rejected) == (([GOOD],), ([BAD],))
    assert found.texts == ("Good.", "Bad.")


def test_a_message_may_stand_alone() -> None:
    """Its keys were read as two candidates."""
    found = completions(user("Hi"), GOOD, BAD)
    assert (found.prompt, found.chosen, found.rejected) == ([user("Hi")], ([GOOD],), ([BAD],))


def test_a_whole_conversation_is_not_compared_with_a_text() -> None:
    with pytest.raises(ValueError, match="is a whole conversation and the other is not; give both"):
        completions("p", [user("p"), GOOD], "Bad.")


def test_a_message_is_compared_with_a_text() -> None:
    """Tools are called in one answer, and not in the other."""
    found = completions("p", [GOOD], "Bad.")
    assert (found.prompt, found.texts) == ("p", ("Good.", "Bad."))


def test_calls_of_tools_are_answers() -> None:
    """Both were the empty text."""
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"name": name, "arguments": {}}]} for name in "ab"]
    shared = [user("Hi"), calls[0], {"role": "tool", "content": "1"}]
    found = completions("Hi", [*shared, calls[0]], [*shared, calls[1]])
    assert found.prompt == shared
    assert (found.chosen, found.rejected) == (([calls[0]],), ([calls[1]],))
    first, second = found.texts
    assert "a" in first != second
    other = [user("Hi"), calls[1], {"role": "tool", "content": "1"}]
    assert completions(shared, [*other, calls[0]], [*other, calls[1]]).prompt != shared, "another call is another turn"
