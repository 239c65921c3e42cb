"""The texts in TRL's two forms of data: plain, and conversational (lists of messages)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from blender_hf.errors import InputTypeError
from blender_hf.modeling.tokenization import render_prompt

Messages = Sequence[Mapping[str, Any]]


def completion_text(completion: str | Messages, where: str) -> str:
    """Return the text of a completion: what the assistant says in it, without calls of tools and their results.

    Args:
        completion: A text or a list of messages.
        where: How messages name it.

    Raises:
        InputTypeError: If it is neither, or a content is not text.
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise InputTypeError(
            f"{where}: a completion must be a text or a list of messages, not {type(completion).__name__}"
        )
    said = [m for m in completion if m.get("role", "assistant") == "assistant" and m.get("content") is not None]
    try:
        # A conversation of a single message by the user is rendered as its text.
        return "\n".join(render_prompt([{"role": "user", "content": m["content"]}]) for m in said)
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None


def prompt_key(prompt: str | Messages) -> str:
    """Return what is the same for equal prompts alone."""
    return json.dumps(prompt, sort_keys=True, default=repr)
