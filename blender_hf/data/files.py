"""Files of records: read by what they contain, whatever they are called, with constant memory where the format allows.

JSON Lines and JSON arrays, Parquet and Arrow are recognised by their first bytes, and so is gzip around any of them. A
text that is neither is CSV if its name says so.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from blender_hf.errors import InputError, first_line, require

STDIN = "-"
# Rows of a Parquet file that are in memory at once.
PARQUET_ROWS = 256
# Marks, in the schema of a Parquet file of ours, a column of texts: those of the rows, and of other values their JSON.
AS_JSON = {b"blender_hf": b"json"}
# Longest CSV cell; Python's default is 131,072 characters, and a prompt may be longer.
csv.field_size_limit(2**31 - 1)
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
# How files begin that are not read, and what they are.
UNREADABLE = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"PK\x03\x04": "an Excel file or a zip archive; save it as CSV in UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as CSV in UTF-8",
    b"BZh": "compressed with bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or use gzip",
    b"version https://git-lfs": "a pointer of Git LFS and not the file; fetch it with git lfs pull",
    b"<!DOCTYPE": "a web page; download the raw file",
    b"<html": "a web page; download the raw file",
    b"%PDF": "a PDF; save it as CSV or JSON Lines",
    b"SQLite format 3": "a database of SQLite; export it as CSV",
}
CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SEPARATOR = re.compile(r"sep=(.)\r?\n?")
# Suffixes that promise what the content alone decides.
BINARY_SUFFIXES = (".parquet", ".arrow")
# The suffixes of files that are read, to tell them from ids of the Hub.
SUFFIXES = (".jsonl", ".ndjson", ".json", ".gz", *CSV_DELIMITERS, *BINARY_SUFFIXES)

# The number of a line or row, how messages name it, and a line of JSON as bytes, or a decoded row.
Numbered = tuple[int, str, Any]


def check_source(data: str | Path) -> None:
    """Reject a name that is no file or folder, and can't be the id of a dataset on the Hub either."""
    path = Path(data)
    is_no_id = len(path.parts) > 2 or path.is_absolute() or path.suffix.lower() in SUFFIXES
    if is_no_id and str(data) != STDIN and not path.exists():
        raise InputError(f"can't read {data}: there is no such file, and it is no id of a dataset (org/name)")


class Cells(dict[str, Any]):
    """A row of a CSV file: its cells by column, None where one is empty."""


def read_file(path: str | Path) -> Iterator[Numbered]:
    """Yield the records of a file or of the standard input ("-"), lazily and not yet decoded; empty lines are skipped.

    Raises:
        InputError: If it can't be read, or its format is not one of those above; the message says what it is.
    """
    name = "<stdin>" if str(path) == STDIN else str(path)
    try:
        with _opened(path) as stream:
            yield from _reader(stream, path, name)(stream, name)
    except IsADirectoryError:
        raise InputError(f"can't read {name}: it is a folder; name a file in it, or join its files into one") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(f"can't read {name}: {reason}") from None


def is_compressed(path: str | Path) -> bool:
    """Return whether a file of this name is written with gzip."""
    return Path(path).suffix.lower() == ".gz"


def open_text(path: str | Path) -> TextIO:
    """Open a file to write text, compressed if its name says so; the same text is the same bytes."""
    if not is_compressed(path):
        return open(path, "w", encoding="utf-8")
    return cast(TextIO, io.TextIOWrapper(_Compressed(open(path, "wb")), encoding="utf-8"))


class _Compressed(gzip.GzipFile):
    """A gzip file without a name and a time inside, which closes the file that it writes to."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(filename="", fileobj=file, mode="wb", mtime=0)
        self._below = file

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._below.close()


def unpacked_size(path: str | Path, limit: int) -> int:
    """Return the size of a file, unpacked if it is compressed; a number above the limit as soon as that is exceeded."""
    with _opened(path) as stream:
        if stream.peek(4)[:4] == b"PAR1":
            pq = require("pyarrow.parquet", "label", f"reading {path}")
            with _naming_arrow(str(path)), pq.ParquetFile(io.BytesIO(stream.read())) as file:
                groups = range(file.metadata.num_row_groups)
                return sum(file.metadata.row_group(index).total_byte_size for index in groups)
        size = 0
        while size <= limit and (block := stream.read(1 << 16)):
            size += len(block)
    return size


NOT_LINES = f"write one JSON object a line; if it is CSV, let its name end in {' or '.join(CSV_DELIMITERS)}"


def decode_line(line: bytes, where: str, remedy: str = NOT_LINES) -> Any:
    """Return what a line of JSON holds; where it is not JSON in UTF-8, an `InputError` names it."""
    try:
        return json.loads(line.rstrip(b"\r\n"), object_pairs_hook=partial(_object, where))
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InputError(f"{where}: not valid JSON: {error.msg} at {at}; {remedy}") from None
    except ValueError:
        limit = sys.get_int_max_str_digits()
        raise InputError(f"{where}: not usable JSON: a number has more than the {limit} digits that are read") from None
    except RecursionError:
        raise InputError(f"{where}: not usable JSON: it is nested too deeply") from None


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; of a key that stands twice with two values, one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs) and (twice := next((key for key, value in pairs if found[key] != value), None)):
        raise InputError(f'{where}: the key "{twice}" stands twice, with different values; rename or drop one of them')
    return found


@contextmanager
def _opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a file or the standard input, unpacked if it is compressed with gzip."""
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError("the standard input is closed: name a file, or pipe records into the command")
        yield _unpacked(sys.stdin.buffer)
        return
    with open(path, "rb") as file:
        yield _unpacked(file)


def _unpacked(file: BinaryIO) -> io.BufferedReader:
    stream = file if hasattr(file, "peek") else io.BufferedReader(cast(io.RawIOBase, file))
    stream = cast(io.BufferedReader, stream)
    if stream.peek(2)[:2] == GZIP:
        packed = cast(io.RawIOBase, gzip.GzipFile(fileobj=stream, mode="rb"))
        return _unpacked(cast(BinaryIO, io.BufferedReader(packed)))
    return stream


def _reader(stream: io.BufferedReader, path: str | Path, name: str) -> Callable[..., Iterator[Numbered]]:
    """Return what reads a stream, by its first bytes, and its name where these do not say."""
    head = stream.peek(64)
    for sign, what in UNREADABLE.items():
        if head.startswith(sign):
            raise InputError(f"can't read {name}: it is {what}")
    for sign, reader in BINARY.items():
        if head.startswith(sign):
            return reader
    text = head.removeprefix(BOM).lstrip()
    if text[:1] in (b"[", b"{") and text[1:2] == b"\0":
        raise InputError(f"can't read {name}: it is UTF-16; save it as UTF-8")
    if text.startswith(b"["):
        return _json_array
    suffixes = Path(path).suffixes
    suffix = next((suffix.lower() for suffix in reversed(suffixes) if suffix.lower() != ".gz"), "")
    if suffix in CSV_DELIMITERS and not text.startswith(b"{"):
        return _csv_rows
    if suffix in BINARY_SUFFIXES and not text.startswith(b"{"):
        raise InputError(f"can't read {name}: it is neither {suffix[1:].capitalize()} nor JSON")
    return _json_lines


def _json_lines(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    for number, line in enumerate(stream, 1):
        if number == 1 and line.removeprefix(BOM).strip() == b"{":
            raise InputError(
                f"{name}:1: an object that goes over several lines; write one JSON object a line, or an array of them"
            )
        if line.strip():
            yield number, f"{name}:{number}", line


def _json_array(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    values = decode_line(stream.read(), name, "a file that begins with [ is one JSON array of objects")
    yield from ((number, f"{name}, record {number}", value) for number, value in enumerate(values, 1))


def _csv_rows(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    """Yield the last line number of each row of a CSV file in UTF-8 with a header, and its cells by column.

    Cells are strings: `datasets` would guess that an answer "4" is a number, and that "None" is missing.
    """
    suffix = next((suffix for suffix in CSV_DELIMITERS if suffix in Path(name).name.lower()), ".csv")
    try:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        header = lines.readline()
        if stated := SEPARATOR.fullmatch(header):  # as Excel writes it above the header
            header = lines.readline()
        delimiter = stated[1] if stated else _delimiter(header, CSV_DELIMITERS[suffix])
        reader = csv.reader(chain([header] if header else [], lines), delimiter=delimiter)
        columns = [column.strip() for column in next(reader, [])]
        if twice := next((column for column in columns if column and columns.count(column) > 1), None):
            raise InputError(f'{name}:1: two columns are called "{twice}"; rename or drop one of them')
        for cells in reader:
            if not cells:
                continue
            if beyond := [cell for cell in cells[len(columns) :] if cell.strip()]:
                raise InputError(
                    f"{name}:{reader.line_num}: the cell {beyond[0]!r:.40} stands in column {len(columns) + 1}, and "
                    f"the header has {len(columns)} columns; name the column, or put a text with commas in quotes"
                )
            row = dict(zip(columns, cells, strict=False))
            yield (
                reader.line_num,
                f"{name}:{reader.line_num}",
                Cells((column, row.get(column) or None) for column in columns if column),
            )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a CSV file in UTF-8 ({type(error).__name__}); save it as CSV in UTF-8") from None


def _delimiter(header: str, usual: str) -> str:
    """Return what separates the columns of a header: the usual delimiter, or another one if it does not occur."""
    return next((one for one in (usual, ";", "\t", ",") if one in header), usual)


def _parquet_rows(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    pq = require("pyarrow.parquet", "label", f"reading {name}")
    with _naming_arrow(name), pq.ParquetFile(_seekable(stream)) as file:
        yield from _rows(file.iter_batches(PARQUET_ROWS), name)


def _arrow_file(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    pa = require("pyarrow", "label", f"reading {name}")
    with _naming_arrow(name), pa.ipc.open_file(_seekable(stream)) as file:
        yield from _rows((file.get_batch(index) for index in range(file.num_record_batches)), name)


def _arrow_stream(stream: io.BufferedReader, name: str) -> Iterator[Numbered]:
    pa = require("pyarrow", "label", f"reading {name}")
    with _naming_arrow(name), pa.ipc.open_stream(stream) as batches:
        yield from _rows(batches, name)


def _seekable(stream: io.BufferedReader) -> Any:
    plain = isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO) and stream.seekable()
    return stream if plain else io.BytesIO(stream.read())


@contextmanager
def _naming_arrow(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        raise InputError(f"can't read {name}: {first_line(error)}") from None


def _rows(batches: Any, name: str) -> Iterator[Numbered]:
    rows = (row for batch in batches for row in _decoded(batch))
    yield from ((number, f"{name}, row {number}", row) for number, row in enumerate(rows, 1))


def _decoded(batch: Any) -> list[dict[str, Any]]:
    """Return the rows of a batch, with the values whose JSON a column has."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    for name in (field.name for field in batch.schema if AS_JSON.items() <= (field.metadata or {}).items()):
        for row in rows:
            if isinstance(text := row[name], str) and text.startswith(("[", "{")):
                with suppress(ValueError):
                    row[name] = json.loads(text)
    return rows


BINARY: dict[bytes, Callable[..., Iterator[Numbered]]] = {
    b"PAR1": _parquet_rows,
    b"ARROW1": _arrow_file,
    b"\xff\xff\xff\xff": _arrow_stream,
}
