"""A job: from a source to a file of preference data, done in parts, resumed where it was killed."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from blender_hf.data.sources import FileSource, Source
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import locate

from .checking import check_records, is_conversational, pinned
from .durable import replacing
from .journal import Journal, Part, check_settings, open_journal, total
from .parts import PartMaker, RawPart, raw_parts
from .settings import LabelSettings
from .tables import as_line, table_format

Read = Callable[[], Iterator[RawPart]]
# Makes the parts that `Read` gives, in any order.
Engine = Callable[[Read, LabelSettings, bool], Iterator[Part]]


def work_here(read: Read, settings: LabelSettings, conversational: bool) -> Iterator[Part]:
    """Make parts one after the other in this process, with constant memory."""
    maker = None
    for raw in read():
        # Where all parts are done, the ranker need not be loaded.
        maker = maker or PartMaker(settings, conversational)
        yield maker.make(raw)


@dataclass(frozen=True)
class Places:
    """The files of a job.

    Args:
        output: The rows.
    """

    output: Path

    @property
    def parts(self) -> Path:
        """Folder of what is done so far; gone in the end."""
        return self._beside(".parts")

    @property
    def bad(self) -> Path:
        """Lines that could not be used, with reasons."""
        return self._beside(".bad.jsonl")

    @property
    def about(self) -> Path:
        """Settings and counts of a finished job."""
        return self._beside(".label.json")

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(self.output.name + suffix)


def label(
    source: Source,
    output: str | Path,
    settings: LabelSettings,
    *,
    engine: Engine = work_here,
    restart: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Make preference data of all records of a source, or go on where a killed process was.

    What is done stands in parts in the folder `OUTPUT.parts`; a killed process loses at most the part it was at. Then
    the parts become the output, which appears whole, with `OUTPUT.bad.jsonl` if there were bad records, and
    `OUTPUT.label.json`, the settings and counts. A finished job is not done again.

    Args:
        source: The prompts with their candidates.
        output: The file to write: `.jsonl`, `.jsonl.gz` or `.parquet`.
        settings: What is made of the records.
        engine: What makes the parts: `work_here`, or a `ray_engine.RayEngine`.
        restart: Throw away what an earlier process did.
        progress: Whether to show a progress bar on stderr.

    Returns:
        What was done: `records`, `rows`, `filtered` (rows that were left out, by reason), `bad` (records that could not
        be used), `resumed` (records that were done before), `seconds`, `records_per_second`, and names of files.

    Raises:
        InputError: If a record, an option or the output can't be used, or what is there was made otherwise.
        CheckpointError: If the ranker can't be loaded.
    """
    places = Places(Path(output))
    _check_output(places.output, source)
    started = time.monotonic()
    if not Path(locate(settings.judge.ranker)).is_dir():
        settings = pinned(settings)
    wanted = json.loads(json.dumps(settings.fingerprint(source.identity())))
    with open_journal(places.parts) as journal:
        if restart:
            _throw_away(places, journal)
        finished = _finished(places, journal, wanted)
        if finished is not None:
            return _summary(finished, finished["records"], started)
        journal.begin(wanted)
        resumed = total(journal.summaries.values())["records"]
        conversational = is_conversational(source, settings)
        _make_parts(source, settings, conversational, journal, engine, progress)
        counts = _finish(places, journal, settings, conversational, wanted)
    return _summary(counts, resumed, started)


def _make_parts(
    source: Source, settings: LabelSettings, conversational: bool, journal: Journal, engine: Engine, progress: bool
) -> None:
    n_records = _count(source, settings, journal, progress) if source.local else None
    read = partial(raw_parts, source, settings, frozenset(journal.summaries))
    done = total(journal.summaries.values())["records"]
    if done == n_records:
        return  # killed while it put the parts together: no engine need start
    with tqdm(total=n_records, initial=done, unit="prompt", disable=not progress) as bar:
        for part in engine(read, settings, conversational):
            journal.write(part)
            bar.update(part.summary.records)


def _count(source: Source, settings: LabelSettings, journal: Journal, progress: bool) -> int:
    """Check all records and return how many there are; a resumed job was checked before."""
    path = journal.folder / "checked.json"
    if path.exists():
        return json.loads(path.read_bytes())["records"]
    with tqdm(unit="prompt", desc="checking", leave=False, disable=not progress) as bar:
        count = check_records(source, settings, bar.update)
    with replacing(path) as file:
        file.write(json.dumps({"records": count}).encode())
    return count


def _finish(
    places: Places, journal: Journal, settings: LabelSettings, conversational: bool, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Put the parts together. Killed between any two steps, the next process does them again."""
    form = settings.output_format
    counts = {"output": str(places.output), "format": settings.form, **total(journal.summaries.values())}
    with replacing(places.output) as file:
        table_format(places.output).write(journal.lines(), file, form.columns, conversational)
    if counts["bad"]:
        with replacing(places.bad) as file:
            file.writelines(as_line(line) for line in journal.bad())
        counts["bad_file"] = str(places.bad)
    with replacing(places.about) as file:
        file.write(json.dumps({"settings": wanted, "summary": counts}, indent=1, ensure_ascii=False).encode())
    journal.remove()
    return counts


def _finished(places: Places, journal: Journal, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the counts of a job that was finished before, if this is the same one."""
    if places.about.exists() and places.output.exists():
        about = json.loads(places.about.read_bytes())
        check_settings(about["settings"], wanted, str(places.output))
        journal.clear()  # of a process that was killed while it threw its parts away
        return about["summary"]
    if places.output.exists() and not journal.has_parts():
        raise InputError(f"{places.output} exists; give another --output, or --restart to overwrite it")
    return None


def _throw_away(places: Places, journal: Journal) -> None:
    for path in (places.about, places.output, places.bad):
        path.unlink(missing_ok=True)
    journal.clear()


def _summary(counts: dict[str, Any], resumed: int, started: float) -> dict[str, Any]:
    seconds = time.monotonic() - started
    fresh = counts["records"] - resumed
    return {
        **counts,
        "resumed": resumed,
        "seconds": round(seconds, 2),
        "records_per_second": round(fresh / seconds, 2) if fresh and seconds else None,
    }


def _check_output(output: Path, source: Source) -> None:
    table_format(output)
    if not source.rereadable:
        raise InputError("the input can be read only once, and a job that is resumed reads it again: give a file")
    if isinstance(source, FileSource) and output.exists() and output.samefile(source.path):
        raise InputError(f"{output} is the input itself; write to another file")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InputError(f"can't write {output}: it is a folder, or its folder does not exist")
