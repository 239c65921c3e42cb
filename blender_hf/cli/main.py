"""The command `blender-hf`: results on stdout, logs on stderr, an exit code for the shell."""

import errno
import io
import os
import sys
from collections.abc import Sequence

import blender_hf
from blender_hf.errors import BlenderError

from . import annotate, convert, demo, doctor, evaluate, export, generate, label, push, rank, train
from .output import log
from .parser import Parser, did_you_mean

COMMANDS = (
    rank.RANK,
    rank.FUSE,
    rank.BLEND,
    *(module.COMMAND for module in (evaluate, convert, push, export, generate, annotate, label, train, demo, doctor)),
)
ABOUT = "Rank the answers of several language models by pairwise comparison, and fuse the best into one."
START = f"""\
{ABOUT}

  blender-hf demo                                watch three prompts become blended answers; nothing is downloaded
  blender-hf rank answers.jsonl --format text    which of your answers are the best
  blender-hf blend answers.jsonl --format text   the same, and one answer from the best of them

A line of answers.jsonl is {{"prompt": "2 + 2?", "candidates": ["4", "5"]}}; many other files are read as they are.
`blender-hf generate` lets language models write the candidates.

`blender-hf --help` lists all commands, `blender-hf COMMAND --help` tells of one, and `blender-hf doctor` of what is
installed.
"""

# A full disk, a quota, a file size limit: the user can free space.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, or None for those of the process.

    Returns:
        0 on success, 2 after a user error or on a full disk, 130 when interrupted, 141 when the reader of the output is
        gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # like the files that are written, in every locale
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments:
        sys.stdout.write(START)
        return 0
    reader = parser()
    names = [command.name for command in COMMANDS]
    if not arguments[0].startswith("-") and arguments[0] not in names:
        reader.error(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], names)}")
    options = reader.parse_args(arguments)
    if options.command is None:
        reader.error("there is no command")
    try:
        options.run(options)
    except BlenderError as error:
        log(f"error: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        log("interrupted; the lines written so far are complete")
        return 130
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        where = error.filename2 or error.filename or getattr(options, "output", None) or "stdout"
        log(f"error: can't write {where}: {error.strerror}; free some space and retry")
        _flush_stdout()
        return 2
    return 0


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="blender-hf",
        description=ABOUT,
        epilog="Example: blender-hf blend answers.jsonl --output blended.jsonl",
    )
    parser.add_argument("--version", action="version", version=f"blender-hf {blender_hf.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()


def _discard_stdout() -> None:
    # Python flushes stdout once more at exit, and would report what can't be written.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
