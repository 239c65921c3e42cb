"""Files of one record a line that a job goes on with after it was killed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from blender_hf.errors import InputError

from .sources import decode_line

BLOCK = 1 << 16
# How a record begins, as `json.dumps` writes it.
BEGINS = b'{"'
ELSEWHERE = "choose another --output, or --overwrite it"


class Identified(Protocol):
    """A record that a job finds in its output by its id, and by a digest of the texts that its result depends on."""

    @property
    def id(self) -> str | int:
        """The record's own id, or the number of its line."""
        ...

    @property
    def digest(self) -> str:
        """What tells its texts from others; see `digest_of`."""
        ...

    @property
    def where(self) -> str:
        """How messages name it."""
        ...


SomeRecord = TypeVar("SomeRecord", bound=Identified)


def digest_of(texts: Any) -> str:
    """Return a digest of texts in any arrangement that JSON can hold."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def each_id_once(records: Iterable[SomeRecord]) -> Iterator[SomeRecord]:
    """Yield records, lazily.

    Raises:
        InputError: If two have the same id; the message names the second.
    """
    seen: set[str | int] = set()
    for record in records:
        if record.id in seen:
            raise InputError(f"{record.where}: another record has the id {record.id!r}; each needs an id of its own")
        seen.add(record.id)
        yield record


def is_done(record: Identified, done: Mapping[str | int, str]) -> bool:
    """Tell whether the output of a job has a record already.

    Args:
        record: The record.
        done: The ids in the output, with the digests of their records.

    Raises:
        InputError: If a record with its id, but with other texts, is there.
    """
    if record.id not in done:
        return False
    if done[record.id] != record.digest:
        raise InputError(f"{record.where}: the output has other texts with the id {record.id!r}; {ELSEWHERE}")
    return True


def complete_values(path: Path, begins: bytes = BEGINS) -> Iterator[tuple[str, Any]]:
    """Yield what `written_values` yields; when all is read, mend the last line, as `mend_last_line` does.

    Raises:
        InputError: As they do.
    """
    yield from written_values(path, begins)
    mend_last_line(path)


def written_values(path: Path, begins: bytes = BEGINS) -> Iterator[tuple[str, Any]]:
    """Yield how messages name each record of a file that a job has written, and the record; the file stays as it is.

    A last line without its end is a record where it is whole, and is left out where it is not.

    Args:
        path: The file; it need not exist.
        begins: How the records of the job begin: a first line that was not finished is known by it.

    Returns:
        An iterator.

    Raises:
        InputError: If the file can't be read, a finished line is no JSON object, or a first line that was not finished
            is none of the job.
    """
    if not path.is_file():  # a device has no records
        return
    try:
        with open(path, "rb") as lines:
            yield from _values(lines, path, begins)
    except OSError as error:
        raise InputError(f"can't go on with {path}: {error.strerror}") from None


def mend_last_line(path: Path) -> None:
    """End the last line of a file where it is whole, and cut it off where it is not.

    Call it when all of `written_values` are known to be the job's own: whatever was not finished is then the job's too.

    Args:
        path: The file; it need not exist.

    Raises:
        InputError: If the file can't be read or written.
    """
    if not path.is_file():
        return
    try:
        with open(path, "rb+") as file:
            start, rest = _unended(file)
            if not rest:
                return
            if _object(rest) is None:
                file.truncate(start)
            else:
                file.write(b"\n")
    except OSError as error:
        raise InputError(f"can't go on with {path}: {error.strerror}") from None


def _values(lines: Iterable[bytes], path: Path, begins: bytes) -> Iterator[tuple[str, Any]]:
    finished = False
    for number, line in enumerate(lines, 1):
        where, value = f"{path}:{number}", _object(line)
        if value is not None:
            finished = True
            yield where, value
        elif line.endswith(b"\n"):
            if line.strip():
                raise InputError(f"{where}: this is no record of an earlier run; {ELSEWHERE}")
        # Of a job that was killed at its first record there is only this to be known by.
        elif not finished and not begins.startswith(line[: len(begins)]):
            raise InputError(f"{where}: this is no record of an earlier run; {ELSEWHERE}")


def _object(line: bytes) -> Mapping[str, Any] | None:
    """Return the object that a line holds whole, None where it does not: no part of an object is one."""
    try:
        value = decode_line(line, "")
    except InputError:
        return None
    return value if isinstance(value, Mapping) else None


def _unended(file: BinaryIO) -> tuple[int, bytes]:
    """Return where the last line begins that has no end, and the line; leave the file at its end."""
    end = start = file.seek(0, 2)
    while start > 0:
        block = max(0, start - BLOCK)
        file.seek(block)
        found = file.read(start - block).rfind(b"\n")
        start = block + found + 1
        if found >= 0:
            break
    file.seek(start)
    return start, file.read(end - start)
