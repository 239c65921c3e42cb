"""Kills real processes at random moments: run by `test_killed`, in an interpreter of its own.

Importing torch takes seconds, so the processes that are killed are forked from this one, which has imported everything
and run nothing: each is a process that loads its ranker and does `blender-hf label`, until SIGKILL.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# What a job imports when it runs is imported here, once.
import pyarrow.parquet  # noqa: F401

import blender_hf.labelling.job
import blender_hf.labelling.publishing  # noqa: F401
from blender_hf.cli.main import main


def started(arguments: list[str], log: Path) -> int:
    """Start a process that runs a command line, and return its id."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os._exit(main(arguments))


def killed(arguments: list[str], log: Path, ready: Callable[[], bool], seconds: float) -> bool:
    """Run a command line, kill it some time after it is ready, and say whether it was still at work."""
    child = started(arguments, log)
    while not ready() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"it failed: {log.read_text()}")
    return os.WIFSIGNALED(status)


def finished(arguments: list[str], log: Path) -> float:
    """Run a command line to its end, and return how long it took."""
    start = time.monotonic()
    _, status = os.waitpid(started(arguments, log), 0)
    if status != 0:
        raise SystemExit(f"it failed: {log.read_text()}")
    return time.monotonic() - start


def n_parts_in(folder: Path) -> int:
    """Return how many parts are done; a job that is at its end removes the folder, at any moment."""
    try:
        return sum(name.endswith(".part") for name in os.listdir(folder))
    except FileNotFoundError:
        return 0


def has_parts(folder: Path, goal: int) -> bool:
    return n_parts_in(folder) >= goal


def kill_until(n_kills: int, folder: Path, command: list[str], suffix: str, seed: int) -> dict[str, object]:
    """Kill jobs until so many kills have struck; each job is then let to its end."""
    rng = random.Random(seed)
    log = folder / "log"
    whole = finished([*command, "--output", str(folder / f"whole{suffix}")], log)
    kills: list[float] = []
    n_parts: list[int] = []
    outputs: list[str] = []
    while len(kills) < n_kills:
        output = folder / f"out{len(outputs)}{suffix}"
        outputs.append(output.name)

        parts = folder / f"{output.name}.parts"
        # Some kills strike while the ranker is loaded, the others after up to three more parts: counted, not timed, so
        # that a slow machine is killed at as many places as a quick one.
        while len(kills) < n_kills:
            more = rng.randrange(4)
            goal = n_parts_in(parts) + more
            moment = rng.uniform(0, 0.05 * whole if more else 0.5 * whole)
            ready = partial(has_parts, parts, goal)
            if not killed([*command, "--output", str(output)], log, ready, moment):
                break
            kills.append(moment)
            n_parts.append(n_parts_in(parts))
        finished([*command, "--output", str(output)], log)
    return {"kills": kills, "parts": n_parts, "outputs": outputs}


if __name__ == "__main__":
    n_kills, folder, suffix, seed, *command = sys.argv[1:]
    found = kill_until(int(n_kills), Path(folder), command, suffix, int(seed))
    sys.stdout.write(json.dumps(found) + "\n")
