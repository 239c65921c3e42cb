"""Measures the ONNX files of a ranker against torch: size, speed, logits and judgements.

    python benchmarks/onnx_speed.py dev.jsonl.gz --ranker pair-ranker-mini
    python benchmarks/onnx_speed.py dev.jsonl.gz --shape base --max-pairs-per-source 5 --turns 1
    python benchmarks/onnx_speed.py dev.jsonl.gz --device cuda --turns 7

With `--shape` it is a DeBERTa-v3 of that size with random weights, whose judgements mean nothing.
Exports the ranker into a temporary folder, lets all of them score the same pairs in both orders in turns, and prints a
Markdown table, and a JSON object on the last line. Half precision is for CUDA; on a CPU only its logits mean anything.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from cards import markdown_table, write_figures
from judged_pairs import decided_pairs
from ranking_inputs import SHAPES, save_checkpoint

from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.scorer import PairScorer, Presentation
from blender_hf.export.onnx_export import export_onnx
from blender_hf.export.onnx_ranker import load_onnx_ranker
from blender_hf.loading.checkpoints import HubOptions, has_bfloat16, load_ranker

SCRIPT = "benchmarks/onnx_speed.py"
FILES = {"float32": "model.onnx", "int8": "model_int8.onnx", "float16": "model_fp16.onnx"}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
REFERENCE = "torch float32"


def main() -> None:
    options = arguments()
    pairs = decided_pairs(read_labelled(options.data), options.max_pairs_per_source, options.seed)
    with tempfile.TemporaryDirectory() as root:
        folder = f"{root}/onnx"
        if options.shape:
            texts = [text for pair in pairs for text in (pair.prompt, pair.candidate_a, pair.candidate_b)]
            options.ranker = save_checkpoint(Path(root), SHAPES[options.shape], texts)
        # Random weights have no judgement that could suffer, and round worse than trained ones.
        accepted = {"int8": 1.0} if options.shape else {}
        precisions = tuple(name for name in files_for(options.device) if name != "float32")
        export_onnx(options.ranker, folder, precisions=precisions, tolerances=accepted)
        scorers = load_all(options, folder)
        sizes = {name: megabytes(scorer, folder, name) for name, scorer in scorers.items()}
        rows = measured(pairs, scorers, options.turns)
    for name, row in rows.items():
        row["MB"] = sizes[name]
    text = report(rows, len(pairs), options)
    print(f"{text}\n")
    if options.card:
        write_figures(options.card, mark_of(options), text)
    print(json.dumps(rows))


def mark_of(options: argparse.Namespace) -> str:
    """Say what stands above the figures in a document, so that runs of different things have their own place there."""
    shape = ["--shape", options.shape] if options.shape else []
    device = ["--device", options.device] if options.device != "cpu" else []
    return " ".join([SCRIPT, *shape, *device])


def files_for(device: str) -> dict[str, str]:
    """Return the files that are for a device: blocks of eight bits are for a CPU alone."""
    return {name: file for name, file in FILES.items() if device == "cpu" or name != "int8"}


def report(rows: dict[str, dict[str, float]], n_pairs: int, options: argparse.Namespace) -> str:
    columns = {
        "MB": ("MB", ".1f"),
        "speed": ("speed", ".2f"),
        "largest difference of a logit": ("difference", ".1e"),
        "top-1 as float32": ("agreement", ".4f"),
        "accuracy": ("accuracy", ".4f"),
    }
    what = options.ranker
    if options.shape:
        what = f"A DeBERTa-v3 of size {options.shape} with random weights"
        del columns["accuracy"]
    cells = [[name, *(format(row[key], form) for key, form in columns.values())] for name, row in rows.items()]
    here = torch.cuda.get_device_name() if options.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    note = (
        f"{what}, {n_pairs} decided pairs of {options.data.name.split('.')[0]} in both orders, "
        f"{torch.get_num_threads()} threads, {here}, medians of {options.turns} "
        f"turns; speed is in units of {REFERENCE}; higher is better."
    )
    return f"{markdown_table(['', *columns], cells)}\n\n{note}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="JSONL file of judged pairs")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="bundled name, Hub id or folder")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a ranker of this size with random weights instead")
    parser.add_argument("--max-pairs-per-source", type=int, default=40, help="drawn at random of larger sources")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--turns", type=int, default=3, help="how often each scores all pairs")
    parser.add_argument("--device", choices=sorted(PROVIDERS), default="cpu", help="where all of them run")
    parser.add_argument("--card", type=Path, help="page to write the table into")
    return parser.parse_args()


def load_all(options: argparse.Namespace, folder: str) -> dict[str, PairScorer]:
    """Return a scorer for each way to run the ranker, the reference first."""
    hub = HubOptions()
    # Without hardware for it, bfloat16 says nothing; float16 is for a GPU.
    dtypes = ["float32", *(["bfloat16"] if has_bfloat16(torch.device(options.device)) else [])]
    dtypes += ["float16"] if options.device == "cuda" else []
    in_torch = {f"torch {dtype}": load_ranker(options.ranker, hub, options.device, dtype) for dtype in dtypes}
    in_onnx = {
        f"onnx {name}": load_onnx_ranker(folder, hub, PROVIDERS[options.device], file)
        for name, file in files_for(options.device).items()
    }
    return {name: PairScorer(*loaded) for name, loaded in {**in_torch, **in_onnx}.items()}


def megabytes(scorer: PairScorer, folder: str, name: str) -> float:
    """Return the size of the weights, or of the file that holds the graph and the weights."""
    backend, precision = name.split()
    if backend == "onnx":
        return (Path(folder) / FILES[precision]).stat().st_size / 1e6
    return sum(weight.numel() * weight.element_size() for weight in scorer.model.parameters()) / 1e6


def measured(
    pairs: Sequence[PreferencePair], scorers: dict[str, PairScorer], turns: int
) -> dict[str, dict[str, float]]:
    """Return seconds, speed, differences and judgements of each scorer."""
    logits, seconds = scored(pairs, scorers, turns)
    reference = logits[REFERENCE]
    labels = torch.tensor([pair.label > 0.5 for pair in pairs])
    judged = {name: (found[0::2] - found[1::2]) > 0 for name, found in logits.items()}
    return {
        name: {
            "seconds": seconds[name],
            "speed": seconds[REFERENCE] / seconds[name],
            "difference": (found - reference).abs().max().item(),
            "agreement": (judged[name] == judged[REFERENCE]).float().mean().item(),
            "accuracy": (judged[name] == labels).float().mean().item(),
        }
        for name, found in logits.items()
    }


def scored(
    pairs: Sequence[PreferencePair], scorers: dict[str, PairScorer], turns: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return the logits, both orders of each pair one after the other, and the median seconds of each scorer."""
    presentations = [presentation for pair in pairs for presentation in both_orders(pair)]
    texts = scorers[REFERENCE].tokenise(text for p in presentations for text in (p.source, p.first, p.second))
    taken: dict[str, list[float]] = {name: [] for name in scorers}
    logits = {}
    for _ in range(turns):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            logits[name] = torch.tensor(scorer.score(presentations, texts))
            taken[name].append(time.perf_counter() - start)
    return logits, {name: statistics.median(times) for name, times in taken.items()}


def both_orders(pair: PreferencePair) -> tuple[Presentation, Presentation]:
    """Return the two presentations of a pair."""
    source, a, b = pair.prompt, pair.candidate_a, pair.candidate_b
    return Presentation(source, a, b), Presentation(source, b, a)


if __name__ == "__main__":
    main()
