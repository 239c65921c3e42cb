"""What a pipeline with language models takes: a bare prompt, or a mapping that has one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blender_hf.errors import InputError

from .requests import Request, make_request
from .specs import LLM, LocalLLM, as_llms


def is_prompt(value: Any) -> bool:
    """Tell a single input from several: a text, chat messages, or a mapping."""
    if isinstance(value, str | Mapping):
        return True
    first = value[0] if isinstance(value, Sequence) and len(value) > 0 else None
    return isinstance(first, Mapping) and "role" in first


def request_from_input(value: Any, *, where: str) -> Request:
    """Check an input: a text, chat messages, or `{"prompt" or "messages", "instruction"?, "candidates"?}`.

    Raises:
        InputTypeError: If something has the wrong type; the message says where.
        InputError: If a mapping has no prompt.
    """
    if not isinstance(value, Mapping):
        return make_request(value, where=where)
    name = next((name for name in ("prompt", "messages") if name in value), None)
    if name is None:
        raise InputError(f'{where}: the key "prompt" or "messages" is missing; it has {sorted(map(str, value))}')
    return make_request(value[name], value.get("instruction"), value.get("candidates") or (), where=where)


def placed(llms: Any, device: Any) -> tuple[LLM, ...]:
    """Return language models of which those that run here do so on a device, if they name none themselves."""
    return tuple(
        replace(llm, device=device) if isinstance(llm, LocalLLM) and llm.device is None else llm
        for llm in as_llms(llms)
    )
