"""Records of prompts, and the same records with candidates."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blender_hf.data.columns import Columns
from blender_hf.data.jobs import ELSEWHERE, Log, digest_of, each_id_once
from blender_hf.data.records import id_of, json_fields
from blender_hf.data.sources import Source, as_source
from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.modeling.record_fields import read_fields, spelt

from .candidates import Generated
from .prompts import prompt_item_from_record

# How every record that is written here or in `annotation` begins.
BEGINS = b'{"id": '


@dataclass(frozen=True)
class PromptRecord:
    """A line of a file of prompts; all of its fields are written again."""

    id: str  # its own, or its line number
    fields: Mapping[str, Any]  # all but those that hold its candidates
    candidates: Sequence[Any]  # those that it has so far, as they are in it
    item: Item  # with these candidates

    @property
    def digest(self) -> str:
        """The hash of its prompt."""
        return digest_of(self.item.messages)

    @property
    def where(self) -> str:
        """The name of this record in messages."""
        return self.item.where

    def answered(self, generated: Generated, asked: Collection[str]) -> str:
        """Return the record with its new candidates and failures as a line of JSON, without a line break.

        Earlier failures of the models that were asked are left out.
        """
        new = generated.candidates[len(self.item.candidates) :]
        earlier = [failure for failure in self.fields.get("failures") or [] if failure.get("model") not in asked]
        record = {
            "id": self.id,
            **self.fields,
            "candidates": [*self.candidates, *(candidate.fields for candidate in new)],
            "failures": [*earlier, *map(vars, generated.failures)],
        }
        return json.dumps({**record, "id": self.id}, ensure_ascii=False)


def read_prompts(data: str | Path | Source, columns: Columns | None = None) -> Iterator[PromptRecord]:
    """Yield the prompts of a source, or of a file by its path, lazily.

    A record has a prompt under any name of `record_fields.NAMES`. It may have an `id`, an `instruction`, a system
    message and `candidates`.
    """
    source = as_source(data, columns)
    yield from each_id_once(
        _prompt_record(entry.value(), entry.number, entry.where, source.columns) for entry in source.entries()
    )
    source.columns.report(source.title)


def answered_prompts(log: Log, asked: Collection[str], n: int = 1, columns: Columns | None = None) -> dict[str, str]:
    """Return the ids of the records that a job has written, with the hashes of their prompts."""
    found: dict[str, str] = {}
    for where, value in log.values(BEGINS):
        if not isinstance(value, Mapping) or not {"id", "candidates", "failures"} <= value.keys():
            raise InputError(f"{where}: this is no output of `blender-hf generate`; {ELSEWHERE}")
        record = _prompt_record(value, 0, where, Columns(columns.stated if columns else None))
        written = Counter(candidate.model for candidate in record.item.candidates)
        failed = {failure.get("model") for failure in value["failures"]}
        if missing := sorted(set(asked) - written.keys() - failed):
            raise InputError(f"{where}: {', '.join(missing)} had no part in this file; {ELSEWHERE}")
        if fewer := sorted(name for name in set(asked) - failed if written[name] < n):
            raise InputError(f"{where}: {', '.join(fewer)} gave fewer than {n} answers in this file; {ELSEWHERE}")
        found[record.id] = record.digest
    return found


def _prompt_record(value: Any, number: int, where: str, columns: Columns) -> PromptRecord:
    if isinstance(value, Mapping):
        value = json_fields(value, where)  # all of them are written again
    candidates, item = prompt_item_from_record(value, where=where, columns=columns)
    held = {"id", "candidates", *columns.stated.get("candidates", ())}
    fields = {key: told for key, told in value.items() if spelt(key) not in held}
    return PromptRecord(id_of(read_fields(value, columns.stated), number), fields, candidates, item)
