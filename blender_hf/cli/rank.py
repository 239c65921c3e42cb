"""The commands `rank`, `fuse` and `blend`: records in, one result a record out, in their order."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from blender_hf.errors import GenerationError, InputError, chosen
from blender_hf.logs import counted, quieten_libraries

from .command import (
    FUSER_OPTIONS,
    LOADING_OPTIONS,
    RANKER_OPTIONS,
    RECORD_OPTIONS,
    SCHEDULE_OPTIONS,
    SCHEDULE_TOP_K,
    Command,
    Options,
    check_fuser,
    check_revision,
    checked_schedule,
    fusion_generation,
    option,
    ranker_arguments,
    record_source,
    usage_text,
    whole,
)
from .output import (
    READABLE,
    Tally,
    check_records,
    log,
    output_format,
    report,
    shows_progress,
    unread_text,
)
from .results import BLENDED, FUSED, RANKED, Presentation, csv_lines

if TYPE_CHECKING:
    from blender_hf.blender import Blender
    from blender_hf.data.records import Record
    from blender_hf.inputs import Item

Result = TypeVar("Result")

EPILOG = """\
Input is one JSON object per line, for example
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}
MixInstruct and the shapes of other datasets are read as they are, from JSON Lines, JSON arrays, CSV, Parquet and Arrow
files, plain or compressed with gzip, from a folder of `datasets`, or from the Hub (org/name); see docs/data.md.
--columns prompt=frage,candidates=gpt,llama says what is not certain.
"""


def rank(options: Options) -> None:
    """Rank the candidates of each record."""
    ranking: dict[str, Any] = {"schedule": checked_schedule(options), **_shared(options)}
    _run(options, lambda blender, items: blender.iter_rank(items, **ranking), RANKED)


def fuse(options: Options) -> None:
    """Fuse the candidates of each record."""
    check_fuser(options)
    fusing: dict[str, Any] = {"generation": fusion_generation(options), "window": options.batch_size}
    _run(options, lambda blender, items: blender.iter_fuse(items, **fusing), FUSED)


def blend(options: Options) -> None:
    """Rank the candidates of each record, fuse the best, and choose the answer."""
    check_fuser(options)
    from blender_hf.engine.schedules import Schedule

    blending: dict[str, Any] = {
        "schedule": Schedule(options.schedule, orders=options.orders),
        **_shared(options),
        "top_k": options.top_k,
        "fallback": options.fallback,
        "generation": fusion_generation(options),
    }
    _run(options, lambda blender, items: blender.iter_blend(items, **blending), BLENDED)


def _shared(options: Options) -> dict[str, Any]:
    from blender_hf.engine.aggregation import AGGREGATIONS

    chosen(AGGREGATIONS, options.aggregation, "aggregation")
    return {"aggregation": options.aggregation, "window": options.batch_size}


def _run(
    options: Options,
    work: Callable[["Blender", Iterable["Item"]], Iterator[Result]],
    shown: Presentation,
) -> None:
    """Check a file whole before a model is loaded; write each line complete, as soon as its result is there."""
    form = output_format(options)
    output = check_records(options, READABLE)
    from tqdm import tqdm

    from blender_hf.blender import Blender
    from blender_hf.data.sources import checked_count, read_records

    source = record_source(options)

    def read() -> Iterator["Record"]:
        return islice(read_records(source), options.limit)

    arguments = {**ranker_arguments(options), **_fuser_arguments(options)}
    total = checked_count(source, read())
    quieten_libraries()
    blender = Blender.from_pretrained(**arguments)
    if total is not None and not options.quiet:
        _announce_cost(options, blender, read())
    records, for_items = tee(read())
    results = work(blender, (record.item for record in for_items))
    tally = Tally()
    bar_off = not shows_progress(options)
    with _written(output, form, shown) as write, tqdm(total=total, unit="prompt", disable=bar_off) as bar:
        # The results come first: they raise what reading the records raises.
        for result, record in zip(results, records, strict=True):
            write(_shown(shown, form, record, result, texts=not options.no_texts))
            tally.counts["prompts"] += 1
            tally.counts["unread"] += _has_unread(result)
            tally.counts["fused"] += getattr(result, "fusion", None) is not None
            if error := getattr(result, "fusion_error", None):
                tally.reasons["fusion"][error] += 1
            bar.update()
    _report(options, tally, blender.scorer)


def _report(options: Options, tally: Tally, scorer: Any) -> None:
    """Log and print the summary; fail if the fuser failed for every prompt."""
    where, prompts = options.output or "stdout", tally.counts["prompts"]
    unread, errors = tally.counts["unread"], tally.reasons["fusion"]
    numbers: dict[str, Any] = {"command": options.command, "prompts": prompts, "unread": unread}
    if options.command == "blend":
        numbers |= {"fused": tally.counts["fused"], "fusion_errors": dict(errors)}
    if (usage := getattr(scorer, "usage", None)) is not None:
        numbers["judge"] = asdict(usage)
    summary = {**numbers, "seconds": tally.seconds, "output": where}
    line = f"{options.command}: {counted(prompts, 'prompt')} in {tally.seconds:.1f} s, to {where}"
    failed = [f"{number} not fused: {error}" for error, number in errors.items()]
    report(options, [] if options.quiet else [line, unread_text(unread), usage_text(scorer), *failed], summary)
    if errors and not tally.counts["fused"]:
        raise GenerationError(
            f"nothing could be fused: {next(iter(errors))}; the best candidates are written all the same, with the "
            "reason as fusion_error"
        )


def _announce_cost(options: Options, blender: "Blender", records: Iterable["Record"]) -> None:
    """Say how many questions a judge will be asked at most, before it is asked any."""
    from blender_hf.engine.schedules import Schedule
    from blender_hf.judging.cost import most_requests
    from blender_hf.judging.loading import Judge

    judge = blender.scorer
    if not isinstance(judge, Judge) or options.command == "fuse":
        return

    schedule = Schedule(options.schedule, options.top_k if options.schedule != "full" else None, options.orders)
    most = most_requests((record.item for record in records), schedule, judge.n_criteria)
    log(f"at most {most} requests to the judge {judge.name}, without those that its cache answers")


def _fuser_arguments(options: Options) -> dict[str, Any]:
    if options.command == "rank":
        return {"fuser": None}
    check_revision("--fuser-revision", options.fuser_revision, options.fuser)
    return {"fuser": options.fuser, "fuser_revision": options.fuser_revision}


def _shown(shown: Presentation, form: str, record: "Record", result: Any, *, texts: bool) -> str:
    if form == "jsonl":
        return shown.as_json(record, result, texts=texts)
    return {"csv": shown.as_csv, "markdown": shown.as_markdown, "text": shown.as_text}[form](record, result)


@contextlib.contextmanager
def _written(output: Path | None, form: str, shown: Presentation) -> Iterator[Callable[[str], object]]:
    """Open the output anew, and yield what writes a line, or what is shown of a result, and waits until it is there."""
    if form == "jsonl":
        from blender_hf.data.jobs import open_log

        with open_log(output) as log:
            log.begin(anew=True)
            yield log.append
        return
    with _opened(output) as out:

        def write(text: str) -> None:
            out.write(text + "\n")
            out.flush()

        if form == "csv":
            # Without the mark, Excel takes UTF-8 for the characters of Windows.
            write("\ufeff" + csv_lines([("id", "prompt", *shown.columns)]))
        yield write


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    from blender_hf.data.files import open_text

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_text(output))
        except OSError as error:
            raise InputError(f"can't write {output}: {error.strerror}") from None
        yield file


def _has_unread(result: object) -> bool:
    parts = (result, getattr(result, "ranking", None), getattr(result, "fusion", None))
    return any(getattr(part, "unread", None) for part in parts)


IO_OPTIONS = (
    *RECORD_OPTIONS,
    option(
        "--format",
        "JSON Lines, or for people a table or text (default: by the name of the output, else jsonl)",
        choices=("jsonl", *READABLE),
    ),
    option("--no-texts", "leave the texts of the candidates out of JSON Lines and Parquet"),
    option("--quiet", "no progress bar and no summary"),
)
RANK = Command(
    name="rank",
    help="Rank the candidates of each prompt",
    about="Rank the candidates of each prompt, best first, by pairwise comparison.",
    options=(*IO_OPTIONS, *RANKER_OPTIONS, *SCHEDULE_OPTIONS, SCHEDULE_TOP_K),
    run=rank,
    epilog=EPILOG,
)
FUSE = Command(
    name="fuse",
    help="Write one answer from all candidates of each prompt",
    about="Write one answer from all candidates of each prompt, which are expected best first.",
    options=(*IO_OPTIONS, *LOADING_OPTIONS, *FUSER_OPTIONS),
    run=fuse,
    epilog=EPILOG,
)
BLEND = Command(
    name="blend",
    help="Rank the candidates of each prompt, fuse the best, and return the better answer",
    about="""Rank the candidates of each prompt, fuse the best, and return the fused text if the ranker prefers it to
    the best candidate, else the best candidate.""",
    options=(
        *IO_OPTIONS,
        *RANKER_OPTIONS,
        *SCHEDULE_OPTIONS,
        *FUSER_OPTIONS,
        option("--top-k K", "top candidates to fuse", type=whole(1), default=3),
        option("--no-fallback", "return even a worse fused text", dest="fallback", action="store_false"),
    ),
    run=blend,
    epilog=EPILOG,
)
