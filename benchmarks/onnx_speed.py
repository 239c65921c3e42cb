"""Measure the ONNX files of a ranker against torch: size, speed, logits and accuracy.

    python -m benchmarks.onnx_speed dev.jsonl.gz --save
    python -m benchmarks.onnx_speed dev.jsonl.gz --shape base --max-pairs-per-source 5 --turns 1
    python -m benchmarks.onnx_speed dev.jsonl.gz --device cuda --turns 7

With `--shape` it is a DeBERTa-v3 of that size with random weights, whose accuracy means nothing. The ranker is exported
into a temporary folder, and all backends score the same pairs in both orders in turns.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.inputs import SHAPES, save_checkpoint
from benchmarks.judged import decided_pairs, judged_parser
from benchmarks.tables import Table, publish
from benchmarks.timing import medians
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.scorer import PairScorer, Presentation
from blender_hf.export.onnx_export import export_onnx
from blender_hf.export.onnx_ranker import load_onnx_ranker
from blender_hf.loading.checkpoints import HubOptions, has_bfloat16, load_ranker

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
        # Random weights have no accuracy to lose, and quantise worse than trained ones.
        accepted = {"int8": 1.0} if options.shape else {}
        precisions = tuple(name for name in files_for(options.device) if name != "float32")
        export_onnx(options.ranker, folder, precisions=precisions, tolerances=accepted)
        scorers = load_all(options, folder)
        sizes = {name: megabytes(scorer, folder, name) for name, scorer in scorers.items()}
        table = measured(pairs, scorers, sizes, options)
    # So that runs on other shapes and devices have their own place in a document.
    variant = [f"--shape {options.shape}"] if options.shape else []
    variant += [f"--device {options.device}"] if options.device != "cpu" else []
    publish(__file__, [table, note(len(pairs), options)], options, variant=" ".join(variant))


def arguments() -> argparse.Namespace:
    parser = judged_parser(__doc__, max_pairs=40)
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a ranker of this size with random weights instead")
    parser.add_argument("--turns", type=int, default=3, help="how often each backend scores all pairs")
    parser.add_argument("--device", choices=sorted(PROVIDERS), default="cpu", help="device of all backends")
    return parser.parse_args()


def files_for(device: str) -> dict[str, str]:
    """Return the files for a device: blocks of eight bits are for a CPU alone."""
    return {name: file for name, file in FILES.items() if device == "cpu" or name != "int8"}


def note(n_pairs: int, options: argparse.Namespace) -> str:
    ranker = f"A DeBERTa-v3 of size {options.shape} with random weights" if options.shape else options.ranker
    here = torch.cuda.get_device_name() if options.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return (
        f"{ranker}, {n_pairs} decided pairs of {options.data.name.split('.')[0]} in both orders, "
        f"{torch.get_num_threads()} threads, {here}, medians of {options.turns} turns; speed is relative to "
        f"{REFERENCE}; higher is better."
    )


def load_all(options: argparse.Namespace, folder: str) -> dict[str, PairScorer]:
    """Return a scorer for each backend and precision, the reference first."""
    hub = HubOptions()
    # bfloat16 needs hardware support to be meaningful; float16 is for a GPU.
    dtypes = ["float32", *(["bfloat16"] if has_bfloat16(torch.device(options.device)) else [])]
    dtypes += ["float16"] if options.device == "cuda" else []
    in_torch = {
        f"torch {dtype}": load_ranker(options.ranker, hub, device=options.device, dtype=dtype) for dtype in dtypes
    }
    in_onnx = {
        f"onnx {name}": load_onnx_ranker(folder, hub, provider=PROVIDERS[options.device], file_name=file)
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
    pairs: Sequence[PreferencePair],
    scorers: Mapping[str, PairScorer],
    sizes: Mapping[str, float],
    options: argparse.Namespace,
) -> Table:
    """Measure speed, differences of the logits, and agreement with the reference and the labels."""
    presentations = [presentation for pair in pairs for presentation in both_orders(pair)]
    texts = scorers[REFERENCE].tokenise(text for p in presentations for text in (p.source, p.first, p.second))
    logits: dict[str, torch.Tensor] = {}

    def score(name: str) -> None:
        logits[name] = torch.tensor(scorers[name].score(presentations, texts))

    taken = medians([partial(score, name) for name in scorers], options.turns, warm_up=False)
    seconds = dict(zip(scorers, taken, strict=True))
    labels = torch.tensor([pair.label > 0.5 for pair in pairs])
    preferred = {name: (found[0::2] - found[1::2]) > 0 for name, found in logits.items()}
    rows = [
        [
            name,
            sizes[name],
            seconds[REFERENCE] / seconds[name],
            (found - logits[REFERENCE]).abs().max().item(),
            (preferred[name] == preferred[REFERENCE]).float().mean().item(),
            (preferred[name] == labels).float().mean().item(),
        ]
        for name, found in logits.items()
    ]
    columns = {"": "", "MB": ".1f", "speed": ".2f", "largest difference of a logit": ".1e", "top-1 as float32": ".4f"}
    if options.shape:
        return Table(columns, [row[:-1] for row in rows])
    return Table({**columns, "accuracy": ".4f"}, rows)


def both_orders(pair: PreferencePair) -> tuple[Presentation, Presentation]:
    """Return the two presentations of a pair."""
    source, a, b = pair.prompt, pair.candidate_a, pair.candidate_b
    return Presentation(source, a, b), Presentation(source, b, a)


if __name__ == "__main__":
    main()
