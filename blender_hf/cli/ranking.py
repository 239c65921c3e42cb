"""The commands `rank`, `fuse` and `blend`: their options; the work is in `jobs`."""

import argparse
from collections.abc import Callable

from .options import (
    Commands,
    fuser_options,
    fusing_model_options,
    io_options,
    model_options,
    positive,
    ranking_options,
)

EPILOG = """\
Input is one JSON object a line, for example
  {"id": "q1", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]}
"messages" (chat) may stand instead of "prompt"; records of MixInstruct are read as they are.
"""

RANK_HELP = "Rank the candidates of each prompt"
RANK_ABOUT = "Rank the candidates of each prompt, the best first, by comparing pairs of them."
FUSE_HELP = "Write one answer from all candidates of each prompt"
FUSE_ABOUT = "Write one answer from all candidates of each prompt, which stand the best first."
BLEND_HELP = "Rank the candidates of each prompt, fuse the best, and return the better answer"
BLEND_ABOUT = """Rank the candidates of each prompt, fuse the best, and return the fused text if the ranker prefers it
to the best candidate, else the best candidate."""


def add(commands: Commands) -> None:
    """Add the three commands to the command line."""
    ranks = (io_options, model_options, ranking_options)
    _command(commands, "rank", RANK_HELP, RANK_ABOUT, *ranks, _rank_options)
    _command(commands, "fuse", FUSE_HELP, FUSE_ABOUT, io_options, fusing_model_options, fuser_options)
    _command(commands, "blend", BLEND_HELP, BLEND_ABOUT, *ranks, fuser_options, _blend_options)


def run(options: argparse.Namespace) -> None:
    """Do what the command line says; see `jobs.run`."""
    # It loads torch and transformers, for which `--help` need not wait.
    from .jobs import run

    run(options)


def _command(
    commands: Commands,
    name: str,
    line: str,
    about: str,
    *groups: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser(
        name,
        help=line,
        description=" ".join(about.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    for add_options in groups:
        add_options(parser)


def _rank_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k",
        type=positive,
        metavar="K",
        help="how many of the best matter to a schedule that is not full (default: its own)",
    )


def _blend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k", type=positive, default=3, metavar="K", help="how many of the best are fused (default: %(default)s)"
    )
    parser.add_argument(
        "--no-fallback", dest="fallback", action="store_false", help="return every fused text, better or not"
    )
