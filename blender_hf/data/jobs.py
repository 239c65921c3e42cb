"""Resumable jobs: results are appended to a file line by line, and a killed process loses only unfinished work.

One process at a time works on a job; a line counts as done when it is on the disk; a line that a kill left torn is
removed before the next is appended; and the settings that the lines were made with are compared with the current ones.
So the same command, run again after SIGKILL at any moment, ends with the same bytes.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

from blender_hf.errors import InputError

from .files import decode_line
from .writing import LINES, TableFormat, as_line, packed_format

BLOCK = 1 << 16
# Suffix of a file that is being written; what a killed process leaves behind is overwritten.
UNFINISHED = ".tmp"
# Suffix of the plain lines of a compressed file or a table, while it is written.
LINES_BESIDE = ".lines"
# How a line begins, as `json.dumps` writes it.
BEGINS = b'{"'
ELSEWHERE = "choose another --output, or --overwrite it"


class Log:
    """The append-only results of a job, and beside them what made them; use it through `open_log`.

    What can't be read or written is an `InputError`. The lines of a compressed file, or of a Parquet file, are kept
    plain in another file, beside it, until the log is closed: what a kill tears out of these could not be mended.

    Args:
        path: The file of results, one JSON object a line, compressed if its name ends in ".gz", a table if it ends in
            ".parquet"; None is the standard output.
        about: A JSON file for the settings, or its suffix after the name of the results; None checks none.
    """

    def __init__(self, path: Path | None, about: Path | str | None = None) -> None:
        self.path = path
        self._packed: tuple[Path, TableFormat] | None = None
        # Whether the plain lines were made of a file that has the same, and whether they have changed since.
        self._unpacked = self._changed = False
        #: Whether it is a file, or will be one: neither the standard output nor a device is read, or resumed.
        self.resumable = path is not None and (path.is_file() or not path.exists())
        self._about: Path | None = None
        if path is not None and about is not None and self.resumable:
            self._about = beside(path, about) if isinstance(about, str) else about
        self._file: FileIO | None = None
        if path is not None and self.resumable and (form := packed_format(path)) is not None:
            self._packed, self.path = (path, form), beside(path, LINES_BESIDE)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written yet."""
        return not any(path.stat().st_size for path in self._files() if path.is_file())

    def values(self, begins: bytes = BEGINS) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield how messages name each line, and the object that it holds; a torn last line is skipped."""
        finished = False
        for number, line in enumerate(self.lines(), 1):
            where, value = f"{self.path}:{number}", _object(line)
            if value is not None:
                finished = True
                yield where, value
            elif line.strip() if line.endswith(b"\n") else not (finished or begins.startswith(line[: len(begins)])):
                raise InputError(f"{where}: this is no record of an earlier run; {ELSEWHERE}")

    def lines(self, offsets: Iterable[int] | None = None) -> Iterator[bytes]:
        """Yield the lines that begin at these offsets, or all, as they are."""
        self._unpack()
        if self.path is None or not self.path.is_file():
            return
        try:
            with open(self.path, "rb") as file:
                if offsets is None:
                    yield from file
                for offset in offsets or ():
                    file.seek(offset)
                    yield file.readline()
        except OSError as error:
            raise InputError(f"can't resume {self.path}: {error.strerror or error}") from None

    def notes(self) -> dict[str, Any]:
        """Return what `note` wrote last; nothing if it never did."""
        return json.loads(self._about.read_bytes()) if self._about is not None and self._about.is_file() else {}

    def note(self, **values: Any) -> None:
        """Write down what the results depend on, in place of what is there."""
        if self._about is not None:
            with replacing(self._about) as file:
                file.write(json.dumps(values, indent=1, ensure_ascii=False).encode())

    def check(self, settings: Mapping[str, Any], remedy: str = ELSEWHERE) -> None:
        """Check, as `check_settings` does, the settings of the results that are there, if any are."""
        notes = self.notes()
        if not self.is_empty and "settings" in notes:
            check_settings(notes["settings"], settings, self.path, remedy)

    def begin(self, settings: Mapping[str, Any] | None = None, *, anew: bool = False) -> None:
        """Open the file to append to it, once all that is in it is known to be of this job; a torn line is removed."""
        if self.path is None or self._file is not None:
            return
        self._changed |= anew
        if not anew:
            self._unpack()
        try:
            mode = "rb+" if self.path.is_file() else "wb+" if self.resumable else "wb"
            self._file = cast(FileIO, open(self.path, mode, buffering=0))  # noqa: SIM115
            if self.resumable:
                if anew:
                    self._file.truncate(0)
                _mend(self._file)
                _sync_folder(self.path.parent)
            if settings is not None and self.is_empty:
                self.note(settings=settings)
        except OSError as error:
            raise InputError(f"can't write {self.path}: {error.strerror or error}") from None

    def append(self, line: str) -> int:
        """Write a line, wait until it is on the disk, and return the offset where it begins."""
        if self._file is None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            return 0
        self._changed = True
        try:
            start = self._file.tell() if self.resumable else 0
            rest = memoryview(line.encode() + b"\n")
            while rest:
                rest = rest[self._file.write(rest) :]
            if self.resumable:
                os.fsync(self._file.fileno())
            return start
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def remove(self) -> None:
        """Close and delete the file; the settings stay."""
        if self._file is not None:
            self._file.close()
        for path in self._files():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and make it what its name says; settings without results are removed."""
        if self._file is not None and not self._file.closed:
            if self._packed is not None:
                _mend(self._file)  # the disk may have been full within a line
            self._file.close()
        if self._packed is not None and self.path is not None and self.path.is_file():
            if self._unpacked and not self._changed:
                self.path.unlink()
            elif self._file is not None:
                self._pack(self.path, *self._packed)
        if self._about is not None and self.is_empty and "summary" not in self.notes():
            self._about.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        """Yield the files that may hold results."""
        if self.path is not None:
            yield self.path
        if self._packed is not None:
            yield self._packed[0]

    def _unpack(self) -> None:
        """Let the lines of a compressed file or a table stand plain beside it, unless those of a killed process do."""
        if self._packed is None or self.path is None or self.path.exists() or not self._packed[0].is_file():
            return
        packed, form = self._packed
        try:
            with replacing(self.path) as lines:
                lines.writelines(map(as_line, form.read(packed)))
        except (OSError, ValueError) as error:
            raise InputError(f"can't resume {packed}: {error}; {ELSEWHERE}") from None
        self._unpacked = True

    def _pack(self, lines: Path, packed: Path, form: TableFormat) -> None:
        with replacing(packed) as file:
            form.write(lambda: LINES.read(lines), file, None, False)
        lines.unlink()


@contextmanager
def open_log(path: Path | None, about: Path | str | None = None) -> Iterator[Log]:
    """Open the log of a job, which no other process may have open."""
    from filelock import FileLock, Timeout

    log = Log(path, about)
    if path is None or not log.resumable:
        try:
            yield log
        finally:
            log.close()
        return
    lock = FileLock(beside(path, ".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"another process is at work on {path}; wait for it, or choose another output") from None
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}") from None
    try:
        yield log
    finally:
        log.close()
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its place, and move it there when it is complete and on the disk.

    A file that is there stays until it is replaced, and stays for good if an error is raised.
    """
    unfinished = beside(path, UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def beside(path: Path, suffix: str) -> Path:
    """Return the file whose name is that of another with a suffix."""
    return path.with_name(path.name + suffix)


def check_settings(found: Mapping[str, Any], wanted: Mapping[str, Any], what: object, remedy: str = ELSEWHERE) -> None:
    """Check that existing results were made with the current settings."""
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        differences = ", ".join(f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}" for name in names)
        raise InputError(f"{what} was made with other settings: {differences}; {remedy}")


class _Identified(Protocol):
    """A record with an id, a digest of what its result depends on (see `digest_of`), and its name in messages."""

    @property
    def id(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def where(self) -> str: ...


SomeRecord = TypeVar("SomeRecord", bound=_Identified)


def digest_of(texts: Any) -> str:
    """Return a digest of strings in any arrangement that JSON can hold."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def each_id_once(records: Iterable[SomeRecord]) -> Iterator[SomeRecord]:
    """Yield records, lazily; a second one with the same id is an `InputError` that names it."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise InputError(f"{record.where}: another record has the id {record.id!r}; each needs an id of its own")
        seen.add(record.id)
        yield record


def is_done(record: _Identified, done: Mapping[str, str]) -> bool:
    """Return whether a record is among those done, given by their ids with their digests."""
    if record.id not in done:
        return False
    if done[record.id] != record.digest:
        raise InputError(f"{record.where}: the output has other texts with the id {record.id!r}; {ELSEWHERE}")
    return True


def remaining(
    records: Iterable[SomeRecord], done: Mapping[str, str], window: int | None = None
) -> Iterator[SomeRecord]:
    """Yield the records that are not done.

    Where results depend on the batch they are made in, `window` is how many records are worked on together: a window in
    which a record is not done is then yielded whole, so that the same batches are made again.
    """
    if window is None or not done:
        yield from (record for record in records if not is_done(record, done))
        return
    source = iter(records)
    while batch := list(islice(source, window)):
        if sum(is_done(record, done) for record in batch) < len(batch):
            yield from batch


def _object(line: bytes) -> Mapping[str, Any] | None:
    """Return the object that a line holds whole, None where it does not: no part of an object is one."""
    try:
        value = decode_line(line, "")
    except InputError:
        return None
    return value if isinstance(value, Mapping) else None


def _mend(file: FileIO) -> None:
    """End the last line of a file where it is whole, remove it where it is torn, and stay at the end."""
    end = start = file.seek(0, os.SEEK_END)
    while start > 0:
        block = max(0, start - BLOCK)
        file.seek(block)
        found = file.read(start - block).rfind(b"\n")
        start = block + found + 1
        if found >= 0:
            break
    file.seek(start)
    if start < end and _object(file.read(end - start)) is not None:
        file.write(b"\n")
    else:
        file.truncate(start)
        file.seek(start)


def _unwritable(path: Path | None, error: OSError) -> InputError:
    return InputError(f"can't write {path}: {error.strerror or error}; what was done before is kept")


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can (Windows has no such call)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
