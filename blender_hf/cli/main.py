"""The command `blender-hf`: data on stdout, talk on stderr, an exit code for the shell."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import blender_hf
from blender_hf.errors import BlenderError

from .exporting import add_export
from .publishing import add_push

EPILOG = """\
Input is one JSON object a line, for example
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}
"messages" (chat) may stand instead of "prompt"; records of MixInstruct are read as they are.
"""

RANK_ABOUT = "Rank the candidates of each prompt, the best first, by comparing pairs of them."
FUSE_ABOUT = "Write one answer from all candidates of each prompt, which stand the best first."
BLEND_ABOUT = """Rank the candidates of each prompt, fuse the best, and return the fused text if the ranker prefers it
to the best candidate, else the best candidate."""
CONVERT_ABOUT = """Write a ranker in our format, from any format that is read: llm-blender/PairRM-hf, PairRM and
pair-ranker, mightbe/Better-PairRM, and our own. What is written states its lengths and carries its code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, or None for those of the process.

    Returns:
        0 if all went well, 2 for a user's error, 130 when interrupted, 141 when the reader of the output has gone.
    """
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except BlenderError as error:
        sys.stderr.write(f"blender-hf: error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("blender-hf: interrupted; the lines that were written are complete\n")
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain about the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _run(options: argparse.Namespace) -> None:
    # These load torch and transformers, for which `--help` need not wait.
    if options.command == "convert":
        from .conversion import run
    elif options.command == "export":
        from .exporting import run
    elif options.command == "push":
        from .publishing import run
    else:
        from .jobs import run
    run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blender-hf",
        description="Rank the answers of several language models by pairwise comparison, and fuse the best into one.",
        epilog="Example: blender-hf blend answers.jsonl --output blended.jsonl",
    )
    parser.add_argument("--version", action="version", version=f"blender-hf {blender_hf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(commands, "rank", RANK_ABOUT, _io_options, _model_options, _ranking_options, _rank_options)
    _command(commands, "fuse", FUSE_ABOUT, _io_options, _model_options, _fuser_options)
    _command(
        commands, "blend", BLEND_ABOUT, _io_options, _model_options, _ranking_options, _fuser_options, _blend_options
    )
    _convert_command(commands)
    add_push(commands)
    add_export(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    *groups: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser(
        name,
        help=about.split(",")[0].rstrip("."),
        description=" ".join(about.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for add_options in groups:
        add_options(parser)


def _convert_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="Write a ranker in our format",
        description=" ".join(CONVERT_ABOUT.split()),
        epilog="Example: blender-hf convert llm-blender/PairRM-hf pair-rm --dtype float16",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="Hub id or folder of the ranker")
    parser.add_argument("output", metavar="OUTPUT", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    parser.add_argument("--dtype", help="precision of what is written: float32, bfloat16 or float16 (default: float32)")
    parser.add_argument("--revision", help="branch, tag or commit of the source")
    for name, what in (("pair", "a pair"), ("source", "the prompt"), ("candidate", "a candidate")):
        parser.add_argument(
            f"--max-{name}-length", type=_positive, metavar="N", help=f"most tokens of {what} (default: the source's)"
        )
    parser.add_argument(
        "--source-truncation-side",
        choices=("left", "right"),
        help="which end of a long prompt is cut (default: the source's)",
    )
    parser.add_argument("--local-files-only", action="store_true", help="never ask the Hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="let code from a repository run")


def _io_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="JSONL, or .jsonl.gz; stdin if left out")
    parser.add_argument("--output", metavar="OUT", help="where the results go, one a line (default: stdout)")
    parser.add_argument(
        "--format", choices=("jsonl", "text"), default="jsonl", help="JSON lines, or text for people (default: jsonl)"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N records")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranker",
        default="pair-ranker-mini",
        metavar="ID",
        help="Hub id or folder (default: the bundled %(default)s)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the ranker")
    parser.add_argument("--backend", choices=("torch", "onnx"), default="torch", help="what runs the models")
    parser.add_argument("--provider", help="execution provider of ONNX Runtime (default: CPUExecutionProvider)")
    parser.add_argument("--file-name", metavar="FILE", help="the ranker's ONNX file (default: model.onnx)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto (default: float32)")
    parser.add_argument(
        "--batch-size",
        type=_positive,
        default=16,
        metavar="N",
        help="prompts worked on together (default: %(default)s)",
    )
    parser.add_argument(
        "--max-batch-tokens", type=_positive, metavar="N", help="most tokens in a batch of pairs (default: by device)"
    )
    parser.add_argument("--local-files-only", action="store_true", help="never ask the Hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="let code from a repository run")


def _ranking_options(parser: argparse.ArgumentParser) -> None:
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


def _rank_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k", type=_positive, metavar="K", help="how many of the best matter to the schedule (default: its own)"
    )


def _fuser_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fuser",
        default="auto",
        metavar="ID",
        help="Hub id or folder (default: the one that the ranker names, else the bundled gen-fuser-mini)",
    )
    parser.add_argument("--fuser-revision", help="branch, tag or commit of the fuser")
    parser.add_argument(
        "--max-new-tokens", type=_positive, metavar="N", help="longest fused text (default: the model's)"
    )
    parser.add_argument("--num-beams", type=_positive, metavar="N", help="beams of the search (default: the model's)")


def _blend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k", type=_positive, default=3, metavar="K", help="how many of the best are fused (default: %(default)s)"
    )
    parser.add_argument(
        "--no-fallback", dest="fallback", action="store_false", help="return every fused text, better or not"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
