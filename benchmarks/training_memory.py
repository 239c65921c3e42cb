"""Measure the memory of a training step of a ranker: counted for weights, measured for activations.

    python -m benchmarks.training_memory --hidden 1024 --layers 24 --length 384 --batch 4

The encoder has the shape of DeBERTa-v3 with random weights. On a CPU the peak is that of the process, in float32; on
CUDA that of the allocator, under bf16 autocast.
"""

import argparse
import resource

import torch

from benchmarks.inputs import VOCABULARY, Shape
from benchmarks.judged import parser_of
from benchmarks.tables import Cell, Table, publish
from blender_hf import PairRanker, PairRankerConfig

GIB = 2**30
# Bytes per weight in float32: weight, gradient, and state of the optimiser.
OPTIMISERS = {"AdamW": 16, "Adafactor": 8}


def main() -> None:
    options = arguments()
    model = build(options)
    n_weights = sum(weight.numel() for weight in model.parameters())
    rows: list[list[Cell]] = [
        [f"weights, gradients and {name}", n_weights * size / GIB] for name, size in OPTIMISERS.items()
    ]
    before = peak()
    for checkpointing in (True, False) if options.both else (True,):
        name = "activations with checkpointing" if checkpointing else "activations without"
        rows.append([name, activations(model, options, checkpointing, before) / GIB])
    size = f"{n_weights / 1e6:.0f} million weights, {options.batch} pairs of {options.length} tokens"
    publish(__file__, [size, Table({"memory": "", "GiB": ".2f"}, rows)], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--length", type=int, default=384, help="tokens of a pair")
    parser.add_argument("--batch", type=int, default=4, help="pairs")
    parser.add_argument("--both", action="store_true", help="also without gradient checkpointing")
    return parser.parse_args()


def build(options: argparse.Namespace) -> PairRanker:
    encoder = Shape("", options.layers, options.hidden).config(VOCABULARY)
    ids = {"source_token_id": 1, "candidate1_token_id": 2, "candidate2_token_id": 3}
    model = PairRanker(PairRankerConfig(backbone_config=encoder, **ids)).train()
    return model.cuda() if torch.cuda.is_available() else model


def activations(model: PairRanker, options: argparse.Namespace, checkpointing: bool, before: int) -> int:
    """Return by how much a forward and a backward pass raise the peak, without the gradients."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
    device = model.device
    ids = torch.randint(10, VOCABULARY, (options.batch, options.length), device=device)
    ids[:, 0], ids[:, 40], ids[:, options.length // 2] = 1, 2, 3
    labels = torch.rand(options.batch, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = model(ids, torch.ones_like(ids), labels=labels).loss
    loss.backward()
    gradients = sum(weight.grad.numel() * 4 for weight in model.parameters() if weight.grad is not None)
    model.zero_grad(set_to_none=True)
    return peak() - before - gradients


def peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
