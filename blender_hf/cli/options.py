"""Options that several commands share, and the values that they take."""

import argparse
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError

# What `add_subparsers` returns, to which each command adds its own parser; it has no public name.
Commands = argparse._SubParsersAction


def io_options(parser: argparse.ArgumentParser) -> None:
    """Add where records come from and where results go."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="JSONL, or .jsonl.gz; stdin if left out")
    parser.add_argument("--output", metavar="OUT", help="where the results go, one a line (default: stdout)")
    parser.add_argument(
        "--format", choices=("jsonl", "text"), default="jsonl", help="JSON lines, or text for people (default: jsonl)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N records")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout; needs --output")


def model_options(parser: argparse.ArgumentParser) -> None:
    """Add which ranker is used, and how it runs."""
    _running_options(parser, "Hub id or folder of the ranker")
    parser.add_argument(
        "--max-batch-tokens", type=positive, metavar="N", help="most tokens in a batch of pairs (default: by device)"
    )


def fusing_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what fusing needs of `model_options`: of a ranker, that it may name a fuser."""
    _running_options(parser, "Hub id or folder of the ranker, which may name the fuser")


def _running_options(parser: argparse.ArgumentParser, ranker: str) -> None:
    parser.add_argument(
        "--ranker", default="pair-ranker-mini", metavar="ID", help=f"{ranker} (default: the bundled %(default)s)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the ranker")
    parser.add_argument("--backend", choices=("torch", "onnx"), default="torch", help="what runs the models")
    parser.add_argument("--provider", help="execution provider of ONNX Runtime (default: CPUExecutionProvider)")
    parser.add_argument("--file-name", metavar="FILE", help="the ranker's ONNX file (default: model.onnx)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto (default: float32)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=16,
        metavar="N",
        help="prompts worked on together (default: %(default)s)",
    )
    parser.add_argument("--local-files-only", action="store_true", help="never ask the Hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="let code from a repository run")


def ranker_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `model_options` say, as arguments of `Blender.from_pretrained`.

    Raises:
        InputError: If a revision is named of what has none.
    """
    check_revision("--revision", options.revision, options.ranker)
    names = ("ranker", "device", "dtype", "revision", "local_files_only", "trust_remote_code")
    names += ("max_batch_tokens", "backend", "provider", "file_name")
    return {name: getattr(options, name, None) for name in names}


def check_revision(option: str, revision: str | None, name: str) -> None:
    """Refuse the revision of a folder or a bundled checkpoint, which has one state only.

    Raises:
        InputError: If it is such a one.
    """
    from blender_hf.loading.checkpoints import locate

    if revision is not None and Path(locate(name)).is_dir():
        raise InputError(f"{option} {revision}: {name} is on this machine, and has no revisions; leave it out")


def ranking_options(parser: argparse.ArgumentParser) -> None:
    """Add how comparisons are chosen and added up."""
    parser.add_argument(
        "--schedule",
        default="full",
        help="which pairs are compared: full (all), adaptive, knockout or bubble (default: %(default)s)",
    )
    parser.add_argument(
        "--orders",
        default="both",
        help="compare a pair in both orders of presentation, or in one for half the work (default: %(default)s)",
    )
    parser.add_argument(
        "--aggregation",
        default="max_logits",
        help="how comparisons become scores: max_logits, max_wins, bradley_terry or copeland (default: %(default)s)",
    )


def check_top_k(options: argparse.Namespace) -> None:
    """Refuse `--top-k` where all pairs are compared, and it changes nothing.

    Raises:
        InputError: If it is so.
    """
    if options.top_k is not None and options.schedule == "full":
        raise InputError(
            f"--top-k {options.top_k} has no meaning for --schedule full, which compares all pairs; leave it out, or "
            "choose --schedule adaptive, knockout or bubble"
        )


def fuser_options(parser: argparse.ArgumentParser) -> None:
    """Add which fuser is used, and how it writes."""
    parser.add_argument(
        "--fuser",
        default="auto",
        metavar="ID",
        help="Hub id or folder, or chat:MODEL, a language model as in `blender-hf generate --help` (default: the one "
        "that the ranker names, else the bundled gen-fuser-mini)",
    )
    parser.add_argument("--fuser-revision", help="branch, tag or commit of the fuser")
    parser.add_argument(
        "--max-new-tokens", type=positive, metavar="N", help="longest fused text (default: the model's)"
    )
    parser.add_argument("--num-beams", type=positive, metavar="N", help="beams of the search (default: the model's)")


def given_of(group: argparse._ArgumentGroup, options: argparse.Namespace) -> list[str]:
    """Return the options of a group that are not as they are where nothing is said, as they are written."""
    actions = group._group_actions  # argparse has no public name for it
    return [action.option_strings[0] for action in actions if getattr(options, action.dest) != action.default]


def count(text: str) -> int:
    """Read a number of records."""
    return _whole(text, 0, "a number of records, 0 or more")


def seed(text: str) -> int:
    """Read a seed."""
    return _whole(text, 0, "a whole number of 0 or more")


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    return _whole(text, 1, "a whole number of 1 or more")


def _whole(text: str, least: int, what: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)
