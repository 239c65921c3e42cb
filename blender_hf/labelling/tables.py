"""The files that rows are written to: JSONL, or Parquet with a fixed type for every column."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from blender_hf.errors import InputError, require

# Rows of a row group: enough to be read fast, few enough to be held in memory.
ROW_GROUP = 4096

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TableFormat:
    """A file format, by the suffix of its files, and the package that it needs."""

    suffix: str
    #: Writes rows to a file, given the kinds of their columns and whether prompts are chat messages.
    write: Callable[[Iterator[Row], IO[bytes], Mapping[str, str], bool], None]
    needs: str | None = None


def table_format(path: str | Path) -> TableFormat:
    """Return the format of a file by its name."""
    found = next((form for form in TABLES if Path(path).name.endswith(form.suffix)), None)
    if found is None:
        raise InputError(f"{path}: the name of the output ends in one of {', '.join(form.suffix for form in TABLES)}")
    if found.needs is not None:
        _import(found.needs)
    return found


def as_line(fields: Row) -> bytes:
    """Return a row as a line of JSON."""
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _write_lines(rows: Iterator[Row], file: IO[bytes], columns: Mapping[str, str], conversational: bool) -> None:
    file.writelines(map(as_line, rows))


def _write_compressed(rows: Iterator[Row], file: IO[bytes], columns: Mapping[str, str], conversational: bool) -> None:
    # Without a name and a time, the same rows are the same bytes.
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
        compressed.writelines(map(as_line, rows))


def _write_parquet(rows: Iterator[Row], file: IO[bytes], columns: Mapping[str, str], conversational: bool) -> None:
    pa, pq = _import("pyarrow"), _import("pyarrow.parquet")
    schema = pa.schema([(name, _types(pa, conversational)[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _types(pa: Any, conversational: bool) -> dict[str, Any]:
    text, number = pa.string(), pa.float64()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    return {
        "string": text,
        "float": number,
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "strings": pa.list_(text),
        "floats": pa.list_(number),
        "matrix": pa.list_(pa.list_(number)),
        "messages": messages,
        "prompt": messages if conversational else text,
        "candidates": pa.list_(pa.struct([("model", text), ("text", text), ("rank", pa.int64()), ("score", number)])),
        "truncated": pa.struct([("prompt", pa.int64()), ("candidates", pa.list_(pa.int64()))]),
    }


def _import(name: str) -> Any:
    return require(name, "label", "writing Parquet", "; or write .jsonl")


TABLES = (
    TableFormat(".jsonl", _write_lines),
    TableFormat(".jsonl.gz", _write_compressed),
    TableFormat(".parquet", _write_parquet, needs="pyarrow"),
)
