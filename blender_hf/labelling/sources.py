"""Where records come from: JSONL, Parquet, a saved data set or one on the Hub, read one by one, in one order."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from blender_hf.data.records import Record, decode_line, read_lines, record_from_mapping
from blender_hf.errors import InputError, InputTypeError
from blender_hf.loading.checkpoints import first_line

INSTALL = "pip install 'blender-hf[label]'"
# Rows of a Parquet file that are in memory at once.
PARQUET_ROWS = 256


@dataclass(frozen=True)
class Entry:
    """A record that is not checked yet.

    Args:
        index: How many records stand before it.
        number: Number of its line or row, from 1.
        where: How messages name it.
        content: A line of JSON as bytes, or a row as a mapping.
    """

    index: int
    number: int
    where: str
    content: bytes | Mapping[str, Any]

    def record(self) -> Record:
        """Check and return the record.

        Raises:
            InputError: If it can't be used; the message names the line or row.
            InputTypeError: If a value has the wrong type.
        """
        line = isinstance(self.content, bytes)
        value = decode_line(self.content, self.where) if line else _without_nulls(self.content)
        return record_from_mapping(value, where=self.where, default_id=self.number)


class Source(ABC):
    """Records that can be read again from their start, always in the same order."""

    #: Whether reading it all before the work is cheap: then a bad record is found before any work is done.
    local = True

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what tells it from another one, and from itself after a change."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield its records, with constant memory."""


@dataclass(frozen=True)
class FileSource(Source):
    """A file of lines, or of rows.

    Args:
        path: The file.
        read: Yields the number, the name and the content of each record of a file.
    """

    path: Path
    read: Callable[[Path], Iterator[tuple[int, str, Any]]]

    def identity(self) -> dict[str, Any]:
        """Return its size and a digest of its content: a copy of it is the same, an edited one is not."""
        return {"size": self.path.stat().st_size, "digest": file_digest(self.path)}

    def entries(self) -> Iterator[Entry]:
        """Yield its records."""
        for index, (number, where, content) in enumerate(self.read(self.path)):
            yield Entry(index, number, where, content)


@dataclass(frozen=True)
class SavedSource(Source):
    """A folder of `datasets.save_to_disk`.

    Args:
        path: The folder.
        split: Which split, if it has several.
    """

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
            raise InputError(f"can't read {self.path}: {first_line(error)}") from None
        return _one_split(loaded, self.split, str(self.path))


@dataclass(frozen=True)
class HubSource(Source):
    """A data set on the Hub, which is streamed.

    Args:
        name: Its id.
        subset: Its configuration, if it has several.
        split: Its split, if it has several.
        revision: Branch, tag or commit.
    """

    name: str
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    local = False

    def identity(self) -> dict[str, Any]:
        """Return its id and the commit, where the Hub says it."""
        return {"name": self.name, "subset": self.subset, "split": self.split, "revision": self.commit}

    def entries(self) -> Iterator[Entry]:
        """Yield its rows as they arrive."""
        datasets = _datasets(self.name)
        try:
            loaded = datasets.load_dataset(self.name, self.subset, revision=self.commit, streaming=True)
            yield from _rows(_one_split(loaded, self.split, self.name), self.name)
        except (InputError, InputTypeError):
            raise
        # `datasets` has errors of many libraries for what can't be found or read.
        except Exception as error:
            raise InputError(
                f"can't read {self.name}: {first_line(error)} (give a file, a folder of `datasets`, or the id of "
                "a data set on the Hub)"
            ) from error

    @cached_property
    def commit(self) -> str | None:
        """The commit that is read, asked for once: a branch may move while a job runs."""
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.name, revision=self.revision).sha
        # Offline, `datasets` may still find it in its cache; if not, it says what is wrong.
        except Exception:
            return self.revision


def open_source(
    data: str | Path, *, subset: str | None = None, split: str | None = None, revision: str | None = None
) -> Source:
    """Return the source that a name means.

    Args:
        data: A `.parquet` file; any other file, which is JSONL, compressed if its name ends in `.gz`; a folder of
            `datasets.save_to_disk`; or the id of a data set on the Hub, `org/name`.
        subset: Configuration of a data set on the Hub.
        split: Split of a data set; may be left out if there is one.
        revision: Branch, tag or commit on the Hub.

    Raises:
        InputError: If there is no such file, or an option means nothing to such a source.
    """
    path = Path(data)
    on_hub = not path.exists() and len(path.parts) == 2 and path.suffix not in (".jsonl", ".gz", ".parquet")
    if on_hub:
        return HubSource(str(data), subset, split, revision)
    given = {"split": split, "subset": subset, "revision": revision}
    unused = [name for name, value in given.items() if value is not None and not (name == "split" and path.is_dir())]
    if unused:
        raise InputError(f"{data} has no {unused[0]}: that is an option for data sets")
    if path.is_dir():
        return SavedSource(path, split)
    if path.exists() and not path.is_file():
        raise InputError(f"{data} can be read only once, and a job that can be killed reads it again: give a file")
    if not path.is_file():
        raise InputError(f"can't read {data}: there is no such file, and it is no id of a data set (org/name)")
    return FileSource(path, _parquet_rows if path.suffix == ".parquet" else read_lines)


def file_digest(path: Path) -> str:
    """Return a digest of the content of a file."""
    digest = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def packed(entries: Iterable[Entry]) -> bytes:
    """Return entries as bytes, to travel to another process of this program."""
    return pickle.dumps(list(entries))


def unpacked(data: bytes) -> list[Entry]:
    """Return what `packed` was given."""
    return pickle.loads(data)


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"reading {path} needs pyarrow: {INSTALL}") from None
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(PARQUET_ROWS) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield number, f"{path}, row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"can't read {path}: {first_line(error)}") from None


def _rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Entry]:
    for index, row in enumerate(rows):
        yield Entry(index, index + 1, f"{name}, row {index + 1}", row)


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(f"{name} is no file, and reading data sets needs `datasets`: {INSTALL}") from None
    return datasets


def _one_split(loaded: Any, split: str | None, name: str) -> Any:
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise InputError(f"{name} has the splits {', '.join(loaded)}, not {split!r}; name one of them with --split")
    return loaded[split]


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the columns that a row leaves empty: in a table, every row has every column."""
    return {name: value for name, value in row.items() if value is not None}
