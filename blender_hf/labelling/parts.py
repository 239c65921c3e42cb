"""A part of a job: some records that follow each other, read, ranked and turned into rows."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from blender_hf.data.records import Record
from blender_hf.data.sources import Entry, Source
from blender_hf.engine.results import Ranking
from blender_hf.errors import InputError, InputTypeError

from .formats import Labelled, Row
from .journal import Part, PartSummary
from .settings import LabelSettings
from .tables import as_line


@dataclass(frozen=True)
class RawPart:
    """The records of a part as they were read.

    Args:
        index: Its number, from 0.
        entries: Its records.
    """

    index: int
    entries: tuple[Entry, ...]


def entries_of(source: Source, settings: LabelSettings) -> Iterator[Entry]:
    """Yield the records of a job: those of its shard within the limit."""
    first = islice(source.entries(), settings.limit)
    yield from islice(first, settings.shard.number - 1, None, settings.shard.of)


def raw_parts(source: Source, settings: LabelSettings, done: Collection[int]) -> Iterator[RawPart]:
    """Yield the parts that are not done, in order and a part at a time.

    Args:
        source: Where records come from.
        settings: Of the job.
        done: Numbers of the parts that are passed over.
    """
    entries = entries_of(source, settings)
    index = 0
    # What is passed over is read, but not kept and not decoded.
    while held := _take(entries, settings.part_size, keep=index not in done):
        if index not in done:
            yield RawPart(index, held)
        index += 1


class PartMaker:
    """Makes parts; it loads the ranker of the job.

    Args:
        settings: Of the job.
        conversational: Whether prompts and completions are chat messages.
    """

    def __init__(self, settings: LabelSettings, conversational: bool) -> None:
        self.settings = settings
        self.conversational = conversational
        self.blender = settings.judge.load()

    def make(self, raw: RawPart) -> Part:
        """Turn records into rows; the same part always gives the same rows.

        Raises:
            InputError: If a record can't be used, and such are not passed over.
            InputTypeError: If a value of such a record has the wrong type.
        """
        records, bad = self._decoded(raw)
        rankings = self.settings.judge.rank(self.blender, [record.item for _, record in records])
        filtered: Counter[str] = Counter()
        lines: list[bytes] = []
        for (index, record), ranking in zip(records, rankings, strict=True):
            for row in self._rows(index, record, ranking, filtered):
                lines.append(as_line(row.fields))
        summary = PartSummary(raw.index, len(raw.entries), len(lines), dict(filtered), bad)
        return Part(summary, b"".join(lines))

    def _decoded(self, raw: RawPart) -> tuple[list[tuple[int, Record]], list[dict[str, Any]]]:
        records, bad = [], []
        for entry in raw.entries:
            try:
                records.append((entry.index, entry.record()))
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
        # The lot of a record depends on its place in the source alone, so shards and resumed jobs draw the same.
        lot = f"{settings.seed}:{index}"
        for row in form.rows(Labelled(record, ranking, self.conversational, settings.pairs, lot)):
            reason = settings.filters.reason(row, form)
            if reason is None:
                yield row
            else:
                filtered[reason] += 1


def _take(entries: Iterator[Entry], size: int, *, keep: bool) -> tuple[Entry, ...] | int:
    """Take the next records: them, or only their number; what is false ends the reading."""
    taken = islice(entries, size)
    return tuple(taken) if keep else sum(1 for _ in taken)
