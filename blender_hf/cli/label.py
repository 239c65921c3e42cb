"""The command `label`: preference data from prompts with candidates, in a job that survives being killed."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blender_hf.errors import InputError
from blender_hf.logs import counted, quieten_libraries

from .command import (
    COLUMNS,
    DATASET_OPTIONS,
    LIMIT,
    QUIET,
    RANKER_OPTIONS,
    SCHEDULE_OPTIONS,
    SCHEDULE_TOP_K,
    Command,
    Options,
    checked_schedule,
    grouped,
    option,
    ranker_arguments,
    record_source,
    whole,
)
from .output import allows_progress, report, unread_text

if TYPE_CHECKING:
    from blender_hf.labelling.settings import LabelSettings


def run(options: Options) -> None:
    """Label the data, and upload the result if asked to."""
    _check(options)
    from blender_hf.export.hub import check_repo_id
    from blender_hf.labelling.job import label, work_here
    from blender_hf.labelling.publishing import publish
    from blender_hf.labelling.ray_engine import RayEngine

    quieten_libraries()
    if options.push_to_hub is not None:
        check_repo_id(options.push_to_hub)
    engine = work_here if options.engine == "local" else RayEngine(options.workers or 1, options.gpus_per_worker or 0)
    settings = _settings(options)
    source = record_source(options)
    summary = label(
        source, options.output, settings, engine=engine, restart=options.restart, progress=allows_progress(options)
    )
    if options.push_to_hub is not None:
        private = True if options.private else None
        summary["url"] = publish(
            Path(options.output), options.push_to_hub, settings, private=private, token=options.token
        )
    report(options, _parts(summary), summary)


def _check(options: Options) -> None:
    """Reject options that would change nothing, and data that can't be found, before any library is imported."""
    from blender_hf.data.files import check_source

    check_source(options.data)
    checked_schedule(options)
    if options.push_to_hub is None and (unused := [name for name in ("private", "token") if getattr(options, name)]):
        raise InputError(f"--{unused[0]} is for --push-to-hub")
    if options.pairs is not None and options.format != "dpo":
        raise InputError(f"--pairs is for --format dpo, not {options.format}; remove it")
    if options.max_candidates is not None and options.format != "sft":
        raise InputError(f"--max-candidates is for --format sft, not {options.format}; remove it")
    if options.engine != "ray":
        for name in ("workers", "gpus_per_worker"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is for --engine ray")


def shard(text: str) -> tuple[int, int]:
    """Read a shard such as "3/16"."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard; write the first of four as 1/4 and the last as 4/4")
    return int(number), int(of)


def _settings(options: Options) -> "LabelSettings":
    from blender_hf.labelling.filters import Filters
    from blender_hf.labelling.settings import LabelSettings, RankingSettings, Shard

    return LabelSettings(
        ranking=RankingSettings(
            ranker_arguments(options), checked_schedule(options), options.aggregation, options.batch_size
        ),
        form=options.format,
        **{name: value for name in ("pairs", "max_candidates") if (value := getattr(options, name)) is not None},
        seed=options.seed,
        filters=Filters(
            options.min_margin, options.min_probability, options.no_ties, options.drop_flips, options.min_candidates
        ),
        skip_bad=options.skip_bad,
        shard=Shard(*options.shard),
        limit=options.limit,
        part_size=options.part_size,
    )


def _parts(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary for the logs."""
    from blender_hf.judging.records import Usage

    left_out = ", ".join(f"{number} {reason}" for reason, number in summary["filtered"].items())
    return [
        f"{counted(summary['rows'], 'row')} of {counted(summary['records'], 'prompt')} in {summary['output']}",
        f"left out: {left_out}" if left_out else "",
        f"{counted(summary['bad'], 'bad line')} in {summary['bad_file']}" if summary["bad"] else "",
        unread_text(summary["unread"]),
        str(Usage(**summary["judge"])) if "judge" in summary else "",
        f"{summary['resumed']} done before" if summary["resumed"] else "",
        f"{summary['records_per_second']} prompts a second" if summary["records_per_second"] else "",
        summary.get("url", ""),
    ]


COMMAND = Command(
    name="label",
    help="Make preference data from prompts with candidates",
    about="""Make preference data by ranking the candidates of each prompt: pairs for DPO, labels for KTO, probabilities
    for SPPO, rankings or rewards, or what a fuser reads and should write for SFT. After an interruption of any kind,
    run the same command again to resume; an invalid line stops it before any work.""",
    options=(
        option("data", "a file as of `rank`, a folder of datasets, or a Hub id", metavar="DATA"),
        option("--output OUT", "a .jsonl, .jsonl.gz or .parquet file", required=True),
        *grouped(
            "data",
            *DATASET_OPTIONS,
            COLUMNS,
            LIMIT,
            option(
                "--shard I/N",
                "only every N-th record, starting at the I-th, so that N processes share the work (default: all)",
                type=shard,
                default=(1, 1),
            ),
            option("--skip-bad", "skip invalid lines, and write them to OUT.bad.jsonl"),
        ),
        *grouped(
            "rows",
            option("--format FORMAT", "dpo, kto, sft, sppo, rankings or rewards", default="dpo"),
            option("--pairs PAIRS", "pairs of dpo: best-worst, best-random or all (default: best-worst)"),
            option(
                "--max-candidates N", "how many of the best candidates a prompt of sft has (default: 3)", type=whole(1)
            ),
            option("--seed N", "random seed (default: 0)", type=int, default=0),
            option("--min-margin X", "minimum logit by which the chosen answer wins", type=float),
            option("--min-probability P", "minimum probability that it is better", type=float),
            option("--no-ties", "drop rows without a winner, in any format"),
            option("--drop-flips", "drop rows whose winner depends on the presentation order"),
            option("--min-candidates N", "minimum number of distinct candidates per prompt", type=whole(1)),
        ),
        *grouped(
            "work",
            option("--restart", "discard the progress of earlier processes"),
            option("--part-size N", "prompts saved together, and repeated after a kill", type=whole(1), default=64),
            option(
                "--engine",
                "this process, or a Ray cluster: at RAY_ADDRESS, or on this machine",
                choices=("local", "ray"),
                default="local",
            ),
            option("--workers N", "number of Ray actors (default: 1)", type=whole(1)),
            option("--gpus-per-worker X", "GPUs, or a share, per actor (default: 0)", type=float),
            option("--json", "print the summary as JSON on stdout"),
            QUIET,
        ),
        *grouped(
            "publishing",
            option("--push-to-hub ID", "upload the output to this dataset, org/name"),
            option("--private", "make a new dataset private"),
            option("--token TOKEN", "token with write access (default: that of `hf auth login`)"),
        ),
        *RANKER_OPTIONS,
        *SCHEDULE_OPTIONS,
        SCHEDULE_TOP_K,
    ),
    run=run,
    epilog="""\
Records are those of `blender-hf rank`, in its formats, a folder of `datasets` or on the Hub:
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}

Examples:
  blender-hf label answers.jsonl --output dpo.parquet --min-probability 0.7 --drop-flips
  blender-hf label org/answers --split train --format kto --output kto.jsonl --engine ray --workers 8
  blender-hf label answers.parquet --output part3.parquet --shard 3/16 --push-to-hub org/preferences
""",
)
