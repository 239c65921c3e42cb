"""Where records come from: files, folders of `datasets`, datasets on the Hub; all are read lazily, in a fixed order."""

import csv
import gzip
import hashlib
import json
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

from blender_hf.errors import InputError, InputTypeError, require
from blender_hf.loading.checkpoints import first_line

from .records import Record, record_from_mapping

STDIN = "-"
# Rows of a Parquet file that are in memory at once.
PARQUET_ROWS = 256
# Longest CSV cell; Python's default is 131,072 characters, and a prompt may be longer.
csv.field_size_limit(2**31 - 1)


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

    def value(self) -> Any:
        """Return the decoded record; a line that is not JSON is an `InputError`."""
        return decode_line(self.content, self.where) if isinstance(self.content, bytes) else self.content

    def record(self) -> Record:
        """Return the prompt with its candidates."""
        value = self.value()
        if isinstance(self.content, Mapping):  # in a table every row has every column, so an empty cell is no value
            value = {name: cell for name, cell in value.items() if cell is not None}
        return record_from_mapping(value, where=self.where, default_id=self.number)


class Source(ABC):
    """Records that are always read in the same order."""

    #: Whether reading everything before the work is cheap: then a bad record is found before any work is done.
    local = True

    @property
    def rereadable(self) -> bool:
        """Whether it can be read again from its start."""
        return True

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what distinguishes it from another source, and from itself after a change."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield its records, with constant memory."""


@dataclass(frozen=True)
class FileSource(Source):
    """A file, or a stream."""

    # A `.csv`, `.parquet`, `.arrow` or `.json` file; any other is JSONL, compressed if its name ends in `.gz`; "-" is
    # the standard input
    path: str | Path

    @property
    def rereadable(self) -> bool:
        """Whether it is no stream."""
        return not is_stream(self.path)

    def identity(self) -> dict[str, Any]:
        """Return its size and a digest of its content: a copy of it is the same, an edited one is not."""
        return {"size": Path(self.path).stat().st_size, "digest": digest(Path(self.path))}

    def entries(self) -> Iterator[Entry]:
        """Yield its records."""
        read = READERS.get(Path(self.path).suffix, read_lines) if self.rereadable else read_lines
        for index, (number, where, content) in enumerate(read(self.path)):
            yield Entry(index, number, where, content)


@dataclass(frozen=True)
class SavedSource(Source):
    """A folder written by `datasets.save_to_disk`, or a split of it."""

    path: Path
    split: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint that `datasets` keeps of it."""
        return {"fingerprint": self._load()._fingerprint, "split": self.split}

    def entries(self) -> Iterator[Entry]:
        """Yield its rows."""
        yield from _rows(self._load(), str(self.path))

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
    local = False

    def identity(self) -> dict[str, Any]:
        """Return its id, and the commit where the Hub reports it."""
        return {"name": self.name, "subset": self.subset, "split": self.split, "revision": self.commit}

    def entries(self) -> Iterator[Entry]:
        """Yield its rows as they arrive."""
        datasets = _datasets(self.name)
        try:
            loaded = datasets.load_dataset(self.name, self.subset, revision=self.commit, streaming=True)
            yield from _rows(one_split(loaded, self.split, self.name), self.name)
        except (InputError, InputTypeError):
            raise
        # `datasets` raises errors of many libraries for what can't be found or read.
        except Exception as error:
            raise _unreadable(self.name, error) from error

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
    data: str | Path, *, subset: str | None = None, split: str | None = None, revision: str | None = None
) -> Source:
    """Return the source that a name refers to.

    Args:
        data: A file or stream (see `FileSource`); a folder of `datasets.save_to_disk`; or the id of a dataset on the
            Hub, `org/name`.
        subset: Configuration of a dataset on the Hub.
        split: Split of a dataset; may be omitted if there is only one.
        revision: Branch, tag or commit on the Hub.

    Raises:
        InputError: If there is no such file, or an option does not apply to such a source.
    """
    path = Path(data)
    if not (is_stream(data) or path.exists()):
        if len(path.parts) > 2 or path.is_absolute() or path.suffix in (".jsonl", ".gz", *READERS):
            raise InputError(f"can't read {data}: there is no such file, and it is no id of a dataset (org/name)")
        return HubSource(str(data), subset, split, revision)
    given = {"split": split, "subset": subset, "revision": revision}
    unused = [name for name, value in given.items() if value is not None and not (name == "split" and path.is_dir())]
    if unused:
        raise InputError(f"{data} has no {unused[0]}: that is an option for datasets")
    return SavedSource(path, split) if path.is_dir() else FileSource(data)


def read_values(path: str | Path) -> Iterator[Any]:
    """Yield the decoded records of a file (see `FileSource`), lazily."""
    return (entry.value() for entry in FileSource(path).entries())


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the prompts with candidates of a file (see `FileSource`), lazily; empty lines are skipped."""
    return (entry.record() for entry in FileSource(path).entries())


def checked_count(path: str | Path, records: Iterable[Any]) -> int | None:
    """Read all records of a file to check them, and return their number; None for a stream, which is not read."""
    return None if is_stream(path) else sum(1 for _ in records)


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


def decode_line(line: bytes, where: str) -> Any:
    """Return what a line of JSON holds; where it is not JSON in UTF-8, an `InputError` names it."""
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not valid JSON: {error.msg} at column {error.colno}; write one JSON object a line"
        ) from None
    except ValueError:
        limit = sys.get_int_max_str_digits()
        raise InputError(f"{where}: not usable JSON: a number has more than the {limit} digits that are read") from None
    except RecursionError:
        raise InputError(f"{where}: not usable JSON: it is nested too deeply") from None


def read_lines(path: str | Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number of each line, how messages name it, and the line itself; empty lines are skipped."""
    name = "<stdin>" if str(path) == STDIN else str(path)
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, f"{name}:{number}", line
    except (OSError, EOFError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(f"can't read {name}: {reason}") from None


def read_csv(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the last line number of each row of a CSV file in UTF-8 with a header, and its cells by column.

    Cells are strings: `datasets` would guess that an answer "4" is a number, and that "None" is missing.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or [] if name]
            for line in reader:
                yield reader.line_num, {name: line.get(name) or "" for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({type(error).__name__})") from None


def _csv_rows(path: str | Path) -> Iterator[tuple[int, str, Any]]:
    for number, row in read_csv(path):
        yield number, f"{path}:{number}", {name: cell or None for name, cell in row.items()}


def _json_values(path: str | Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the members of a JSON array; a file that is no array has one record a line."""
    lines = read_lines(path)
    first = next(lines, None)
    if first is None or not first[2].lstrip().startswith(b"["):
        yield from read_lines(path)
        return
    values = decode_line(Path(path).read_bytes(), str(path))
    yield from ((number, f"{path}, record {number}", value) for number, value in enumerate(values, 1))


def _parquet_rows(path: str | Path) -> Iterator[tuple[int, str, Any]]:
    require("pyarrow", "label", f"reading {path}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(PARQUET_ROWS) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield number, f"{path}, row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"can't read {path}: {first_line(error)}") from None


def _arrow_rows(path: str | Path) -> Iterator[tuple[int, str, Any]]:
    datasets = _datasets(str(path))
    try:
        rows = datasets.load_dataset("arrow", data_files=str(path), split="train", streaming=True)
        yield from ((entry.number, entry.where, entry.content) for entry in _rows(rows, str(path)))
    # As above: errors of many libraries.
    except Exception as error:
        raise _unreadable(path, error) from error


READERS: dict[str, Callable[[str | Path], Iterator[tuple[int, str, Any]]]] = {
    ".arrow": _arrow_rows,
    ".csv": _csv_rows,
    ".json": _json_values,
    ".parquet": _parquet_rows,
}


def _rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Entry]:
    for index, row in enumerate(rows):
        yield Entry(index, index + 1, f"{name}, row {index + 1}", row)


def _open(path: str | Path) -> AbstractContextManager[IO[bytes] | Iterable[bytes]]:
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError("the standard input is closed: name a file, or pipe records into the command")
        return nullcontext(sys.stdin.buffer)
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def _datasets(name: str) -> Any:
    return require("datasets", "label", f"{name} is no file, and reading datasets")


def _unreadable(name: str | Path, error: Exception) -> InputError:
    return InputError(
        f"can't read {name}: {first_line(error)} (give a file, a folder of `datasets`, or the id of a dataset on the "
        "Hub)"
    )
