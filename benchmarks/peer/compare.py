"""Compare this package with the official llm-blender 0.0.2, on the same weights and texts, in one run.

    make bench-peer          # once: the official package in an environment of its own, .venv-peer
    .venv-5/bin/python -m benchmarks.peer.compare --save

Both read the same checkpoint: a DeBERTa-v3 of two shapes with random weights, in the authors' format. Each setting runs
in a separate process with its own peak memory; the others wait while one of them is measured, and repetitions go round
all settings in turn. Metrics are medians, and ratios are those of medians.

Settings that would not fit into `--minutes` are skipped and named; `--minutes 240` skips few of them on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import EXAMPLES, SHAPES, Shape, make_job, read_records, save_checkpoint, texts_of
from benchmarks.judged import parser_of
from benchmarks.peer.client import Worker, WorkerError
from benchmarks.peer.products import model_flops
from benchmarks.peer.report import Cell, Part, part_sections, report
from benchmarks.peer.settings import DTYPES, REFERENCE, SETTINGS, Setting
from benchmarks.tables import ROOT, markdown_of, processor, publish
from blender_hf.loading.checkpoints import DEFAULT_RANKER

WORKERS = {"peer": "benchmarks.peer.peer_worker", "ours": "benchmarks.peer.our_worker"}
PEER_PYTHON = ROOT / ".venv-peer" / "bin" / "python"
# A single measurement may take this share of the remaining time of a part.
MAX_SHARE = 0.35
# Batch shapes at which bare products are measured.
N_SHAPES = 3
# Short texts for the agreement of top-1, to afford many prompts.
AGREEMENT_WORDS = (10, 60)
WARM_UP = {"prompts": ["Which is better?"], "candidates": [["This one is good.", "That one is not so good."]]}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        peer = peer_versions(options.peer_python)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no llm-blender: {error}; run `make bench-peer`, or give --peer-python", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder), read_records(options.data))
        parts = bench.measure(end)
        agreement = bench.trained_agreement()
    sections, details = report(parts, agreement, machine(options, peer))
    publish(__file__, sections, options, variant=variant_of(options), details=details)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="about how long the comparison takes")
    parser.add_argument("--quick", action="store_true", help="3 minutes, for 2 and 3 candidates")
    parser.add_argument("--candidates", type=int, nargs="+", default=[2, 3, 5, 10, 8], help="numbers, in this order")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="of the encoder")
    parser.add_argument(
        "--devices", nargs="+", choices=("cpu", "cuda"), help="the CPU, and a GPU if there is one, by default"
    )
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="not all are fast on every CPU")
    parser.add_argument("--prompts", type=int, default=8, help="in one call; the peer's default batch has 8")
    parser.add_argument("--words", type=int, nargs=2, default=[15, 300], help="about the shortest and longest answers")
    parser.add_argument("--repetitions", type=int, default=3, help="at most; fewer if time runs out")
    parser.add_argument("--threads", type=int, help="of each process; PyTorch's default if not given")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="JSONL of prompts with candidates")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="of the official package")
    parser.add_argument("--agreement-ranker", default=DEFAULT_RANKER, help="trained ranker for the agreement of top-1")
    parser.add_argument("--agreement-prompts", type=int, default=36, help="prompts for that; 0 for none")
    if parser.parse_known_args(arguments)[0].quick:
        parser.set_defaults(minutes=3, candidates=[2, 3], agreement_prompts=0)
    options = parser.parse_args(arguments)
    options.devices = options.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return options


def variant_of(options: argparse.Namespace) -> str:
    """Return the options that give a run its own place in a document."""
    dtypes = [] if list(options.dtypes) == list(DTYPES) else ["--dtypes", *options.dtypes]
    devices = [] if options.devices == ["cpu"] else ["--devices", *options.devices]
    sizes = ["--candidates", str(options.candidates[0])] if len(options.candidates) == 1 else []
    return " ".join(["--shapes", *options.shapes, *dtypes, *devices, *sizes])


def peer_versions(python: Path) -> str:
    """Return the versions of the packages in the peer's environment."""
    names = ("llm-blender", "torch", "transformers")
    code = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {names}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def machine(options: argparse.Namespace, peer: str) -> dict[str, Any]:
    """Describe the machine and the packages."""
    extras = {setting.extra for device in options.devices for setting in settings_of(options, device)} - {""}
    return {
        "processor": processor(),
        "load average at the end": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if "cuda" in options.devices else None,
        "ours": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", *sorted(extras))),
        "peer": peer,
        "options": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
    }


def settings_of(options: argparse.Namespace, device: str) -> list[Setting]:
    """Return the settings available on a device."""
    return [
        setting
        for setting in SETTINGS
        if setting.dtype in options.dtypes
        and device in setting.devices
        and (not setting.extra or find_spec(setting.extra))
    ]


@dataclass
class Bench:
    """One run."""

    options: argparse.Namespace  # of the command line
    root: Path  # folder for checkpoints and logs
    records: Sequence[dict[str, Any]]  # prompts with candidates
    _checkpoints: dict[str, Path] = field(default_factory=dict)
    _n_workers: int = 0

    def measure(self, end: float) -> list[Part]:
        """Measure every shape on every device; each may take an equal share of the time that is left."""
        parts = []
        todo = [(device, SHAPES[name]) for device in self.options.devices for name in self.options.shapes]
        for done, (device, shape) in enumerate(todo):
            share = (end - time.monotonic()) / (len(todo) - done)
            parts.append(self._part(shape, device, time.monotonic() + share))
            note(markdown_of(part_sections(parts[-1])))  # so that a run that is killed later has logged this
        return parts

    def _part(self, shape: Shape, device: str, end: float) -> Part:
        candidates = self.options.candidates
        settings = [s for s in settings_of(self.options, device) if any(s.applies_to(n) for n in candidates)]
        part = Part(shape.name, device, {n: self._job(n) for n in candidates})
        note(f"{shape.name}, {device}: loading")
        with self._workers(settings, self._checkpoint(shape), device) as (workers, failures):
            part.failures |= failures
            for repetition in range(self.options.repetitions):
                for n in candidates:
                    for setting in settings:
                        if setting.name in workers and setting.applies_to(n):
                            self._cell(part, setting, n, workers[setting.name], end, repetition)
            self._products(part, workers, shape)
        return part

    def _cell(self, part: Part, setting: Setting, n: int, worker: Worker, end: float, repetition: int) -> None:
        """Measure once, if it fits."""
        expected, left = part.expected_seconds(setting.name, n), end - time.monotonic()
        if expected is not None and (expected > MAX_SHARE * left if repetition == 0 else expected > left):
            if repetition == 0:
                part.left_out[f"{setting.name}, {n} candidates"] = expected
            return
        note(f"{part.shape}, {part.device}: {n} candidates, {setting.name}, {left:.0f} s left")
        try:
            if part.device == "cuda" and (n, setting.name) not in part.cells:
                worker.ask(part.jobs[n])  # kernels for new shapes are loaded or compiled once
            result = worker.ask(part.jobs[n])
        except WorkerError as error:
            part.failures[setting.name] = str(error)
        else:
            part.cells.setdefault((n, setting.name), Cell(n, setting)).add(result)
            # What did not fit at first may fit later, when its duration is known better.
            part.left_out.pop(f"{setting.name}, {n} candidates", None)

    def _products(self, part: Part, workers: dict[str, Worker], shape: Shape) -> None:
        """Measure bare products at shapes that occurred, and profile, in each precision of our full rankings."""
        config = shape.config(1)
        for cell in part.cells.values():
            n_read = 1 if cell.setting.method == "pointwise" else 3  # the prompt and two candidates
            cell.flops = model_flops(config, cell.lengths, n_read)
        for setting in SETTINGS:
            cells = [c for c in part.cells.values() if c.setting == setting]
            if setting.side != "ours" or setting.method != "full" or setting.extra or not cells:
                continue
            note(f"{part.shape}, {part.device}: bare products and profile, {setting.dtype}")
            largest = max(cells, key=lambda cell: len(cell.lengths))
            shapes = sorted({tuple(s) for s in largest.shapes}, key=lambda s: s[1])
            middle = [
                shapes[round((k + 0.5) * len(shapes) / N_SHAPES - 0.5)] for k in range(min(N_SHAPES, len(shapes)))
            ]
            ask = workers[setting.name].ask
            part.products[setting.dtype] = {"shapes": middle, **ask({"op": "products", "shapes": middle})}
            smallest = min(cells, key=lambda cell: len(cell.lengths)).n
            part.profiles[setting.dtype] = ask({"op": "profile", **part.jobs[smallest]})["profile"]

    def trained_agreement(self) -> dict[str, Any]:
        """Compare the top-1 of our settings with that of the full ranking in float32, on a trained ranker."""
        prompts = min(self.options.agreement_prompts, len(self.records))
        found: dict[str, Any] = {"ranker": self.options.agreement_ranker, "prompts": prompts, "candidates": 10}
        if not prompts:
            return {}
        job = make_job(self.records, prompts, found["candidates"], AGREEMENT_WORDS, self.options.seed)
        device = self.options.devices[-1]
        settings = [s for s in settings_of(self.options, device) if s.side == "ours" and s.method != "pointwise"]
        note(f"agreement of {found['ranker']}")
        tops: dict[str, list[int]] = {}
        with self._workers(settings, found["ranker"], device) as (workers, failures):
            for name, worker in workers.items():
                try:
                    tops[name] = worker.ask(job)["top"]
                except WorkerError as error:
                    failures[name] = str(error)
        if failures:
            found["failures"] = failures
        if REFERENCE in tops:
            found["same"] = {name: sum(map(int.__eq__, top, tops[REFERENCE])) for name, top in tops.items()}
        return found

    def _job(self, n: int) -> dict[str, Any]:
        return make_job(self.records, self.options.prompts, n, tuple(self.options.words), self.options.seed)

    def _checkpoint(self, shape: Shape) -> Path:
        if shape.name not in self._checkpoints:
            texts = texts_of(self.records)
            self._checkpoints[shape.name] = save_checkpoint(self.root, shape, texts, self.options.seed)
        return self._checkpoints[shape.name]

    @contextmanager
    def _workers(
        self, settings: Sequence[Setting], ranker: str | Path, device: str
    ) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
        """Start a process for each setting, all at once; yield those that work, and the errors of the others."""
        workers: dict[str, Worker] = {}
        failures: dict[str, str] = {}
        with ExitStack() as stack:
            for setting in settings:
                workers[setting.name] = self._start(setting, ranker, device)
                stack.callback(workers[setting.name].close)
            for name, worker in list(workers.items()):
                try:
                    worker.wait()
                    worker.ask(WARM_UP)
                except WorkerError as error:
                    failures[name] = str(error)
                    del workers[name]
            yield workers, failures

    def _start(self, setting: Setting, ranker: str | Path, device: str) -> Worker:
        python = self.options.peer_python if setting.side == "peer" else Path(sys.executable)
        self._n_workers += 1
        log = self.root / f"worker-{self._n_workers}.log"
        return Worker(python, WORKERS[setting.side], setting.message(str(ranker), device, self.options.threads), log)


def note(text: str) -> None:
    """Log to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
