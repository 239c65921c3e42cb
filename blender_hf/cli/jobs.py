"""The work of `rank`, `fuse` and `blend`: records in, one result a record out, in their order."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from typing import Any, TextIO

from tqdm import tqdm

from blender_hf.blender import Blender
from blender_hf.data.records import Record
from blender_hf.data.sources import checked_count, read_records
from blender_hf.engine.schedules import Schedule
from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.logs import quieten_libraries

from . import rendering
from .appending import checked_output
from .options import check_revision, check_top_k, ranker_arguments


@dataclass(frozen=True)
class Job:
    """What a command does with records.

    Args:
        run: Makes an iterator of results from a blender and items.
        to_fields: A result as the fields of a JSON object.
        to_text: A result for people.
    """

    run: Callable[[Blender, Iterable[Item]], Iterator[Any]]
    to_fields: Callable[[Any], dict[str, Any]]
    to_text: Callable[[Any], str]


def job_of(options: argparse.Namespace) -> Job:
    """Return the job that the options of the command line ask for."""
    window = {"window": options.batch_size}
    if options.command == "rank":
        check_top_k(options)
        schedule = Schedule(options.schedule, options.top_k, options.orders)
        ranking = {"schedule": schedule, "aggregation": options.aggregation, **window}
        return Job(partial(_call, "iter_rank", ranking), rendering.rank_fields, rendering.rank_text)
    generation = {name: getattr(options, name) for name in ("max_new_tokens", "num_beams")}
    writing = {"generation": {name: value for name, value in generation.items() if value is not None}, **window}
    if options.command == "fuse":
        return Job(partial(_call, "iter_fuse", writing), rendering.fuse_fields, rendering.fuse_text)
    schedule = Schedule(options.schedule, orders=options.orders)
    ranking = {"schedule": schedule, "aggregation": options.aggregation}
    blending = {**ranking, "top_k": options.top_k, "fallback": options.fallback, **writing}
    return Job(partial(_call, "iter_blend", blending), rendering.blend_fields, rendering.blend_text)


def run(options: argparse.Namespace) -> None:
    """Do the job of a command line.

    A file is checked whole before a model is loaded. Each line is written when its result is there, and complete.

    Raises:
        BlenderError: If the input, an option or a checkpoint can't be used.
    """
    checked_output(options)
    job, arguments = job_of(options), _model_arguments(options)
    total = checked_count(options.file, _records(options))
    quieten_libraries()
    blender = Blender.from_pretrained(**arguments)
    records, for_items = tee(_records(options))
    results = job.run(blender, (record.item for record in for_items))
    start, count = time.monotonic(), 0
    with _output(options) as out, tqdm(total=total, unit="prompt", disable=options.quiet) as bar:
        # The results come first: they raise what reading the records raises.
        for count, (result, record) in enumerate(zip(results, records, strict=True), 1):  # noqa: B007 (used below)
            out.write(_line(record, result, job, options.format) + "\n")
            out.flush()
            bar.update()
    _summarise(options, count, time.monotonic() - start)


def _summarise(options: argparse.Namespace, n_prompts: int, seconds: float) -> None:
    """Say how much was done: a line on stderr, and with `--json` an object on stdout."""
    where = options.output or "stdout"
    if not options.quiet:
        sys.stderr.write(f"blender-hf: {options.command}: {n_prompts} prompts in {seconds:.1f} s, to {where}\n")
    if options.json:
        summary = {"command": options.command, "prompts": n_prompts, "seconds": round(seconds, 3), "output": where}
        sys.stdout.write(json.dumps(summary) + "\n")


def _call(method: str, settings: dict[str, Any], blender: Blender, items: Iterable[Item]) -> Iterator[Any]:
    return getattr(blender, method)(items, **settings)


def _records(options: argparse.Namespace) -> Iterator[Record]:
    return islice(read_records(options.file), options.limit)


def _model_arguments(options: argparse.Namespace) -> dict[str, Any]:
    if options.command == "rank":
        return {**ranker_arguments(options), "fuser": None}
    check_revision("--fuser-revision", options.fuser_revision, options.fuser)
    return {**ranker_arguments(options), "fuser": options.fuser, "fuser_revision": options.fuser_revision}


def _line(record: Record, result: Any, job: Job, form: str) -> str:
    if form == "text":
        return rendering.as_text(record, job.to_text(result))
    return rendering.as_json_line(record, job.to_fields(result))


@contextlib.contextmanager
def _output(options: argparse.Namespace) -> Iterator[TextIO]:
    if options.output is None:
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(options.output, "w", encoding="utf-8"))
        except OSError as error:
            raise InputError(f"can't write {options.output}: {error.strerror}") from None
        yield file
