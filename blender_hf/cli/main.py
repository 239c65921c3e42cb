"""The command `blender-hf`: data on stdout, talk on stderr, an exit code for the shell."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence

import blender_hf
from blender_hf.errors import BlenderError

from . import annotating, conversion, evaluation, exporting, generating, labelling, publishing, ranking, training

# Each has `add`, which adds its parser and says what runs it. They import what is slow only when they run.
COMMANDS = (ranking, evaluation, conversion, publishing, exporting, generating, annotating, labelling, training)

# A full disk, a quota, the largest file: what a user can make room for.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, or None for those of the process.

    Returns:
        0 if all went well, 2 for a user's error or a full disk, 130 when interrupted, 141 when the reader of the output
        has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the files that are written, whatever the locale says
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
        _drop_stdout()
        return 141
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _say_no_room(error, options)
        return 2
    return 0


def _say_no_room(error: OSError, options: argparse.Namespace) -> None:
    where = error.filename2 or error.filename or getattr(options, "output", None) or "stdout"
    sys.stderr.write(f"blender-hf: error: can't write {where}: {error.strerror}; make room, and run it again\n")
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()


def _drop_stdout() -> None:
    # Python flushes stdout once more when it ends, and would complain about what can't be written.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
