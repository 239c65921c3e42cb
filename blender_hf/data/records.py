"""Prompts with their candidates, one JSON object a line: our own format and that of MixInstruct."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from blender_hf.errors import InputError
from blender_hf.inputs import Item, check_characters, make_item

STDIN = "-"


@dataclass(frozen=True)
class Record:
    """A line of a file.

    Args:
        id: The record's own id, or the number of its line.
        item: The prompt and its candidates.
    """

    id: str | int
    item: Item


@dataclass(frozen=True)
class RecordFormat:
    """A format of records: the keys that tell it, and where its parts are.

    Args:
        name: What messages call it.
        keys: A record that has all of these is in this format.
        prompt: Takes the prompt, a text or chat messages, out of a record.
        instruction: Takes what is to be done with the prompt, or None.
    """

    name: str
    keys: frozenset[str]
    prompt: Callable[[Mapping[str, Any]], Any]
    instruction: Callable[[Mapping[str, Any]], Any]


# The first format whose keys a record has is taken.
FORMATS = (
    RecordFormat(
        "conversation",
        frozenset({"messages", "candidates"}),
        prompt=lambda record: record["messages"],
        instruction=lambda record: record.get("instruction"),
    ),
    RecordFormat(
        "prompt",
        frozenset({"prompt", "candidates"}),
        prompt=lambda record: record["prompt"],
        instruction=lambda record: record.get("instruction"),
    ),
    RecordFormat(
        "MixInstruct",
        frozenset({"instruction", "input", "candidates"}),
        prompt=lambda record: record["input"],
        instruction=lambda record: record["instruction"],
    ),
)


def checked_count(path: str | Path, records: Iterable[Any]) -> int | None:
    """Read the records of a file to check them all, and return how many there are.

    Args:
        path: The file.
        records: What is read from it, lazily.

    Returns:
        The number; None for a stream, which can be read only once: the standard input, a named pipe, or one of a
        shell's `<(...)`. Nothing is read of it.
    """
    is_stream = str(path) == STDIN or (Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir())
    return None if is_stream else sum(1 for _ in records)


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a JSONL file, lazily.

    Args:
        path: A file, compressed with gzip if its name ends in `.gz`, or "-" for the standard input.

    Returns:
        An iterator of records; empty lines are passed over.

    Raises:
        InputError: If the file can't be read, or a line can't be used; the message names the file and the line.
        InputTypeError: If a value has the wrong type; the message names the file, the line and the candidate.
    """
    for number, where, value in read_values(path):
        yield record_from_mapping(value, where=where, default_id=number)


def read_values(path: str | Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the number of each line of a JSONL file, how messages name it, and what it holds, lazily.

    Args:
        path: A file, compressed with gzip if its name ends in `.gz`, or "-" for the standard input.

    Returns:
        An iterator; empty lines are passed over.

    Raises:
        InputError: If the file can't be read, or a line is not JSON; the message names the file and the line.
    """
    for number, where, line in read_lines(path):
        yield number, where, decode_line(line, where)


def read_lines(path: str | Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number of each line of a file, how messages name it, and the line as it stands, lazily.

    Args:
        path: A file, compressed with gzip if its name ends in `.gz`, or "-" for the standard input.

    Returns:
        An iterator; empty lines are passed over.

    Raises:
        InputError: If the file can't be read.
    """
    name = "<stdin>" if str(path) == STDIN else str(path)
    for number, line in enumerate(_lines(path, name), 1):
        if line.strip():
            yield number, f"{name}:{number}", line


def record_from_mapping(value: Any, *, where: str, default_id: str | int) -> Record:
    """Check a decoded record in any of `FORMATS`.

    Args:
        value: The decoded JSON.
        where: How messages name it.
        default_id: Its id if it has none of its own.

    Returns:
        The record.

    Raises:
        InputError: If it is no mapping, in none of the formats, or can't be used.
        InputTypeError: If a value has the wrong type.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected a JSON object, not {_json_name(value)}; write one object a line")
    found = next((form for form in FORMATS if form.keys <= value.keys()), None)
    if found is None:
        raise InputError(f'{where}: the keys "prompt" and "candidates" are needed; it has {_listed(value)}')
    item = make_item(found.prompt(value), value["candidates"], found.instruction(value), where=where)
    record = Record(id_of(value, default_id), item)
    check_characters((str(record.id), *(candidate.model or "" for candidate in item.candidates)), where)
    return record


def id_of(value: Mapping[str, Any], default: str | int) -> str | int:
    """Return the id of a decoded record: a text or a whole number as it is, anything else as the text of its JSON.

    Args:
        value: The record.
        default: Its id if it has none of its own.
    """
    own = value.get("id")
    if own is None:
        return default
    # True is an int to Python, and equal to 1.
    return own if isinstance(own, str | int) and not isinstance(own, bool) else json.dumps(own, default=str)


def decode_line(line: bytes, where: str) -> Any:
    """Return what a line of JSON holds.

    Args:
        line: The line.
        where: How messages name it.

    Raises:
        InputError: If it is not JSON in UTF-8.
    """
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not valid JSON: {error.msg} at column {error.colno}; write one JSON object a line"
        ) from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise InputError(f"{where}: not usable JSON: a number has more than the {most} digits that are read") from None
    except RecursionError:
        raise InputError(f"{where}: not usable JSON: it is nested too deeply") from None


def _lines(path: str | Path, name: str) -> Iterator[bytes]:
    try:
        with _open(path) as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(f"can't read {name}: {reason}") from None


def _open(path: str | Path) -> AbstractContextManager[IO[bytes] | Iterable[bytes]]:
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError("the standard input is closed: name a file, or pipe records into the command")
        return nullcontext(sys.stdin.buffer)
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _listed(value: Mapping[str, Any]) -> str:
    return ", ".join(f'"{key}"' for key in value) or "no keys"
