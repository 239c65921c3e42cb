"""Files of one record a line that a job goes on with after it was killed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from blender_hf.errors import InputError

from .records import read_values

BLOCK = 1 << 16
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


def complete_values(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield how messages name each record of a file, and the record; first cut a last line that was not finished.

    Args:
        path: The file; it need not exist.

    Returns:
        An iterator.

    Raises:
        InputError: If the file can't be read or written, or a finished line is not JSON.
    """
    if not path.exists():
        return
    try:
        _cut_unfinished_line(path)
    except OSError as error:
        raise InputError(f"can't go on with {path}: {error.strerror}") from None
    for _, where, value in read_values(path):
        yield where, value


def _cut_unfinished_line(path: Path) -> None:
    with open(path, "rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)
