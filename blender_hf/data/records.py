"""Prompts with their candidates, from records of any shape."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from numbers import Number
from typing import Any
from uuid import UUID

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Item, check_characters
from blender_hf.modeling.record_fields import Fields, reference_of
from blender_hf.modeling.record_values import is_given

from .columns import ColumnNames, Columns
from .shapes import read_shape


@dataclass(frozen=True)
class Record:
    """A prompt with its candidates, and the record's own id, or the number of its line, as a text.

    The `reference`, a good answer, is what the record states, which nobody has checked yet; see `text_of`.
    """

    id: str
    item: Item
    reference: Any = None


def record_from_mapping(value: Any, *, where: str, default_id: str | int, columns: Columns | None = None) -> Record:
    """Check a decoded record in any of `shapes.SHAPES`, with an id for one that has none."""
    fields = (columns or Columns()).fields(value, where)
    item = read_shape(fields, where).item
    record = Record(id_of(fields, default_id), item, reference_of(fields))
    check_characters((str(record.id), *(candidate.model or "" for candidate in item.candidates)), where)
    return record


def item_from_mapping(record: Any, *, where: str, columns: Columns | None = None) -> Item:
    """Check a mapping in any of `shapes.SHAPES`, such as `{"prompt", "candidates"}`; errors name it by `where`."""
    if not isinstance(record, Mapping):
        raise InputTypeError(
            f'{where}: expected a mapping {{"prompt": ..., "candidates": [...]}}, not {type(record).__name__}'
        )
    return read_shape((columns or Columns()).fields(record, where), where).item


def as_items(items: Iterable[Any], columns: ColumnNames | None = None) -> Iterator[Item]:
    """Yield items, lazily; mappings in any of `shapes.SHAPES` are made into them."""
    read = Columns(columns)
    for index, item in enumerate(items):
        yield item if isinstance(item, Item) else item_from_mapping(item, where=f"item {index}", columns=read)
    read.report("items")


def json_fields(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a record as JSON has it, for those who write all of its fields again.

    Dates become texts of ISO 8601, and decimal numbers, UUIDs and the like of tables their texts.

    Raises:
        InputError: If a value can't be written as JSON in UTF-8, such as bytes or a decoded picture.
    """
    found = {}
    for key, value in record.items():
        try:
            text = json.dumps(value, ensure_ascii=False, default=_json_text)
        except (TypeError, ValueError) as error:
            raise InputError(f'{where}: "{key}" can\'t be written as JSON ({error}); drop it from the data') from None
        check_characters([text], where)
        found[str(key)] = json.loads(text)
    return found


def _json_text(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Number | UUID):
        return str(value)
    raise TypeError(f"it holds {type(value).__name__}")


def text_of(name: str, value: Any) -> str | None:
    """Return a text of a record, None if it is not given or empty; `ValueError` names one that is no text."""
    if is_given(value) and not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {type(value).__name__}")
    return value if isinstance(value, str) and value else None


def id_of(fields: Fields, default: str | int) -> str:
    """Return the id of a record as a text, which every output has: a string as it is, anything else as JSON."""
    own = fields.values.get("id")
    if not is_given(own):
        return str(default)
    return own if isinstance(own, str) else json.dumps(own, default=str)
