"""The command `blender-hf`: data on stdout, talk on stderr, an exit code for the shell."""

import argparse
import os
import sys
from collections.abc import Sequence

import blender_hf
from blender_hf.errors import BlenderError

from . import annotating, conversion, evaluation, exporting, generating, labelling, publishing, ranking, training

# Each has `add`, which adds its parser and says what runs it. They import what is slow only when they run.
COMMANDS = (ranking, evaluation, conversion, publishing, exporting, generating, annotating, labelling, training)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, or None for those of the process.

    Returns:
        0 if all went well, 2 for a user's error, 130 when interrupted, 141 when the reader of the output has gone.
    """
    options = _parser().parse_args(argv)
    try:
        options.run(options)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blender-hf",
        description="Rank the answers of several language models by pairwise comparison, and fuse the best into one.",
        epilog="Example: blender-hf blend answers.jsonl --output blended.jsonl",
    )
    parser.add_argument("--version", action="version", version=f"blender-hf {blender_hf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser
