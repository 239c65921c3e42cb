"""The command line in processes of their own, without importing torch for each.

They are forked from a server that has imported everything and run nothing: no thread of torch or of the tests is lost
on the way. What concerns the start of a process (its locale, `python -m`) needs a real one.
"""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forking", "blender_hf.blender", "blender_hf.generation.models"])


@dataclass(frozen=True)
class Streams:
    """The files that a process has for its standard streams."""

    stdin: Path = Path(os.devnull)
    stdout: Path = Path(os.devnull)
    stderr: Path = Path(os.devnull)


def started(arguments: list[str], streams: Streams = Streams()) -> BaseProcess:
    """Start a process that runs a command line and exits with its code."""
    process = CONTEXT.Process(target=_run, args=(arguments, streams))
    process.start()
    return process


def finished(arguments: list[str], streams: Streams = Streams()) -> int | None:
    """Run a command line to its end, and return the exit code of its process."""
    process = started(arguments, streams)
    process.join()
    return process.exitcode


def _run(arguments: list[str], streams: Streams) -> None:
    for number, path in enumerate((streams.stdin, streams.stdout, streams.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
    sys.stdin = os.fdopen(0)  # multiprocessing has put another file in its place
    from blender_hf.cli.main import main

    sys.exit(main(arguments))
