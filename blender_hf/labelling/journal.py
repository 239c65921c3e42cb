"""What is done of a long job, on the disk: parts that are whole or absent, and the settings that made them."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError

from .durable import UNFINISHED, replacing

SETTINGS = "settings.json"
SUFFIX = ".part"


@dataclass(frozen=True)
class PartSummary:
    """What became of the records of a part.

    Args:
        index: Its number, from 0: part k has the records from k times the size of a part.
        records: How many records it has, bad ones included.
        rows: How many rows they gave.
        filtered: How many rows were left out, by reason.
        bad: What could not be used: `{"line", "reason"}`.
    """

    index: int
    records: int
    rows: int
    filtered: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A part that is done.

    Args:
        summary: What became of its records.
        body: Its rows, lines of JSON.
    """

    summary: PartSummary
    body: bytes

    def to_bytes(self) -> bytes:
        """Return it as a file: a line that says what is in it, then the rows."""
        return json.dumps({**asdict(self.summary), "bytes": len(self.body)}).encode() + b"\n" + self.body


class Journal:
    """The folder in which the parts of a job gather.

    Use it through `open_journal`, which keeps two processes from the same folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summaries: dict[int, PartSummary] = {}

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start, or go on with what is there.

        Args:
            settings: All that the rows depend on, as JSON holds it.

        Raises:
            InputError: If what is there was made with other settings; the message names those that differ.
        """
        path = self.folder / SETTINGS
        if path.exists() and self.has_parts():
            check_settings(json.loads(path.read_bytes()), settings, str(self.folder))
        else:
            # Parts without settings are left of what was being thrown away; settings without parts bind nobody.
            self.clear()
            with replacing(path) as file:
                file.write(json.dumps(settings, indent=1).encode())
        self.summaries = {summary.index: summary for summary in map(_summary_of, self._paths()) if summary is not None}

    def has_parts(self) -> bool:
        """Tell whether anything is done."""
        return bool(self._paths())

    def clear(self) -> None:
        """Throw away what is done, and keep the folder."""
        self.remove()
        self.folder.mkdir()

    def write(self, part: Part) -> None:
        """Keep a part that is done."""
        with replacing(self._path(part.summary.index)) as file:
            file.write(part.to_bytes())
        self.summaries[part.summary.index] = part.summary

    def lines(self) -> Iterator[bytes]:
        """Yield the rows of all parts in order, a part in memory at a time."""
        for index in sorted(self.summaries):
            with open(self._path(index), "rb") as file:
                next(file)
                yield from file

    def bad(self) -> Iterator[dict[str, Any]]:
        """Yield what could not be used, in order."""
        for index in sorted(self.summaries):
            yield from self.summaries[index].bad

    def remove(self) -> None:
        """Throw all of it away."""
        shutil.rmtree(self.folder)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:09d}{SUFFIX}"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of a job, which no other process may have open.

    Yields:
        The journal.

    Raises:
        InputError: If another process works on it, or the folder can't be written.
    """
    from filelock import FileLock, Timeout

    # The lock lies beside the folder, which may be thrown away while it is held.
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(blocking=False)
        folder.mkdir(exist_ok=True)
    except Timeout:
        raise InputError(f"another process is at work on {folder}; wait for it, or choose another output") from None
    except OSError as error:
        raise InputError(f"can't write {folder}: {error.strerror or error}") from None
    journal = Journal(folder)
    try:
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink()
        yield journal
    finally:
        if folder.exists() and not journal.has_parts():
            journal.remove()
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_settings(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Make sure that something was made with the settings of now.

    Args:
        found: The settings that it was made with.
        wanted: Those of now.
        what: How messages name it.

    Raises:
        InputError: If they differ.
    """
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        differences = ", ".join(f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}" for name in names)
        raise InputError(
            f"{what} was made with other settings: {differences}; give the same ones to go on, another --output, or "
            "--restart to throw it away"
        )


def total(summaries: Iterable[PartSummary]) -> dict[str, Any]:
    """Return the counts of all parts together."""
    counts: dict[str, Any] = {"records": 0, "rows": 0, "bad": 0}
    filtered: dict[str, int] = {}
    for summary in summaries:
        counts["records"] += summary.records
        counts["rows"] += summary.rows
        counts["bad"] += len(summary.bad)
        for reason, number in summary.filtered.items():
            filtered[reason] = filtered.get(reason, 0) + number
    return {**counts, "filtered": dict(sorted(filtered.items()))}


def _summary_of(path: Path) -> PartSummary | None:
    """Read what a part says of itself; None if it is not whole, so that it is made again."""
    with open(path, "rb") as file:
        first = file.readline()
        try:
            header = json.loads(first)
            whole = path.stat().st_size == len(first) + header.pop("bytes")
            return PartSummary(**header) if whole else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
