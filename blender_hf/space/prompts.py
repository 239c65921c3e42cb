"""Prompts and candidates: what people type, and the examples that they can start from."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from blender_hf.data.examples import SHOWCASE
from blender_hf.data.records import Record
from blender_hf.data.sources import read_records
from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Candidate

# What the page begins with.
FIRST_EXAMPLE = "A shirt costs 40 euros and is reduced by 25 percent. What does it cost now?"
TITLE_LENGTH = 88
SPEAKER = re.compile(r"^(user|assistant)\s*:\s*", re.IGNORECASE | re.MULTILINE)
SEPARATOR = re.compile(r"^[ \t]*(?:-{3,}|={3,}|\*{3,})[ \t]*$", re.MULTILINE)


def make_prompt(prompt: str, system: str | None = "", turns: str | None = "") -> str | list[dict[str, Any]]:
    r"""Put a prompt together from its fields.

    >>> make_prompt("And 3 + 3?", turns="User: 2 + 2?\nAssistant: 4")[1]
    {'role': 'assistant', 'content': '4'}
    """
    for name, value in (("prompt", prompt), ("system message", system or ""), ("earlier turns", turns or "")):
        if not isinstance(value, str):
            found = "null" if value is None else type(value).__name__
            raise InputTypeError(f"{name}: expected a text, not {found}")
    if not prompt.strip():
        raise InputError("the prompt is empty; write what the candidates answer")
    messages = [{"role": "system", "content": system.strip()}] if system and system.strip() else []
    messages += _parse_turns(turns or "")
    return [*messages, {"role": "user", "content": prompt}] if messages else prompt


def _parse_turns(turns: str) -> list[dict[str, Any]]:
    if not turns.strip():
        return []
    before, *parts = SPEAKER.split(turns)
    if before.strip() or not parts:
        raise InputError('the earlier turns must each begin with "User:" or "Assistant:" on a line of their own')
    return [{"role": role.lower(), "content": text.strip()} for role, text in zip(parts[::2], parts[1::2], strict=True)]


def split_candidates(pasted: str) -> list[Candidate]:
    r"""Split a pasted text into candidates at lines of three or more `-`, `=` or `*`.

    >>> [candidate.text for candidate in split_candidates("Yes.\n---\nNo,\nnever.")]
    ['Yes.', 'No,\nnever.']
    """
    parts = (part.strip("\r\n") for part in SEPARATOR.split(pasted))
    return [Candidate(part) for part in parts if part.strip()]


def candidates_of_rows(names: Sequence[str | None], texts: Sequence[str | None]) -> list[Candidate]:
    """Return the candidates that were filled in; a row without a text is passed over."""
    rows = zip(names, texts, strict=True)
    found = [Candidate(text, (name or "").strip() or None) for name, text in rows if text and text.strip()]
    if len(found) < 2:
        raise InputError(f"there is nothing to compare: {len(found)} candidate(s) have a text; write at least two")
    return found


@cache
def examples() -> dict[str, Record]:
    """Return the records of the bundled file by their titles, the beginnings of their prompts."""
    return {title_of(record.item.source): record for record in read_records(SHOWCASE)}


def title_of(prompt: str) -> str:
    """Return the beginning of a prompt on one line."""
    line = " ".join(prompt.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
