import pytest

from blender_hf.data.examples import SHOWCASE
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Candidate
from blender_hf.modeling.conversations import render_prompt
from blender_hf.space.prompts import FIRST_EXAMPLE, candidates_of_rows, examples, make_prompt, split_candidates

pytestmark = pytest.mark.once


def test_a_prompt_alone_stays_a_text() -> None:
    assert make_prompt("2 + 2?") == "2 + 2?"


def test_system_message_and_turns_become_a_conversation() -> None:
    prompt = make_prompt("And 3?", "Be brief.", "User: 2?\nor two?\nASSISTANT: Two.")
    assert render_prompt(prompt) == "SYSTEM: Be brief.\nUSER: 2?\nor two?\nASSISTANT: Two.\nUSER: And 3?"


@pytest.mark.parametrize(
    ("prompt", "turns", "said"), [(" ", "", "empty"), ("a", "hello", "begin with"), ("a", "x\nUser: y", "begin with")]
)
def test_what_can_not_be_a_prompt(prompt: str, turns: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_prompt(prompt, turns=turns)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": None}, "prompt: expected a text, not null"),
        ({"prompt": ["a"]}, "prompt: expected a text, not list"),
        ({"prompt": "a", "system": 3}, "system message: expected a text, not int"),
        ({"prompt": "a", "turns": {"a": 1}}, "earlier turns: expected a text, not dict"),
    ],
)
def test_what_is_no_text(fields: dict, said: str) -> None:
    with pytest.raises(InputTypeError, match=said):
        make_prompt(**fields)


def test_null_is_nothing() -> None:
    assert make_prompt("a", None, None) == "a"


def test_only_a_line_of_its_own_separates_candidates() -> None:
    found = split_candidates("a --- b\n\n----\n  indented\n===\n\n***\nlast")
    assert [candidate.text for candidate in found] == ["a --- b", "  indented", "last"]


def test_rows_without_a_text_are_passed_over() -> None:
    assert candidates_of_rows(["m", None, " "], ["a", " ", "b"]) == [Candidate("a", "m"), Candidate("b", None)]
    with pytest.raises(InputError, match="nothing to compare"):
        candidates_of_rows(["m", "n"], ["a", ""])


def test_the_examples_have_names_and_one_best_answer() -> None:
    assert next(iter(examples())) == FIRST_EXAMPLE
    for prompt in read_labelled(SHOWCASE):
        [ratings] = prompt.scores.values()
        assert all(prompt.models)
        assert sorted(ratings)[-1] > sorted(ratings)[-2]
