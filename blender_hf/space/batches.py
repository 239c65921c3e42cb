"""The prompts of a batch: from a file that is uploaded (JSON lines or CSV), or from a dataset on the Hub."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from blender_hf.data.records import Record, record_from_mapping
from blender_hf.data.sources import HubSource, read_csv, read_records
from blender_hf.errors import InputError

from .settings import DEFAULT_LIMITS, Limits, check_batch

# The columns of a CSV with one answer a line; with other columns, each is a model and holds its answers.
ANSWER_COLUMNS = ("candidate", "answer", "response", "text")
OWN_COLUMNS = ("id", "prompt", "instruction")
# An id of the Hub, and nothing that could be a place on the server.
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_upload(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> list[Record]:
    """Read the prompts with their candidates of a file."""
    path = Path(path)
    if path.stat().st_size > limits.file_bytes:
        raise InputError(f"{path.name} is larger than {limits.file_bytes // 1_000_000} MB; split it")
    readers = {".jsonl": read_records, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path.name}: only .jsonl and .csv files are read")
    try:
        records = list(readers[path.suffix.lower()](path))
        check_batch([record.item for record in records], limits)
    except (InputError, TypeError) as error:
        # Visitors must not learn where the server keeps the file.
        raise InputError(str(error).replace(str(path), path.name)) from None
    return records


def read_data_set(name: str, split: str | None = None, limits: Limits = DEFAULT_LIMITS) -> list[Record]:
    """Read the first prompts of a data set on the Hub, as many as a batch may have."""
    name, split = name.strip(), (split or "").strip() or None
    # A folder of that name would be opened instead, and visitors must not learn where the server keeps its files.
    if not ID.fullmatch(name) or Path(name).exists():
        raise InputError(f"{name!r} is no id of a data set on the Hub; ids are like org/name")
    records = [entry.record() for entry in islice(HubSource(name, split=split).entries(), limits.prompts)]
    check_batch([record.item for record in records], limits)
    return records


def _read_csv(path: Path) -> Iterator[Record]:
    lines = list(read_csv(path))
    columns = list(lines[0][1]) if lines else ["prompt"]
    if "prompt" not in columns:
        raise InputError(f'{path}: the column "prompt" is missing; it has {", ".join(columns) or "no columns"}')
    answer = next((name for name in ANSWER_COLUMNS if name in columns), None)
    groups = _wide(lines, columns) if answer is None else _long(lines, answer)
    for number, record in groups:
        yield record_from_mapping(record, where=f"{path}:{number}", default_id=number)


def _wide(lines: Sequence[tuple[int, Mapping[str, str]]], columns: Sequence[str]) -> Iterator[tuple[int, dict]]:
    models = [name for name in columns if name not in OWN_COLUMNS]
    for number, line in lines:
        candidates = [{"text": line[model], "model": model} for model in models if line[model].strip()]
        yield number, {**_own(line), "candidates": candidates}


def _long(lines: Sequence[tuple[int, Mapping[str, str]]], answer: str) -> Iterator[tuple[int, dict]]:
    groups: dict[tuple[str, str], tuple[int, dict]] = {}
    for number, line in lines:
        key = line.get("id", ""), line["prompt"]
        _, record = groups.setdefault(key, (number, {**_own(line), "candidates": []}))
        record["candidates"].append({"text": line[answer], "model": line.get("model") or None})
    yield from groups.values()


def _own(line: Mapping[str, str]) -> dict[str, str]:
    return {name: line[name] for name in OWN_COLUMNS if line.get(name, "").strip()} | {"prompt": line["prompt"]}
