"""Prompts with their candidates: our own format and that of MixInstruct."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blender_hf.errors import InputError
from blender_hf.inputs import Item, check_characters, make_item


@dataclass(frozen=True)
class Record:
    """A prompt with its candidates, and the record's own id or the number of its line."""

    id: str | int
    item: Item


# The key of the prompt in each format, and the keys that identify the format; the first that matches is taken.
FORMATS = {
    "messages": frozenset({"messages", "candidates"}),
    "prompt": frozenset({"prompt", "candidates"}),
    "input": frozenset({"instruction", "input", "candidates"}),  # MixInstruct
}


def record_from_mapping(value: Any, *, where: str, default_id: str | int) -> Record:
    """Check a decoded record in any of `FORMATS`, with an id for one that has none."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected a JSON object, not {_json_name(value)}; write one object a line")
    prompt = next((prompt for prompt, keys in FORMATS.items() if keys <= value.keys()), None)
    if prompt is None:
        raise InputError(f'{where}: the keys "prompt" and "candidates" are needed; it has {_listed(value)}')
    item = make_item(value[prompt], value["candidates"], value.get("instruction"), where=where)
    record = Record(id_of(value, default_id), item)
    check_characters((str(record.id), *(candidate.model or "" for candidate in item.candidates)), where)
    return record


def id_of(value: Mapping[str, Any], default: str | int) -> str | int:
    """Return the id of a decoded record: a string or a whole number as it is, anything else as JSON."""
    own = value.get("id")
    if own is None:
        return default
    # True is an int to Python, and equal to 1.
    return own if isinstance(own, str | int) and not isinstance(own, bool) else json.dumps(own, default=str)


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _listed(value: Mapping[str, Any]) -> str:
    return ", ".join(f'"{key}"' for key in value) or "no keys"
