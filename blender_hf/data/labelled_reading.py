"""Labelled data from a file, a `datasets` data set, or the Hub."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from blender_hf.errors import BlenderError, InputError, InputTypeError
from blender_hf.loading.checkpoints import first_line

from .csv_files import read_csv
from .labelled import LabelledPrompt
from .labelled_formats import from_mapping
from .records import STDIN, decode_line, read_lines

# Endings of files that `datasets` reads, and the name of its reader.
TABLES = {".parquet": "parquet", ".arrow": "arrow", ".json": "json"}
CSV = ".csv"


def read_labelled(
    data: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str | None = None,
    limit: int | None = None,
    skipped: list[str] | None = None,
) -> Iterator[LabelledPrompt]:
    """Yield the labelled prompts of any data in one of `formats.FORMATS`, lazily.

    Args:
        data: A JSONL file, compressed if its name ends in `.gz`, or "-" for the standard input; a Parquet, CSV, JSON or
            Arrow file; a folder of `datasets.save_to_disk`; the id of a data set on the Hub; or any iterable of
            records, such as a `datasets.Dataset`, or a `datasets.DatasetDict` of them.
        split: Which split of a data set; None takes the only one.
        limit: Only so many records.
        skipped: Where the reasons go why records can't be used, which are then passed over; None makes them errors.

    Returns:
        An iterator of prompts.

    Raises:
        InputError: If it can't be read, or a record can't be used; the message says which.
        InputTypeError: If a value of a record has the wrong type.
    """
    for number, where, value in islice(_records(data, split), limit):
        try:
            record = decode_line(value, where) if isinstance(value, bytes) else value
            prompt = from_mapping(record, where=where, default_id=number, default_source=_name_of(data))
        except (InputError, InputTypeError) as error:
            if skipped is None:
                raise
            skipped.append(str(error))
        else:
            yield prompt


class LabelledFile:
    """The labelled prompts of a local file or folder, read anew each time: only those in work take memory.

    Args:
        path: As in `read_labelled`, on this machine.
        split: Which split of a data set; None takes the only one.
        limit: Only so many records.

    Raises:
        InputError: As `read_labelled`, for any record, before the first is used.
        InputTypeError: Likewise.
    """

    def __init__(self, path: str | Path, *, split: str | None = None, limit: int | None = None) -> None:
        self._read = partial(read_labelled, path, split=split, limit=limit)
        self._n_prompts = sum(1 for _ in self)

    def __iter__(self) -> Iterator[LabelledPrompt]:
        return self._read()

    def __len__(self) -> int:
        return self._n_prompts


def _records(data: Any, split: str | None) -> Iterator[tuple[int, str, Any]]:
    if not isinstance(data, str | Path):
        data = _one_split(data, split, "the data set")
        yield from ((number, f"record {number}", value) for number, value in enumerate(data))
        return
    path = Path(data)
    if path.suffix == CSV and path.is_file():
        # `datasets` would guess types: an answer "4" would be a number, and "None" missing.
        for number, (line, row) in enumerate(read_csv(path)):
            yield number, f"{data}:{line}", {name: cell or None for name, cell in row.items()}
        return
    lines = str(data) == STDIN or path.name.endswith((".jsonl", ".gz"))
    # A pipe has lines too, such as one of a shell's `<(...)`.
    if lines or (path.exists() and not path.is_dir() and path.suffix not in TABLES):
        yield from read_lines(data)
        return
    try:
        yield from (
            (number, f"{data}, record {number}", value) for number, value in enumerate(_load(path, str(data), split))
        )
    except BlenderError:
        raise
    # `datasets` has errors of many libraries for what can't be found or read.
    except Exception as error:
        raise InputError(
            f"can't read {data}: {first_line(error)} (give a file, a folder of `datasets`, or the id of a data set)"
        ) from error


def _load(path: Path, name: str, split: str | None) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{name} is no JSONL file, and other data needs `datasets`: pip install 'blender-hf[evaluate]'"
        ) from None
    if path.is_dir():
        return _one_split(datasets.load_from_disk(name), split, name)
    if path.is_file():
        return datasets.load_dataset(TABLES[path.suffix], data_files=name, split="train", streaming=True)
    return _one_split(datasets.load_dataset(name, streaming=True), split, name)


def _one_split(loaded: Any, split: str | None, name: str) -> Iterable[Mapping[str, Any]]:
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise InputError(f"{name} has the splits {', '.join(loaded)}, not {split!r}; name one of them with --split")
    return loaded[split]


def _name_of(data: Any) -> str:
    """Return a short name for data: a file's without its endings, or a data set's id."""
    if not isinstance(data, str | Path):
        return "records"
    if str(data) == STDIN:
        return "stdin"
    return Path(data).name.split(".")[0] if Path(data).exists() else str(data)
