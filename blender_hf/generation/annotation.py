"""Records of candidates, and the same records with the verdicts of a judge, in the format of MixInstruct."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from blender_hf.data.columns import Columns
from blender_hf.data.jobs import ELSEWHERE, Log, digest_of, each_id_once
from blender_hf.data.records import json_fields, record_from_mapping
from blender_hf.data.sources import Source, as_source
from blender_hf.data.verdicts import decode_comparisons
from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.modeling.record_fields import ASKED, holds_answers, prompt_of, read_fields, spelt, stated_prompt

from .judge import Judgment, Task
from .records import BEGINS


@dataclass(frozen=True)
class JudgedRecord:
    """A line of a file with candidates; all of its fields are written again."""

    id: str  # its own, or its line number
    fields: Mapping[str, Any]
    item: Item
    names: tuple[str, ...]  # a different one for each candidate
    known: Mapping[str, str]  # the verdicts that it has already, by the names of two candidates

    @property
    def task(self) -> Task:
        """The pairs that have no verdict yet."""
        done = {frozenset(key.split(",")) for key in self.known}
        pairs = combinations(range(len(self.names)), 2)
        return Task(self.item, tuple(pair for pair in pairs if frozenset(self._pair_names(pair)) not in done))

    @property
    def digest(self) -> str:
        """The hash of its prompt and candidates."""
        return digest_of([self.item.source, *self.item.texts])

    @property
    def where(self) -> str:
        """The name of this record in messages."""
        return self.item.where

    def judged(self, judgments: Sequence[Judgment], judge: str) -> str:
        """Return the record with verdicts as a line of JSON, without a line break.

        `cmp_results` is that of MixInstruct: {"modelA,modelB": verdict}. `annotation` has for each pair the judge, the
        verdicts of both orders, and the reason if there is no verdict.
        """
        keys = {judgment: ",".join(self._pair_names(judgment.pair)) for judgment in judgments}
        decided = {key: judgment.verdict for judgment, key in keys.items() if judgment.verdict is not None}
        pairs = {key: _annotated(judgment, judge) for judgment, key in keys.items()}
        earlier = (self.fields.get("annotation") or {}).get("pairs") or {}
        record = {
            **{"id": self.id, **self.fields},
            "candidates": [*map(_named, self.fields["candidates"], self.names)],
            "cmp_results": {**self.known, **decided},
            "annotation": {"judge": judge, "pairs": {**earlier, **pairs}},
        }
        return json.dumps({**record, "id": self.id}, ensure_ascii=False)

    def _pair_names(self, pair: tuple[int, int]) -> tuple[str, str]:
        return self.names[pair[0]], self.names[pair[1]]


def read_candidates(data: str | Path | Source, columns: Columns | None = None) -> Iterator[JudgedRecord]:
    """Yield the records of a source, or of a file by its path, lazily."""
    source = as_source(data, columns)
    yield from each_id_once(
        _judged_record(entry.value(), entry.number, entry.where, source.columns) for entry in source.records()
    )
    source.columns.report(source.title)


def judged_records(log: Log, judge: str, columns: Columns | None = None) -> dict[str, str]:
    """Return the ids of the records that a job has written, with the hashes of their prompts and candidates."""
    found: dict[str, str] = {}
    for where, value in log.values(BEGINS):
        annotation = value.get("annotation") if isinstance(value, Mapping) else None
        if not isinstance(annotation, Mapping) or "id" not in value:
            raise InputError(f"{where}: this is no output of `blender-hf annotate`; {ELSEWHERE}")
        if annotation.get("judge") != judge:
            raise InputError(f"{where}: the judge was {annotation.get('judge')}, not {judge}; {ELSEWHERE}")
        record = _judged_record(value, 0, where, Columns(columns.stated if columns else None))
        found[record.id] = record.digest
    return found


def own_names(models: Sequence[str | None], *, where: str) -> tuple[str, ...]:
    """Return a different name for each candidate, for the keys of `cmp_results`.

    The first candidate of a model has its name, the next ones are `name#2`, `name#3`; one without a model has its
    index, `candidate 0`.
    """
    names: list[str] = []
    for index, model in enumerate(models):
        name = model or f"candidate {index}"
        if "," in name:
            raise InputError(f"{where}: the model {name!r} has a comma in its name, which parts names in cmp_results")
        count = 1
        while name in names:
            count += 1
            name = f"{model}#{count}"
        names.append(name)
    return tuple(names)


def _judged_record(value: Any, number: int, where: str, columns: Columns) -> JudgedRecord:
    if isinstance(value, Mapping):
        value = json_fields(value, where)  # all of them are written again
    record = record_from_mapping(value, where=where, default_id=number, columns=columns)
    names = own_names([candidate.model for candidate in record.item.candidates], where=where)
    stated = value.get("candidates")
    if not isinstance(stated, list) or any(isinstance(one, list) for one in stated) or "candidates" in columns.stated:
        value = _with_candidates(value, record.item, columns)
    others = {key: told for key, told in value.items() if spelt(key) != "id"}
    return JudgedRecord(record.id, others, record.item, names, _known(value.get("cmp_results"), where))


def _with_candidates(value: Mapping[str, Any], item: Item, columns: Columns) -> dict[str, Any]:
    """Return a record of another shape with its answers as candidates, in place of the fields that held them.

    A prompt that the answers began with, or held a part of, is stated too.
    """
    fields = read_fields(value, columns.stated)
    held = {key for key in value if holds_answers(key)} | set(columns.stated.get("candidates", ()))
    prompt: dict[str, Any] = {}
    if stated_prompt(fields) == (None, None) or prompt_of(fields) != (item.prompt, item.instruction):
        prompt = {"prompt": item.prompt, "instruction": item.instruction}
        held |= {fields.keys[role] for role in ASKED if role in fields.keys}
    kept = {key: told for key, told in value.items() if key not in held}
    return {**kept, **prompt, "candidates": [candidate.fields for candidate in item.candidates]}


def _known(value: Any, where: str) -> Mapping[str, str]:
    try:
        return decode_comparisons(value)
    except (TypeError, ValueError):
        raise InputError(f'{where}: cmp_results must be an object {{"modelA,modelB": verdict}}') from None


def _annotated(judgment: Judgment, judge: str) -> dict[str, Any]:
    reason = {} if judgment.reason is None else {"unjudged": judgment.reason}
    return {"judge": judge, "orders": list(judgment.orders), **reason}


def _named(candidate: Any, name: str) -> Any:
    """Return a candidate of a record with its name; one that has it stays as it is."""
    if isinstance(candidate, Mapping):
        return candidate if candidate.get("model") == name else {**candidate, "model": name}
    return {"model": name, "text" if isinstance(candidate, str) else "messages": candidate}
