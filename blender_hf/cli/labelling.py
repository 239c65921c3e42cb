"""The command `label`: preference data from prompts with candidates, in a job that survives being killed."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from blender_hf.errors import InputError
from blender_hf.logs import quieten_libraries

from .options import Commands, check_top_k, count, model_options, positive, ranker_arguments, ranking_options

ABOUT = """Make preference data by ranking the candidates of each prompt: pairs for DPO, labels for KTO, probabilities
for SPPO, rankings or rewards. Run the same command again after an interruption of any kind, and it goes on where it
was; a line that can't be used stops it before the work begins."""
EPILOG = """\
The records are those of `blender-hf rank`, in JSONL (.gz), Parquet, a folder of `datasets` or on the Hub:
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}

Examples:
  blender-hf label answers.jsonl --output dpo.parquet --min-probability 0.7 --drop-flips
  blender-hf label org/answers --split train --format kto --output kto.jsonl --engine ray --workers 8
  blender-hf label answers.parquet --output part3.parquet --shard 3/16 --push-to-hub org/preferences
"""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "label",
        help="Make preference data from prompts with candidates",
        description=" ".join(ABOUT.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help="JSONL, .jsonl.gz, .parquet, a folder of datasets, or a Hub id")
    parser.add_argument("--output", required=True, metavar="OUT", help="a .jsonl, .jsonl.gz or .parquet file")
    _data_options(parser)
    _row_options(parser)
    _work_options(parser)
    _hub_options(parser)
    model_options(parser)
    ranking_options(parser)
    parser.add_argument(
        "--top-k",
        type=positive,
        metavar="K",
        help="how many of the best matter to a schedule that is not full (default: its own)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do the job that the command line describes.

    Raises:
        BlenderError: If the data, an option, the output or a checkpoint can't be used, or the Hub refuses.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from pathlib import Path

    from blender_hf.data.sources import open_source
    from blender_hf.export.hub import check_repo_id
    from blender_hf.labelling.job import label
    from blender_hf.labelling.publishing import publish

    quieten_libraries()
    if options.push_to_hub is not None:
        check_repo_id(options.push_to_hub)
    elif unused := [name for name in ("private", "token") if getattr(options, name)]:
        raise InputError(f"--{unused[0]} is for --push-to-hub")
    settings, engine = _settings(options), _engine(options)
    source = open_source(options.data, subset=options.subset, split=options.split, revision=options.dataset_revision)
    summary = label(
        source, options.output, settings, engine=engine, restart=options.restart, progress=not options.quiet
    )
    if options.push_to_hub is not None:
        private = True if options.private else None
        summary["url"] = publish(
            Path(options.output), options.push_to_hub, settings, private=private, token=options.token
        )
    if options.json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
    sys.stderr.write(f"blender-hf: {_told(summary)}\n")


def shard(text: str) -> tuple[int, int]:
    """Read which share of how many: "3/16"."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; write the first of four as 1/4 and the last as 4/4")
    return int(number), int(of)


def _data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--split", help="split of a data set (default: the only one)")
    group.add_argument("--subset", help="configuration of a data set on the Hub")
    group.add_argument("--dataset-revision", metavar="REVISION", help="branch, tag or commit of a data set on the Hub")
    group.add_argument("--limit", type=count, metavar="N", help="only the first N records")
    group.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="only every N-th record, from the I-th: one of N processes that share the work",
    )
    group.add_argument(
        "--skip-bad", action="store_true", help="log lines that can't be used to OUT.bad.jsonl and go on without them"
    )


def _row_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rows")
    group.add_argument("--format", default="dpo", help="dpo, kto, sppo, rankings or rewards (default: %(default)s)")
    group.add_argument(
        "--pairs",
        help="pairs of dpo: best-worst, best-random or all (default: best-worst)",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what is drawn by lot (default: %(default)s)"
    )
    group.add_argument("--min-margin", type=float, metavar="X", help="least logit by which the better one wins")
    group.add_argument("--min-probability", type=float, metavar="P", help="least probability that it is better")
    group.add_argument("--no-ties", action="store_true", help="no rows without a winner, in any format")
    group.add_argument(
        "--drop-flips", action="store_true", help="no rows whose winner changes with the order of presentation"
    )
    group.add_argument(
        "--min-candidates", type=positive, metavar="N", help="least number of different candidates of a prompt"
    )


def _work_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("work")
    group.add_argument("--restart", action="store_true", help="throw away what an earlier process did")
    group.add_argument(
        "--part-size",
        type=positive,
        default=64,
        metavar="N",
        help="prompts that are kept together: a killed process does at most N again (default: %(default)s)",
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or a Ray cluster: that of RAY_ADDRESS, or one of this machine (default: %(default)s)",
    )
    group.add_argument("--workers", type=positive, metavar="N", help="actors of a Ray cluster (default: 1)")
    group.add_argument("--gpus-per-worker", type=float, metavar="X", help="GPUs of an actor, or its share (default: 0)")
    group.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def _hub_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("publishing")
    group.add_argument("--push-to-hub", metavar="ID", help="upload the output to this data set, org/name")
    group.add_argument("--private", action="store_true", help="make a new data set private")
    group.add_argument("--token", help="a token that may write (default: that of `hf auth login`)")


def _settings(options: argparse.Namespace) -> Any:
    from blender_hf.engine.schedules import Schedule
    from blender_hf.labelling.filters import Filters
    from blender_hf.labelling.settings import JudgeSettings, LabelSettings, Shard

    check_top_k(options)
    if options.pairs is not None and options.format != "dpo":
        raise InputError(f"--pairs is for --format dpo, not {options.format}; leave it out")
    return LabelSettings(
        judge=JudgeSettings(
            ranker_arguments(options),
            Schedule(options.schedule, options.top_k, options.orders),
            options.aggregation,
            options.batch_size,
        ),
        form=options.format,
        **({} if options.pairs is None else {"pairs": options.pairs}),
        seed=options.seed,
        filters=Filters(
            options.min_margin, options.min_probability, options.no_ties, options.drop_flips, options.min_candidates
        ),
        skip_bad=options.skip_bad,
        shard=Shard(*options.shard),
        limit=options.limit,
        part_size=options.part_size,
    )


def _engine(options: argparse.Namespace) -> Any:
    if options.engine == "ray":
        from blender_hf.labelling.ray_engine import RayEngine

        return RayEngine(options.workers or 1, options.gpus_per_worker or 0)
    from blender_hf.labelling.job import work_here

    for name in ("workers", "gpus_per_worker"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is for --engine ray")
    return work_here


def _told(summary: Mapping[str, Any]) -> str:
    """Return the summary in one line for people."""
    left_out = ", ".join(f"{number} {reason}" for reason, number in summary["filtered"].items())
    parts = [
        f"{summary['rows']} rows of {summary['records']} prompts in {summary['output']}",
        f"left out: {left_out}" if left_out else "",
        f"{summary['bad']} bad lines in {summary['bad_file']}" if summary["bad"] else "",
        f"{summary['resumed']} prompts were done before" if summary["resumed"] else "",
        f"{summary['records_per_second']} prompts a second" if summary["records_per_second"] else "",
        summary.get("url", ""),
    ]
    return "; ".join(part for part in parts if part)
