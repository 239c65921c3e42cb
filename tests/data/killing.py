"""Kills real processes at random moments: run by `test_killed`, in an interpreter of its own.

Importing torch takes seconds, so the processes that are killed are forked from this one, which has imported everything
and run nothing: each is a process that loads its model and does its job, until SIGKILL.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

# What a job imports when it runs is imported here, once.
import pyarrow.parquet  # noqa: F401

import blender_hf.generation.annotation
import blender_hf.generation.candidates
import blender_hf.generation.local
import blender_hf.labelling.job
import blender_hf.labelling.publishing  # noqa: F401
from blender_hf.cli.main import main
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.training import distillation
from blender_hf.training.pair_data import training_pairs


def teach(arguments: list[str]) -> int:
    """Let teachers judge the pairs of a file: `DATA TEACHER ... --output OUT`."""
    data, *teachers, _, output = arguments
    distillation.CHUNK = 2
    distillation.distilled(list(training_pairs(read_labelled(data))), teachers, 0.5, Path(output))
    return 0


def run(arguments: list[str]) -> int:
    return teach(arguments[1:]) if arguments[0] == "teach" else main(arguments)


def started(arguments: list[str], log: Path, dies_at: int | None = None) -> int:
    """Start a process that does a job, and return its id; it may kill itself when something reaches the disk."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if dies_at is not None:
        steps = count(1)
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, partial(_step, getattr(os, name), steps, dies_at))
    os._exit(run(arguments))


def _step(
    real: Callable[..., object], steps: "count[int]", dies_at: int, *arguments: object, **options: object
) -> object:
    """Do a step, and die before it or after it, if it is its turn."""
    if next(steps) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    found = real(*arguments, **options)
    if next(steps) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def killed(child: int, log: Path, ready: Callable[[], bool] | None = None, seconds: float = 0) -> bool:
    """Kill a process some time after it is ready, or wait for its suicide, and say whether it was still at work."""
    if ready is not None:
        while not ready() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"it failed: {log.read_text()}")
    return os.WIFSIGNALED(status)


def finished(arguments: list[str], log: Path) -> float:
    """Do a job to its end, and return how long it took."""
    start = time.monotonic()
    _, status = os.waitpid(started(arguments, log), 0)
    if status != 0:
        raise SystemExit(f"it failed: {log.read_text()}")
    return time.monotonic() - start


def n_lines(results: Path) -> int:
    """Return how many lines are done; a job that is at its end may remove the file, at any moment."""
    try:
        return results.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def has_lines(results: Path, goal: int) -> bool:
    return n_lines(results) >= goal


def tear(results: Path, rng: random.Random) -> None:
    """Leave of the last line what a process leaves that is killed while it writes it."""
    if results.exists() and (lines := results.read_bytes().splitlines(keepends=True)):
        lines[-1] = lines[-1][: rng.randrange(len(lines[-1]))]
        results.write_bytes(b"".join(lines))


def kill_until(n_kills: int, folder: Path, command: list[str], suffix: str, log_suffix: str) -> dict[str, object]:
    """Kill jobs until so many kills have struck; each job is then let to its end."""
    rng = random.Random(7)
    log = folder / "log"
    whole = finished([*command, "--output", str(folder / f"whole{suffix}")], log)
    kills = 0
    lines: list[int] = []
    outputs: list[str] = []
    while kills < n_kills:
        output = folder / f"out{len(outputs)}{suffix}"
        outputs.append(output.name)
        arguments = [*command, "--output", str(output)]
        results = folder / f"{output.name}{log_suffix}"
        while kills < n_kills:
            if rng.random() < 0.5:
                # Before or after a step that reaches the disk; a line whose turn it was may be torn.
                struck = killed(started(arguments, log, dies_at=rng.randrange(1, 24)), log)
                if struck and rng.random() < 0.5:
                    tear(results, rng)
            else:
                # While the model is loaded, or after up to three more lines: counted, not timed, so that a slow machine
                # is killed at as many places as a quick one.
                more = rng.randrange(4)
                ready = partial(has_lines, results, n_lines(results) + more)
                moment = rng.uniform(0, 0.05 * whole if more else 0.5 * whole)
                struck = killed(started(arguments, log), log, ready, moment)
            if not struck:
                break
            kills += 1
            lines.append(n_lines(results))
        finished(arguments, log)
    return {"kills": kills, "lines": lines, "outputs": outputs}


if __name__ == "__main__":
    n_kills, folder, suffix, log_suffix, *command = sys.argv[1:]
    found = kill_until(int(n_kills), Path(folder), command, suffix, log_suffix)
    sys.stdout.write(json.dumps(found) + "\n")
