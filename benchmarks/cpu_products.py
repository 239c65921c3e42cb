"""Measures products of matrices on a CPU by oneDNN and as PyTorch makes them, alone and in the bundled models.

    OMP_NUM_THREADS=1 python benchmarks/cpu_products.py --card docs/speed.md

Both take turns in one process, and a figure is the median of the turns.
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from cards import markdown_table, show_figures
from deberta_attention import in_ms, medians, ratio
from ranking import EXAMPLES
from ranking_inputs import read_records
from torch.nn import functional

from blender_hf import Blender
from blender_hf.modeling import fast_products
from blender_hf.modeling.fast_products import FastLinear, heads_product

SCRIPT = "benchmarks/cpu_products.py"
# Of a small encoder and of DeBERTa-v3-base: inputs and outputs.
LAYERS = ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768))
ROWS = (8, 64, 512, 4096)
LENGTHS = (256, 512, 1024)
HEAD_SIZE = 64
N_PROMPTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--card", type=Path, help="document to write the tables into")
    options = parser.parse_args()
    if not fast_products.gains(torch.float32):
        print("PyTorch's own products are used in float32 on this processor: there is nothing to compare")
        return
    with torch.inference_mode():
        products = markdown_table(
            ["product", "dtype", "PyTorch, ms", "oneDNN, ms", "speed-up"], list(bare(options.turns))
        )
        models = markdown_table(["bundled models, float32", "PyTorch, ms", "oneDNN, ms", "speed-up"], list(whole()))
    processor = fast_products.cpu_features().get("cpu_name", platform.processor())
    note = (
        f"torch {torch.__version__} on {processor}, {torch.get_num_threads()} threads; medians of {options.turns} "
        "turns, of the models 3."
    )
    show_figures(f"{products}\n\n{models}\n\n{note}", SCRIPT, options.card)


def bare(turns: int) -> Iterator[list[str]]:
    """Yield the rows of products without a model."""
    for dtype in (torch.float32, torch.bfloat16):
        if not fast_products.gains(dtype):
            continue
        name = str(dtype).removeprefix("torch.")
        for inputs, outputs in LAYERS:
            layer = FastLinear(inputs, outputs, dtype=dtype)
            for rows in ROWS:
                states = torch.randn(rows, inputs).to(dtype)
                plain = partial(functional.linear, states, layer.weight, layer.bias)
                yield _row(f"linear, {rows} x {inputs} to {outputs}", name, [plain, partial(layer, states)], turns)
    for length in LENGTHS:
        head = torch.randn(1, length, HEAD_SIZE)
        ways = [partial(torch.bmm, head, head.transpose(1, 2)), partial(heads_product, head, head)]
        yield _row(f"scores of a head, {length} x {length}", "float32", ways, turns)


def whole() -> Iterator[list[str]]:
    """Yield the rows of the bundled models."""
    blender, records = Blender.from_pretrained(), read_records(EXAMPLES)[:N_PROMPTS]
    prompts = [record["prompt"] for record in records]
    candidates = [[candidate["text"] for candidate in record["candidates"]] for record in records]
    top = [texts[:3] for texts in candidates]
    rank, fuse = partial(blender.rank, prompts, candidates), partial(blender.fuse, prompts, top)
    for name, call in ((f"rank, {N_PROMPTS} prompts", rank), (f"fuse, {N_PROMPTS} prompts", fuse)):
        seconds = medians([partial(_as_pytorch, call), call], 3)
        yield [name, *in_ms(seconds), ratio(seconds)]


def _row(name: str, dtype: str, ways: list[Callable[[], object]], turns: int) -> list[str]:
    seconds = medians(ways, turns)
    return [name, dtype, *in_ms(seconds), ratio(seconds)]


def _as_pytorch(call: Callable[[], object]) -> object:
    with mock.patch.object(fast_products, "gains", return_value=False):
        return call()


if __name__ == "__main__":
    main()
