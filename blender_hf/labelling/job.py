"""A label job: from a source to a file of preference data, made in parts and resumed where it was killed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from blender_hf.data.jobs import Log, beside, check_settings, open_log, replacing
from blender_hf.data.sources import FileSource, Source
from blender_hf.data.writing import as_line, table_format
from blender_hf.engine.rankers import OwnRanker
from blender_hf.errors import InputError, InputTypeError
from blender_hf.judging.loading import names_judge
from blender_hf.loading.checkpoints import locate

from .parts import Part, PartLog, PartMaker, RawPart, entries_of, raw_parts, usable_record
from .settings import LabelSettings

# Suffixes of the files beside the output: finished parts until the end, bad records with reasons, settings and counts.
PARTS, BAD, ABOUT = ".parts.jsonl", ".bad.jsonl", ".label.json"
REMEDY = "give the same ones to resume it, another --output, or --restart to discard it"
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


def label(
    source: Source,
    output: str | Path,
    settings: LabelSettings,
    *,
    engine: Engine = work_here,
    restart: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Make preference data of all records of a source, or resume where a killed process was.

    Finished parts are kept in `OUTPUT.parts.jsonl`; a killed process loses at most the part it was working on. Then the
    parts become the output, which appears whole, with `OUTPUT.bad.jsonl` if there were bad records, and
    `OUTPUT.label.json`, the settings and counts. A finished job is not done again.

    Args:
        source: The prompts with their candidates.
        output: The file to write: `.jsonl`, `.jsonl.gz` or `.parquet`.
        settings: What is made of the records.
        engine: What makes the parts: `work_here`, or a `ray_engine.RayEngine`.
        restart: Discard what an earlier process did.
        progress: Whether to show a progress bar on stderr.

    Returns:
        What was done: `records`, `rows`, `filtered` (rows that were left out, by reason), `bad` (records that could not
        be used), `unread` (records with text that the ranker could not read), `resumed` (records that were done
        before), `seconds`, `records_per_second`, and names of files.

    Raises:
        InputError: If a record, an option or the output can't be used, or what is there was made with other settings.
        CheckpointError: If the ranker can't be loaded.
    """
    output = Path(output)
    _check_output(output, source)
    started = time.monotonic()
    settings = _pinned(settings)
    wanted = json.loads(json.dumps(settings.fingerprint(source.identity())))
    with open_log(beside(output, PARTS), beside(output, ABOUT)) as log:
        if restart:
            _discard(output)
        finished = _finished(output, log, wanted)
        if finished is not None:
            return _summary(finished, finished["records"], started)
        parts = _begun(log, wanted)
        resumed = parts.totals["records"]
        try:
            conversational = _make_parts(source, settings, log, parts, engine, progress)
            counts = _finish(output, log, parts, settings, conversational)
        finally:
            if log.is_empty:
                log.remove()
    return _summary(counts, resumed, started)


def _begun(log: Log, wanted: dict[str, Any]) -> PartLog:
    """Open the log; parts without settings are left over from a job that was being discarded."""
    log.check(wanted, REMEDY)
    log.begin(wanted, anew="settings" not in log.notes())
    return PartLog(log)


def _make_parts(
    source: Source, settings: LabelSettings, log: Log, parts: PartLog, engine: Engine, progress: bool
) -> bool:
    """Make the parts that are not done, and return whether rows hold chat messages."""
    n_records, conversational = _checked(source, settings, log, progress)
    done = parts.totals["records"]
    if done == n_records:
        return conversational  # killed while it put the parts together: no engine need start
    read = partial(raw_parts, source, settings, parts.done)
    with tqdm(total=n_records, initial=done, unit="prompt", disable=not progress) as bar:
        for part in engine(read, settings, conversational):
            parts.add(part)
            bar.update(part.records)
    return conversational


def _checked(source: Source, settings: LabelSettings, log: Log, progress: bool) -> tuple[int | None, bool]:
    """Return the number of records, and whether rows hold chat messages; a resumed job has noted both.

    A source that can't be read cheaply is not checked ahead, and its number of records is unknown.
    """
    notes = log.notes()
    if "checked" not in notes:
        with tqdm(unit="prompt", desc="checking", leave=False, disable=not (progress and source.local)) as bar:
            n_records = _check_records(source, settings, bar.update) if source.local else None
        notes["checked"] = [n_records, _is_conversational(source, settings)]
        log.note(**notes)
    n_records, conversational = notes["checked"]
    return n_records, conversational


def _check_records(source: Source, settings: LabelSettings, on_record: Callable[[], object]) -> int:
    """Return the number of records, bad ones included."""
    n_records = n_bad = n_references = 0
    first: str | None = None
    for entry in entries_of(source, settings):
        n_records += 1
        try:
            n_references += usable_record(entry, settings).reference is not None
        except (InputError, InputTypeError) as error:
            n_bad += 1
            first = first or str(error)
        on_record()
    source.columns.report(source.title)
    if first is not None and not settings.skip_bad:
        raise InputError(f"{first} ({n_bad} bad in all; correct them, or give --skip-bad to log them and go on)")
    if settings.output_format.needs_reference and n_records > n_bad and not n_references:
        raise InputError(
            f"{source.title}: no record has a reference, the answer that is learned; say which key holds it with "
            "--columns reference=KEY"
        )
    return n_records


def _is_conversational(source: Source, settings: LabelSettings) -> bool:
    """Return whether rows hold chat messages: as set, else as in the first usable record, the same for all shards."""
    if settings.conversational is not None:
        return settings.conversational
    for entry in islice(source.records(), settings.limit):
        with suppress(InputError, InputTypeError):
            item = entry.record().item
            return not isinstance(item.prompt, str) or any(candidate.messages for candidate in item.candidates)
    return False


def _finish(output: Path, log: Log, parts: PartLog, settings: LabelSettings, conversational: bool) -> dict[str, Any]:
    """Put the parts together. Killed between any two steps, the next process does them again."""
    counts = {"output": str(output), "format": settings.form, **parts.totals}
    with replacing(output) as file:
        table_format(output).write(parts.rows, file, settings.output_format.columns, conversational)
    if counts["bad"]:
        counts["bad_file"] = str(beside(output, BAD))
        with replacing(beside(output, BAD)) as file:
            file.writelines(map(as_line, parts.bad()))
    log.note(settings=log.notes()["settings"], summary=counts)
    log.remove()
    return counts


def _finished(output: Path, log: Log, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the counts of a job that was finished before, if this is the same one."""
    about = log.notes()
    if "summary" in about and output.exists():
        check_settings(about["settings"], wanted, output, REMEDY)
        log.remove()  # left by a process that was killed before it did
        return about["summary"]
    if output.exists() and log.is_empty:
        raise InputError(f"{output} exists; give another --output, or --restart to overwrite it")
    return None


def _discard(output: Path) -> None:
    for path in (beside(output, ABOUT), output, beside(output, BAD), beside(output, PARTS)):
        path.unlink(missing_ok=True)


def _pinned(settings: LabelSettings) -> LabelSettings:
    """Name the commit of a ranker on the Hub, so that all workers, and a resumed job, load the same weights."""
    from huggingface_hub import HfApi

    loading = dict(settings.ranking.loading)
    if isinstance(loading.get("ranker"), OwnRanker) or names_judge(loading.get("ranker")):
        return settings
    if Path(locate(settings.ranking.ranker)).is_dir() or loading.get("local_files_only"):
        return settings
    try:
        found = HfApi(token=loading.get("token")).model_info(settings.ranking.ranker, revision=loading.get("revision"))
    # The Hub can't be reached: what is in the cache is used, under the name that was given.
    except Exception:
        return settings
    loading["revision"] = found.sha
    return replace(settings, ranking=replace(settings.ranking, loading=loading))


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
