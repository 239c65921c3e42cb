"""Prompts that wait for candidates, checked once at the border."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Candidate, CandidateInput, Prompt, check_characters, is_single_prompt, make_item

from .chat import Messages, as_messages


@dataclass(frozen=True)
class Request:
    """A prompt that waits for candidates.

    Args:
        prompt: The prompt as it was given.
        messages: The prompt and its instruction as chat messages.
        instruction: What is to be done with the prompt, if it is stated apart from it.
        candidates: Those that it has already; a model is asked only for what is missing of its own.
        where: How messages name it.
    """

    prompt: Prompt
    messages: Messages
    instruction: str | None = None
    candidates: tuple[Candidate, ...] = ()
    where: str = "the prompt"


def make_request(
    prompt: Prompt,
    instruction: str | None = None,
    candidates: Iterable[CandidateInput] = (),
    *,
    where: str = "the prompt",
) -> Request:
    """Check one prompt, with the candidates that it has already.

    Raises:
        InputTypeError: If something has the wrong type; the message says where.
        InputError: If a message can't be used, or has half of a character.
    """
    if instruction is not None and not isinstance(instruction, str):
        raise InputTypeError(f"{where}: the instruction must be a text, not {type(instruction).__name__}")
    messages = as_messages(prompt, instruction, where=where)
    check_characters((message["content"] for message in messages), where)
    given = list(candidates)
    known = make_item(prompt, given, instruction, where=where).candidates if given else ()
    return Request(prompt, messages, instruction, known, where)


def make_requests(prompts: Any, instructions: Any = None) -> tuple[list[Request], bool]:
    """Check prompts, or one prompt; return them, and whether a single one was given.

    Raises:
        InputTypeError: If something has the wrong type; the message names the prompt.
        InputError: If lists differ in length, or a message can't be used.
    """
    if is_single_prompt(prompts):
        return [make_request(prompts, instructions)], True
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise InputTypeError(f"prompts must be a prompt or a list of prompts, not {type(prompts).__name__}")
    rows = list(prompts)
    told = [None] * len(rows) if instructions is None else instructions
    if isinstance(told, str) or len(told) != len(rows):
        raise InputError(f"instructions must be a list with one entry for each of the {len(rows)} prompts")
    return [make_request(p, i, where=f"prompt {k}") for k, (p, i) in enumerate(zip(rows, told, strict=True))], False
