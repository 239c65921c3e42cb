"""Where records come from: files, folders of `datasets`, datasets on the Hub; all are read lazily, in a fixed order."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError, InputTypeError, first_line, require

from .columns import ColumnNames, Columns
from .files import STDIN, check_source, decode_line, read_file
from .records import Record, record_from_mapping
from .tables import answers_together


@dataclass(frozen=True)
class Entry:
    """A record as it was read, not yet checked."""

    #: How many records precede it.
    index: int
    #: Number of its line or row.
    number: int
    #: How messages name it.
    where: str
    #: A line of JSON as bytes, or a decoded row.
    content: Any
    #: Which of its columns are what.
    columns: Columns = field(default_factory=Columns, compare=False)

    def value(self) -> Any:
        """Return the decoded record; a line that is not JSON is an `InputError`."""
        return decode_line(self.content, self.where) if isinstance(self.content, bytes) else self.content

    def record(self) -> Record:
        """Return the prompt with its candidates."""
        return record_from_mapping(self.value(), where=self.where, default_id=self.number, columns=self.columns)


class Source(ABC):
    """Records that are always read in the same order."""

    #: Whether reading everything before the work is cheap: then a bad record is found before any work is done.
    local = True

    @cached_property
    def columns(self) -> Columns:
        """Which of their columns are what, as the caller states it, and what was not read."""
        return Columns()

    @property
    def title(self) -> str:
        """How messages name it."""
        return "the records"

    @property
    def rereadable(self) -> bool:
        """Whether it can be read again from its start."""
        return True

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what distinguishes it from another source, and from itself after a change."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield its lines or rows, with constant memory."""

    def records(self) -> Iterator[Entry]:
        """Yield its records: answers that stand in several rows or columns of a table are put together."""
        yield from answers_together(self.entries(), self.columns)


@dataclass(frozen=True)
class FileSource(Source):
    """A file, or a stream."""

    # In any format of `files`; "-" is the standard input
    path: str | Path
    columns: Columns = field(default_factory=Columns, compare=False)

    @property
    def title(self) -> str:
        """The path."""
        return "<stdin>" if str(self.path) == STDIN else str(self.path)

    @property
    def rereadable(self) -> bool:
        """Whether it is no stream."""
        return not is_stream(self.path)

    def identity(self) -> dict[str, Any]:
        """Return its size and a digest of its content: a copy of it is the same, an edited one is not."""
        found = {"size": Path(self.path).stat().st_size, "digest": digest(Path(self.path))}
        return {**found, **_stated(self.columns)}

    def entries(self) -> Iterator[Entry]:
        """Yield its records."""
        for index, (number, where, content) in enumerate(read_file(self.path)):
            yield Entry(index, number, where, content, self.columns)


@dataclass(frozen=True)
class SavedSource(Source):
    """A folder written by `datasets.save_to_disk`, or a split of it."""

    path: Path
    split: str | None = None
    columns: Columns = field(default_factory=Columns, compare=False)

    @property
    def title(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint that `datasets` keeps of it."""
        return {"fingerprint": self._load()._fingerprint, "split": self.split, **_stated(self.columns)}

    def entries(self) -> Iterator[Entry]:
        """Yield its rows."""
        yield from _rows(self._load(), str(self.path), self.columns)

    def _load(self) -> Any:
        try:
            loaded = _datasets(str(self.path)).load_from_disk(str(self.path))
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, error) from None
        return one_split(loaded, self.split, str(self.path))


@dataclass(frozen=True)
class HubSource(Source):
    """A dataset on the Hub, which is streamed; the arguments are those of `open_source`."""

    name: str
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: Columns = field(default_factory=Columns, compare=False)
    local = False

    @property
    def title(self) -> str:
        """The id."""
        return self.name

    def identity(self) -> dict[str, Any]:
        """Return its id, and the commit where the Hub reports it."""
        found = {"name": self.name, "subset": self.subset, "split": self.split, "revision": self.commit}
        return {**found, **_stated(self.columns)}

    def entries(self) -> Iterator[Entry]:
        """Yield its rows as they arrive."""
        datasets = _datasets(self.name)
        try:
            loaded = datasets.load_dataset(self.name, self.subset, revision=self.commit, streaming=True)
            yield from _rows(one_split(loaded, self.split, self.name), self.name, self.columns)
        except (InputError, InputTypeError):
            raise
        # `datasets` raises errors of many libraries for what can't be found or read.
        except Exception as error:
            raise _unreadable(self.name, error) from error

    def records(self) -> Iterator[Entry]:
        """Yield its rows as they arrive; those of one prompt can't be put together, for they may be anywhere."""
        return self.entries()

    @cached_property
    def commit(self) -> str | None:
        """The commit that is read, resolved once: a branch may move while a job runs."""
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.name, revision=self.revision).sha
        # Offline, `datasets` may still find it in its cache; if not, it reports what is wrong.
        except Exception:
            return self.revision


def open_source(
    data: str | Path,
    *,
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    columns: ColumnNames | Columns | None = None,
) -> Source:
    """Return the source that a name refers to.

    Args:
        data: A file or stream (see `FileSource`); a folder of `datasets.save_to_disk`; or the id of a dataset on the
            Hub, `org/name`.
        subset: Configuration of a dataset on the Hub.
        split: Split of a dataset; may be omitted if there is only one.
        revision: Branch, tag or commit on the Hub.
        columns: By role, the names of columns to read in place of those that are known; see `columns.Columns`.

    Raises:
        InputError: If there is no such file, or an option does not apply to such a source.
    """
    path = Path(data)
    read = columns if isinstance(columns, Columns) else Columns(columns)
    check_source(data)
    if not (is_stream(data) or path.exists()):
        return HubSource(str(data), subset, split, revision, read)
    given = {"split": split, "subset": subset, "revision": revision}
    unused = [name for name, value in given.items() if value is not None and not (name == "split" and path.is_dir())]
    if unused:
        raise InputError(f"{data} has no {unused[0]}: that is an option for datasets")
    return SavedSource(path, split, read) if path.is_dir() else FileSource(data, read)


def read_values(path: str | Path) -> Iterator[Any]:
    """Yield the decoded records of a file (see `FileSource`), lazily."""
    return (entry.value() for entry in FileSource(path).entries())


def as_source(data: str | Path | Source, columns: ColumnNames | Columns | None = None) -> Source:
    """Return a source as it is, and a path as that of a file (see `FileSource`) with these columns."""
    if isinstance(data, Source):
        return data
    return FileSource(data, columns if isinstance(columns, Columns) else Columns(columns))


def read_records(data: str | Path | Source, columns: ColumnNames | Columns | None = None) -> Iterator[Record]:
    """Yield the prompts with candidates of a source, or of a file by its path, lazily; empty lines are skipped."""
    source = as_source(data, columns)
    yield from (entry.record() for entry in source.records())
    source.columns.report(source.title, is_file=isinstance(source, FileSource))


def checked_count(source: Source, records: Iterable[Any]) -> int | None:
    """Read all records of a source to check them, and return their number.

    None, and nothing is read, of a stream, which can be read only once, and of what is not read cheaply.
    """
    return sum(1 for _ in records) if source.rereadable and source.local else None


def is_stream(path: str | Path) -> bool:
    """Return whether a path can be read only once: the standard input, a named pipe, one of a shell's `<(...)`."""
    return str(path) == STDIN or (Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir())


def digest(path: Path, suffixes: Collection[str] | None = None, algorithm: str | None = None) -> str:
    """Return a digest of a file, or of the names and contents of a folder's files, all or those of some suffixes.

    The algorithm is one of `hashlib`; None is a fast one of 128 bits.
    """
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm or partial(hashlib.blake2b, digest_size=16)).hexdigest()
    found = hashlib.new(algorithm) if algorithm else hashlib.blake2b(digest_size=16)
    for member in sorted(member for member in path.rglob("*") if member.is_file()):
        if suffixes is None or member.suffix in suffixes:
            found.update(f"{member.relative_to(path).as_posix()} {digest(member, algorithm=algorithm)}\n".encode())
    return found.hexdigest()


def one_split(loaded: Any, split: str | None, name: str) -> Any:
    """Return a split of what `datasets` loaded, or all of it if it has none; an ambiguous one is an `InputError`."""
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise InputError(f"{name} has the splits {', '.join(loaded)}, not {split!r}; choose one with --split")
    return loaded[split]


def _rows(rows: Iterable[Mapping[str, Any]], name: str, columns: Columns) -> Iterator[Entry]:
    for index, row in enumerate(rows):
        yield Entry(index, index + 1, f"{name}, row {index + 1}", row, columns)


def _stated(columns: Columns) -> dict[str, Any]:
    """Return what the caller states of columns, on which the records depend."""
    return {"columns": {role: list(names) for role, names in columns.stated.items()}} if columns.stated else {}


def _datasets(name: str) -> Any:
    return require("datasets", "label", f"{name} is no file, and reading datasets")


def _unreadable(name: str | Path, error: Exception) -> InputError:
    return InputError(
        f"can't read {name}: {first_line(error)} (give a file, a folder of `datasets`, or the id of a dataset on the "
        "Hub)"
    )
