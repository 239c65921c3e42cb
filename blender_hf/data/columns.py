"""Which columns of records are what: the names that the caller states over those of the table, and what is not read."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blender_hf.errors import InputError, InputTypeError
from blender_hf.modeling.record_fields import NAMES, Fields, read_fields

logger = logging.getLogger(__name__)
# Keys under which files hold all of their records, in place of being a list.
CONTAINERS = ("data", "rows", "records", "examples", "items", "train", "test")

# By role, a column, or several that hold an answer each: `{"prompt": "question", "candidates": ["gpt", "llama"]}`.
ColumnNames = Mapping[str, str | Sequence[str]]


class Columns:
    """Reads the fields of the records of one source, and keeps what was found and what was left out.

    Args:
        stated: By role, the names of columns to read in place of those of `record_fields.NAMES`.

    Raises:
        InputError: If a role does not exist.
        InputTypeError: If a name is no text.
    """

    def __init__(self, stated: ColumnNames | None = None) -> None:
        self.stated = _checked(stated or {})
        self._missing = {name for names in self.stated.values() for name in names}
        self._n_records = 0
        #: The keys that were not read so far.
        self.unread: dict[str, None] = {}
        self._reported = False

    def fields(self, record: Any, where: str) -> Fields:
        """Return the fields of a record; one that is no mapping, or has fields that disagree, is an `InputError`."""
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: expected a JSON object, not {_json_name(record)}; write one object a line")
        for key in CONTAINERS:
            if isinstance(held := record.get(key), list) and held and all(isinstance(one, Mapping) for one in held):
                raise InputError(
                    f'{where}: "{key}" holds a list of records; write that list itself, or one record a line'
                )
        try:
            found = read_fields(record, self.stated)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        self._n_records += 1
        self._missing.difference_update(map(str, found.record))
        self.unread |= dict.fromkeys(found.unread)
        return found

    def leave_out(self, keys: Iterable[str]) -> None:
        """Count keys as not read, whose meaning is known, and is none to the reader."""
        self.unread |= dict.fromkeys(keys)

    def report(self, name: str, *, is_file: bool = False) -> None:
        """Log, once, which keys of a source were not read, and that a file has no records.

        A stated column that no record has is an `InputError`.
        """
        if is_file and not self._n_records and not self._reported:
            logger.warning("%s: there are no records", name)
        if self._missing and self._n_records:
            absent = ", ".join(f'"{name}"' for name in sorted(self._missing))
            raise InputError(f"{name}: no record has the column {absent}; correct --columns (in Python, columns=)")
        if self.unread and not self._reported:
            logger.warning("%s: not read: %s", name, ", ".join(f'"{key}"' for key in self.unread))
        self._reported = True


def columns_from_text(text: str) -> dict[str, list[str]]:
    """Return the names of columns that "prompt=question,candidates=gpt,llama" states.

    >>> columns_from_text("prompt=question,candidates=gpt,llama")
    {'prompt': ['question'], 'candidates': ['gpt', 'llama']}

    Raises:
        InputError: If it is not of this form; see `Columns` for the roles.
    """
    found: dict[str, list[str]] = {}
    role = ""
    for part in text.split(","):
        before, equals, name = part.partition("=")
        if equals:
            role, part = before.strip(), name
        if not role or not part.strip():
            raise InputError(
                f"{text!r} names no columns; write ROLE=COLUMN, such as prompt=question,candidates=replies"
            )
        found.setdefault(role, []).append(part.strip())
    Columns(found)
    return found


def _checked(stated: ColumnNames) -> dict[str, tuple[str, ...]]:
    if not isinstance(stated, Mapping):
        raise InputTypeError(f'columns must be a mapping such as {{"prompt": "question"}}, not {type(stated).__name__}')
    found: dict[str, tuple[str, ...]] = {}
    for role, given in stated.items():
        if role not in NAMES:
            raise InputError(f"columns: unknown role {role!r}; use one of {', '.join(NAMES)}")
        names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InputTypeError(f"columns: the {role} must be the name of a column, not {given!r}")
        if len(set(names)) < len(names):
            raise InputError(f"columns: the {role} has a column twice: {', '.join(names)}")
        if len(names) > 1 and role != "candidates":
            raise InputError(f"columns: the {role} is one column, not {', '.join(names)}")
        found[role] = names
    return found


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
