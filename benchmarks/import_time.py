"""Measure what importing the package, and its command line, cost beyond transformers.

    python -m benchmarks.import_time --save

Each program runs in a process of its own, in turns with the others, after a first turn that fills the caches. The
processor seconds of a process say more than its wall time where other work runs beside it.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median

import torch
import transformers

from benchmarks.judged import parser_of
from benchmarks.tables import Table, publish

TRANSFORMERS = "from transformers import pipeline"
COMMAND = "from blender_hf.cli.main import main; main({arguments!r})"
PROGRAMS = {
    TRANSFORMERS: TRANSFORMERS,
    f"import blender_hf; {TRANSFORMERS}": f"import blender_hf; {TRANSFORMERS}",
    "import blender_hf": "import blender_hf",
    "blender-hf --help": COMMAND.format(arguments=["--help"]),
    "blender-hf rank missing.jsonl": COMMAND.format(arguments=["rank", "missing.jsonl"]),
}
Seconds = tuple[float, float]  # of the processor, and wall time


def main() -> None:
    options = arguments()
    measured = turns_of(PROGRAMS, options.turns)
    base = measured[TRANSFORMERS][0]
    rows = [[f"`{name}`", cpu, wall, cpu / base] for name, (cpu, wall) in measured.items()]
    note = (
        f"Medians of {options.turns} turns; torch {torch.__version__}, transformers {transformers.__version__}. "
        "The ratio is that of processor seconds."
    )
    table = Table({"program": "", "processor s": "seconds", "wall s": "seconds", "ratio": ".2f"}, rows)
    publish(__file__, [table, note], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="how often each program runs")
    return parser.parse_args()


def turns_of(programs: Mapping[str, str], turns: int) -> dict[str, Seconds]:
    """Run all programs in turns; return the medians of each, the first turn left out."""
    found: dict[str, list[Seconds]] = {name: [] for name in programs}
    for turn in range(turns + 1):
        for name, program in programs.items():
            seconds = seconds_of(program)
            if turn:
                found[name].append(seconds)
    return {name: medians(runs) for name, runs in found.items()}


def seconds_of(program: str) -> Seconds:
    """Run a program, which may fail, in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def medians(runs: Sequence[Seconds]) -> Seconds:
    """Return the median of both kinds of seconds."""
    cpu, wall = zip(*runs, strict=True)
    return median(cpu), median(wall)


if __name__ == "__main__":
    main()
