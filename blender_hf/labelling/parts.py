"""A part of a label job: consecutive records, ranked and turned into rows, and kept as one line of the job's log."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import count, islice
from typing import Any

from blender_hf.data.jobs import Log
from blender_hf.data.records import Record, text_of
from blender_hf.data.shapes import naming
from blender_hf.data.sources import Entry, Source
from blender_hf.engine.results import Ranking
from blender_hf.errors import InputError, InputTypeError
from blender_hf.judging.records import usage_of

from .formats import Fields, Labelled, Row
from .settings import LabelSettings


@dataclass(frozen=True)
class RawPart:
    """The number of a part, k for the one that begins with record k times the part size, and its unchecked records."""

    index: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Part:
    """A finished part."""

    index: int  # its number
    records: int  # how many records it has, bad ones included
    rows: list[Fields]  # what they became
    filtered: dict[str, int] = field(default_factory=dict)  # how many rows were left out, by reason
    bad: list[dict[str, Any]] = field(default_factory=list)  # what could not be used: `{"line", "reason"}`
    unread: int = 0  # how many records have text that the ranker could not read
    judge: dict[str, int] = field(default_factory=dict)  # what a judge was asked for it: the fields of its `Usage`

    def to_line(self) -> str:
        """Return it as a line of JSON, without a line break."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> "Part":
        """Return the part that `to_line` wrote; a damaged line is a `ValueError`."""
        try:
            return cls(**json.loads(line))
        except TypeError:
            raise ValueError("not a part") from None


class PartLog:
    """The finished parts in the log of a job, in whatever order they were made; a damaged line is none."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._offsets: dict[int, int] = {}
        self._bad: dict[int, list[dict[str, Any]]] = {}
        self._counts: Counter[str] = Counter(records=0, rows=0, bad=0, unread=0)
        self._filtered: Counter[str] = Counter()
        self._judge: Counter[str] = Counter()
        offset = 0
        for line in log.lines():
            with suppress(ValueError):
                self._keep(Part.from_line(line), offset)
            offset += len(line)

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the parts that are done."""
        return frozenset(self._offsets)

    @property
    def totals(self) -> dict[str, Any]:
        """Counts of `records`, `rows`, `bad`, `unread`, of what was `filtered` by reason, and of a `judge`."""
        judge = {"judge": dict(self._judge)} if self._judge else {}
        return {**self._counts, "filtered": dict(sorted(self._filtered.items())), **judge}

    def add(self, part: Part) -> None:
        """Keep a part on the disk."""
        self._keep(part, self._log.append(part.to_line()))

    def rows(self) -> Iterator[Fields]:
        """Yield the rows in the order of their records, a part in memory at a time."""
        for line in self._log.lines(self._offsets[index] for index in sorted(self._offsets)):
            yield from Part.from_line(line).rows

    def bad(self) -> Iterator[dict[str, Any]]:
        """Yield what could not be used, in the order of the records."""
        for index in sorted(self._bad):
            yield from self._bad[index]

    def _keep(self, part: Part, offset: int) -> None:
        self._offsets[part.index] = offset
        self._bad[part.index] = part.bad
        self._counts.update(records=part.records, rows=len(part.rows), bad=len(part.bad), unread=part.unread)
        self._filtered.update(part.filtered)
        self._judge.update(part.judge)


def entries_of(source: Source, settings: LabelSettings) -> Iterator[Entry]:
    """Yield the records of a job: those of its shard within the limit."""
    first = islice(source.records(), settings.limit)
    yield from islice(first, settings.shard.number - 1, None, settings.shard.of)


def usable_record(entry: Entry, settings: LabelSettings) -> Record:
    """Return the record of a job, checked as far as its rows need it."""
    record = entry.record()
    if not settings.output_format.needs_reference:
        return record
    with naming(entry.where):
        return replace(record, reference=text_of("reference", record.reference))


def raw_parts(source: Source, settings: LabelSettings, done: Collection[int]) -> Iterator[RawPart]:
    """Yield the parts that are not done, in order, each read when it is asked for."""
    entries = entries_of(source, settings)
    for index in count():
        part = islice(entries, settings.part_size)
        if index in done:
            if not sum(1 for _ in part):
                return
        elif held := tuple(part):
            yield RawPart(index, held)
        else:
            return


class PartMaker:
    """Makes parts with the ranker of a job; prompts and completions may be chat messages (`conversational`)."""

    def __init__(self, settings: LabelSettings, conversational: bool) -> None:
        self.settings = settings
        self.conversational = conversational
        self.blender = settings.ranking.load()

    def make(self, raw: RawPart) -> Part:
        """Turn records into rows; the same part always gives the same rows."""
        records, bad = self._decoded(raw)
        asked = usage_of(self.blender.scorer)
        rankings = self.settings.ranking.rank(self.blender, [record.item for _, record in records])
        filtered: Counter[str] = Counter()
        rows = [
            row.fields
            for (index, record), ranking in zip(records, rankings, strict=True)
            for row in self._rows(index, record, ranking, filtered)
        ]
        unread = sum(bool(ranking.unread) for ranking in rankings)
        judge = {name: number - asked[name] for name, number in usage_of(self.blender.scorer).items()}
        return Part(raw.index, len(raw.entries), rows, dict(filtered), bad, unread, judge)

    def _decoded(self, raw: RawPart) -> tuple[list[tuple[int, Record]], list[dict[str, Any]]]:
        records, bad = [], []
        for entry in raw.entries:
            try:
                records.append((entry.index, usable_record(entry, self.settings)))
            except (InputError, InputTypeError) as error:
                if not self.settings.skip_bad:
                    raise
                bad.append({"line": entry.number, "reason": str(error)})
        return records, bad

    def _rows(self, index: int, record: Record, ranking: Ranking, filtered: Counter[str]) -> Iterator[Row]:
        settings, form = self.settings, self.settings.output_format
        if len(set(ranking.candidates)) < settings.filters.fewest(form):
            filtered["candidates"] += 1
            return
        if form.needs_reference and record.reference is None:
            filtered["reference"] += 1
            return
        # Seeded by the record's place in the source, so that shards and resumed jobs draw the same.
        seed = f"{settings.seed}:{index}"
        labelled = Labelled(record, ranking, self.conversational, settings.pairs, seed, settings.max_candidates)
        found = list(form.rows(labelled))
        if not found:
            filtered["candidates"] += 1
        for row in found:
            reason = settings.filters.reason(row, form)
            if reason is None:
                yield row
            else:
                filtered[reason] += 1
