"""The files that rows are written to, by their names: JSON Lines, plain or compressed, and Parquet.

The columns of a Parquet file have the types that the caller states, or those that the rows show. A file without stated
types can be read back as the rows that it was made of.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from blender_hf.errors import InputError, require
from blender_hf.modeling.conversations import Message, plain_values
from blender_hf.modeling.processing_causal_gen_fuser import TEMPLATE_OPTIONS

from .files import AS_JSON, is_compressed, read_file

# Rows of a row group: enough to be read fast, few enough to be held in memory.
ROW_GROUP = 4096

Row = Mapping[str, Any]
# Each call yields all rows again.
Rows = Callable[[], Iterator[Row]]
Change = Callable[[Message], Message]


@dataclass(frozen=True)
class TableFormat:
    """A file format, by the suffix of its files, and the package that it needs."""

    suffix: str
    #: Writes rows to a file, given the kinds of their columns, None for those that the rows show, and whether prompts
    #: are chat messages.
    write: Callable[[Rows, IO[bytes], Mapping[str, str] | None, bool], None]
    #: Yields the rows that were written without kinds.
    read: Callable[[Path], Iterator[Row]]
    needs: str | None = None


def table_format(path: str | Path) -> TableFormat:
    """Return the format of a file by its name."""
    found = next((form for form in TABLES if Path(path).name.endswith(form.suffix)), None)
    if found is None:
        raise InputError(f"{path}: the name of the output ends in one of {', '.join(form.suffix for form in TABLES)}")
    if found.needs is not None:
        _import(found.needs)
    return found


def packed_format(path: str | Path) -> TableFormat | None:
    """Return the format of a file to which lines can't be appended; None for all others, which hold lines."""
    if is_compressed(path):
        return COMPRESSED
    if Path(path).suffix.lower() != PARQUET.suffix:
        return None
    _import("pyarrow")
    return PARQUET


def as_line(fields: Row) -> bytes:
    """Return a row as a line of JSON."""
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _write_lines(rows: Rows, file: IO[bytes], columns: Mapping[str, str] | None, conversational: bool) -> None:
    file.writelines(map(as_line, rows()))


def _read_lines(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        yield from map(json.loads, file)


def _write_compressed(rows: Rows, file: IO[bytes], columns: Mapping[str, str] | None, conversational: bool) -> None:
    # Without a name and a time, the same rows are the same bytes.
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
        compressed.writelines(map(as_line, rows()))


def _read_compressed(path: Path) -> Iterator[Row]:
    try:
        with gzip.open(path, "rb") as file:
            yield from map(json.loads, file)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from None


def _write_parquet(rows: Rows, file: IO[bytes], columns: Mapping[str, str] | None, conversational: bool) -> None:
    pa, pq = _import("pyarrow"), _import("pyarrow.parquet")
    if columns is None:
        schema = _schema_shown(pa, rows)
        texts = [field.name for field in schema if field.metadata == AS_JSON]
        changed: Callable[[Row], Row] = partial(_with_texts, names=texts)
    else:
        kinds = {name: _kind(kind, conversational) for name, kind in columns.items()}
        schema, change = _schema(pa, rows, kinds)
        changed = partial(_changed, kinds=kinds, change=change)
    with pq.ParquetWriter(file, schema) as writer:
        for group in _groups(map(changed, rows())):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _read_parquet(path: Path) -> Iterator[Row]:
    # Of a row that lacks a column, or a message that lacks a key, the table has a null.
    return (plain_values(row) for _, _, row in read_file(path))


def _schema_shown(pa: Any, rows: Rows) -> Any:
    """Return the schema of rows by their values; what no type holds, such as objects with other keys, is JSON."""
    types: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    texts: set[str] = set()
    for group in _groups(rows()):
        for row in group:
            for name, value in row.items():
                types.setdefault(name, pa.null())
                if isinstance(value, Mapping) and keys.setdefault(name, value.keys()) != value.keys():
                    texts.add(name)
        for name in types.keys() - texts:
            try:
                seen = pa.schema([(name, pa.array([row.get(name) for row in group]).type)])
                known = pa.schema([(name, types[name])])
                types[name] = pa.unify_schemas([known, seen], promote_options="permissive").field(name).type
            except (pa.ArrowException, OverflowError):
                texts.add(name)
    texts |= {name for name, kind in types.items() if _has_empty_struct(kind)}
    return pa.schema(
        [pa.field(name, pa.string(), metadata=AS_JSON) if name in texts else (name, types[name]) for name in types]
    )


def _with_texts(row: Row, names: Collection[str]) -> Row:
    others = {name: row[name] for name in names if not isinstance(row.get(name), str | None)}
    return {**row, **{name: json.dumps(value, ensure_ascii=False) for name, value in others.items()}}


def _kind(kind: str, conversational: bool) -> str:
    return {"prompt": "messages" if conversational else "string"}.get(kind, kind)


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(rows, ROW_GROUP)):
        yield group


def _schema(pa: Any, rows: Rows, kinds: Mapping[str, str]) -> tuple[Any, Change]:
    """Return the schema of rows whose messages have any keys, and how each message is changed to fit into it.

    A column of a table has one type. Where the arguments of tool calls have other types from call to call, they become
    texts of JSON; where contents are texts here and parts there, they become parts. Trainers and chat templates read
    both alike.
    """
    reason = "a tool is always called without arguments"
    for change in (_as_it_is, _with_json, _with_parts):
        types = _types(pa)
        if change is _with_parts:
            types["messages"] = pa.list_(pa.struct([("role", pa.string())]))
        try:
            schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
            for group in _groups(_changed(row, kinds, change) for row in rows()):
                found = {name: [row[name] for row in group] for name, kind in kinds.items() if kind in OPEN_KINDS}
                seen = pa.schema([(name, pa.array(values).type) for name, values in found.items()])
                schema = pa.unify_schemas([schema, seen], promote_options="permissive")
            if not any(map(_has_empty_struct, schema.types)):
                return schema, change
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            reason = str(error)
    raise InputError(f"these messages can't be written as Parquet ({reason}); write .jsonl")


def _changed(row: Row, kinds: Mapping[str, str], change: Change) -> Row:
    found = dict(row)
    for name, kind in kinds.items():
        if kind == "messages":
            found[name] = [*map(change, row[name])]
        elif kind == "candidates":
            found[name] = [
                {**one, "messages": [*map(change, one["messages"])]} if "messages" in one else one for one in row[name]
            ]
    return found


def _as_it_is(message: Message) -> Message:
    return message


def _with_json(message: Message) -> Message:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [*map(_json_call, calls)]} if isinstance(calls, list) else message


def _with_parts(message: Message) -> Message:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {**_with_json(message), "content": parts}


def _json_call(call: dict[str, Any]) -> dict[str, Any]:
    if isinstance(call.get("function"), dict):
        return {**call, "function": _json_call(call["function"])}
    arguments = call.get("arguments")
    is_text = arguments is None or isinstance(arguments, str)
    return call if is_text else {**call, "arguments": json.dumps(arguments, ensure_ascii=False)}


def _has_empty_struct(kind: Any) -> bool:
    """Return whether a type of Arrow has a struct without fields, which Parquet has not."""
    fields = [kind.field(index).type for index in range(kind.num_fields)]
    return (not fields and str(kind).startswith("struct")) or any(map(_has_empty_struct, fields))


# Their values have keys that only the data knows.
OPEN_KINDS = ("messages", "candidates")


def _types(pa: Any) -> dict[str, Any]:
    text, number = pa.string(), pa.float64()
    return {
        "string": text,
        "float": number,
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "strings": pa.list_(text),
        "floats": pa.list_(number),
        "matrix": pa.list_(pa.list_(number)),
        "messages": pa.list_(pa.struct([("role", text), ("content", text)])),
        "candidates": pa.list_(pa.struct([("model", text), ("text", text), ("rank", pa.int64()), ("score", number)])),
        "unread": pa.struct(
            [
                *(("prompt", pa.int64()), ("candidates", pa.list_(pa.int64()))),
                ("indistinguishable", pa.list_(pa.list_(pa.int64()))),
            ]
        ),
        "template_options": pa.struct([(name, pa.bool_()) for name in TEMPLATE_OPTIONS]),
        "truncated": pa.struct([("prompt", pa.int64()), ("candidates", pa.list_(pa.int64()))]),
    }


def _import(name: str) -> Any:
    return require(name, "label", "writing Parquet", "; or write .jsonl")


LINES = TableFormat(".jsonl", _write_lines, _read_lines)
COMPRESSED = TableFormat(".jsonl.gz", _write_compressed, _read_compressed)
PARQUET = TableFormat(".parquet", _write_parquet, _read_parquet, needs="pyarrow")
TABLES = (LINES, COMPRESSED, PARQUET)
