"""The commands `rank`, `fuse` and `blend`: records in, one result a record out, in their order."""

import contextlib
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice, tee
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
    usage_text,
    whole,
)
from .output import Tally, check_records, log, report, shows_progress, unread_text

if TYPE_CHECKING:
    from blender_hf.blender import Blender
    from blender_hf.data.records import Record
    from blender_hf.engine.results import Blend, Fusion, Ranking
    from blender_hf.inputs import Item

Result = TypeVar("Result")

EPILOG = """\
Input is one JSON object per line, for example
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}
MixInstruct and the shapes of other datasets are read as they are, from JSON Lines, JSON arrays, CSV, Parquet and Arrow
files, plain or compressed with gzip; see docs/data.md. --columns prompt=frage,candidates=gpt,llama says what is not
certain.
"""
READING = ("truncated", "unread")
WIDTH = 100
PREVIEW = 56


def rank(options: Options) -> None:
    """Rank the candidates of each record."""
    ranking: dict[str, Any] = {"schedule": checked_schedule(options), **_shared(options)}
    _run(options, lambda blender, items: blender.iter_rank(items, **ranking), rank_fields, rank_text)


def fuse(options: Options) -> None:
    """Fuse the candidates of each record."""
    check_fuser(options)
    fusing: dict[str, Any] = {"generation": fusion_generation(options), "window": options.batch_size}
    _run(options, lambda blender, items: blender.iter_fuse(items, **fusing), fuse_fields, fuse_text)


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
    _run(options, lambda blender, items: blender.iter_blend(items, **blending), blend_fields, blend_text)


def _shared(options: Options) -> dict[str, Any]:
    from blender_hf.engine.aggregation import AGGREGATIONS

    chosen(AGGREGATIONS, options.aggregation, "aggregation")
    return {"aggregation": options.aggregation, "window": options.batch_size}


def _run(
    options: Options,
    work: Callable[["Blender", Iterable["Item"]], Iterator[Result]],
    fields: Callable[[Result], dict[str, Any]],
    text: Callable[[Result], str],
) -> None:
    """Check a file whole before a model is loaded; write each line complete, as soon as its result is there."""
    check_records(options)
    from tqdm import tqdm

    from blender_hf.blender import Blender
    from blender_hf.data.columns import Columns
    from blender_hf.data.sources import checked_count, read_records

    columns = Columns(options.columns)

    def read() -> Iterator["Record"]:
        return islice(read_records(options.file, columns), options.limit)

    def shown(record: "Record", result: Result) -> str:
        if options.format == "text":
            return as_text(record, text(result))
        return json.dumps({"id": record.id, "prompt": record.item.source, **fields(result)}, ensure_ascii=False)

    arguments = {**ranker_arguments(options), **_fuser_arguments(options)}
    total = checked_count(options.file, read())
    quieten_libraries()
    blender = Blender.from_pretrained(**arguments)
    if total is not None and not options.quiet:
        _announce_cost(options, blender, read())
    records, for_items = tee(read())
    results = work(blender, (record.item for record in for_items))
    tally = Tally()
    with _opened(options.output) as out, tqdm(total=total, unit="prompt", disable=not shows_progress(options)) as bar:
        # The results come first: they raise what reading the records raises.
        for result, record in zip(results, records, strict=True):
            out.write(shown(record, result) + "\n")
            out.flush()
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


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
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


def rank_fields(ranking: "Ranking") -> dict[str, Any]:
    """Return the fields of `rank` in a JSON line."""
    asked = ("schedule", "n_comparisons", "n_encodings", "flip_rate", "n_cycles")
    names = ("order", "ranks", "scores", "models", *asked, *READING)
    full = ranking.to_dict()
    return {"ranking": {name: full[name] for name in names}, "best": ranking.best}


def fuse_fields(fusion: "Fusion") -> dict[str, Any]:
    """Return the fields of `fuse` in a JSON line."""
    full = fusion.to_dict()
    return {"fused": fusion.text, **{name: full[name] for name in ("fused_from", *READING)}}


def blend_fields(blend: "Blend") -> dict[str, Any]:
    """Return the fields of `blend` in a JSON line."""
    return {
        **rank_fields(blend.ranking),
        "fused": blend.fused,
        "fused_from": list(blend.fused_from),
        "fusion_error": blend.fusion_error,
        "returned": blend.returned,
        "output": blend.output,
    }


def rank_text(ranking: "Ranking") -> str:
    """Return a ranking as a small table, the best candidate first."""
    names = _names(ranking)
    width = max(map(len, names))
    rows = [
        f"  {ranking.ranks[i]:>2}  {ranking.scores[i]:+z6.2f}  {names[i]:<{width}}  {_preview(ranking.candidates[i])}"
        for i in ranking.order
    ]
    return "\n".join([f"rank  score  {'model':<{width}}  answer", *rows])


def fuse_text(fusion: "Fusion") -> str:
    """Return a fused answer under its sources."""
    sources = ", ".join(f"candidate {index}" for index in fusion.fused_from)
    return f"Fused from {sources}:\n{_indented(fusion.text)}"


def blend_text(blend: "Blend") -> str:
    """Return a ranking, what became of the fusion, and the answer."""
    return f"{rank_text(blend.ranking)}\n\n{_verdict(blend)}:\n{_indented(blend.output)}"


def _verdict(blend: "Blend") -> str:
    if blend.comparison is None:
        why = blend.fusion_error or "there are not two different candidates to fuse"
        return f"Returned: the best candidate ({why})"
    names = _names(blend.ranking)
    sources = ", ".join(names[index] for index in blend.fused_from)
    chance = f"{blend.comparison.probability:.0%} against the best candidate"
    if blend.returned == "fused":
        return f"Returned: the text fused from {sources} ({chance})"
    return f"Returned: the best candidate (the text fused from {sources} has {chance})"


def as_text(record: "Record", body: str) -> str:
    """Return a text about a record under its name and prompt."""
    title = f"== {record.id} "
    return f"{title:=<{WIDTH}}\n{_wrapped(record.item.source)}\n\n{body}\n"


def _names(ranking: "Ranking") -> list[str]:
    return [model or f"candidate {index}" for index, model in enumerate(ranking.models)]


def _preview(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), PREVIEW, placeholder=" ...") if text.strip() else "(empty)"


def _wrapped(text: str) -> str:
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""])


def _indented(text: str) -> str:
    return textwrap.indent(_wrapped(text), "    ", lambda line: True)


IO_OPTIONS = (
    *RECORD_OPTIONS,
    option("--format", "JSON Lines or human-readable", choices=("jsonl", "text"), default="jsonl"),
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
