"""Prompts that language models are about to answer, checked at the border."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blender_hf.data.columns import Columns
from blender_hf.data.shapes import asked_of, naming
from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import CandidateInput, Item, Prompt, is_single_prompt, make_item
from blender_hf.modeling.conversations import is_conversation
from blender_hf.modeling.record_fields import candidates_of, holds_answers


def prompt_item(
    prompt: Prompt,
    instruction: str | None = None,
    candidates: Iterable[CandidateInput] = (),
    *,
    where: str = "the prompt",
) -> Item:
    """Check one prompt with the candidates that it has so far, as `make_item` does."""
    return make_item(prompt, candidates, instruction, where=where, allow_no_candidates=True)


def prompt_items(prompts: Any, instructions: Any = None) -> tuple[list[Item], bool]:
    """Check one prompt or a list of prompts; return them, and whether a single one was given."""
    if is_single_prompt(prompts):
        return [prompt_item(prompts, instructions)], True
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise InputTypeError(f"prompts must be a prompt or a list of prompts, not {type(prompts).__name__}")
    rows = list(prompts)
    told = [None] * len(rows) if instructions is None else instructions
    if isinstance(told, str) or len(told) != len(rows):
        raise InputError(f"instructions must be a list with one entry for each of the {len(rows)} prompts")
    return [prompt_item(p, i, where=f"prompt {k}") for k, (p, i) in enumerate(zip(rows, told, strict=True))], False


def is_prompt(value: Any) -> bool:
    """Return whether an input of the pipeline is a single one: a string, chat messages, or a mapping."""
    if isinstance(value, str | Mapping):
        return True
    return is_conversation(value) and "role" in next(iter(value))


def prompt_item_from_input(value: Any, *, where: str, columns: Columns | None = None) -> Item:
    """Check an input of the pipeline: a prompt, or a mapping `{"prompt" or "messages", "candidates"?}`."""
    if not isinstance(value, Mapping):
        return prompt_item(value, where=where)
    return prompt_item_from_record(value, where=where, columns=columns)[1]


def prompt_item_from_record(value: Any, *, where: str, columns: Columns | None = None) -> tuple[Sequence[Any], Item]:
    """Return the candidates that a record has so far, as they are in it, and the prompt with them.

    Its candidates are those called so, or stated by `columns`. Other answers, such as the good one of a data set or its
    preferences, are not read.
    """
    read = columns or Columns()
    fields = read.fields(value, where)
    with naming(where):
        prompt, instruction = asked_of(fields, where)
        own = "candidates" in fields.stated or fields.keys.get("candidates") == "candidates"
        given = (candidates_of(fields) if own else None) or []
    read.leave_out(
        key for key in fields.record if holds_answers(key) and not (own and key == fields.keys["candidates"])
    )
    return given, prompt_item(prompt, instruction, given, where=where)
