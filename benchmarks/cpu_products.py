"""Measure matrix products on a CPU by oneDNN and by PyTorch, alone and in the bundled models.

OMP_NUM_THREADS=1 python -m benchmarks.cpu_products --save
"""

from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import torch
from torch.nn import functional

from benchmarks.inputs import read_records
from benchmarks.judged import parser_of
from benchmarks.tables import Cell, Table, processor, publish
from benchmarks.timing import in_ms, medians
from blender_hf import Blender
from blender_hf.modeling import fast_kernels
from blender_hf.modeling.fast_kernels import FastLinear, heads_product

# Of a small encoder and of DeBERTa-v3-base: inputs and outputs.
LAYERS = ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768))
ROWS = (8, 64, 512, 4096)
LENGTHS = (256, 512, 1024)
HEAD_SIZE = 64
N_PROMPTS = 3


TIMES = {"PyTorch, ms": "ms", "oneDNN, ms": "ms", "speed-up": ".2f"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    if not fast_kernels.gains(torch.float32):
        print("PyTorch's own products are used in float32 on this processor: there is nothing to compare")
        return
    with torch.inference_mode():
        products = Table({"product": "", "dtype": "", **TIMES}, list(bare(options.turns)))
        models = Table({"bundled models, float32": "", **TIMES}, list(whole()))
    cpu = fast_kernels.cpu_features().get("cpu_name", processor())
    note = (
        f"torch {torch.__version__} on {cpu}, {torch.get_num_threads()} threads; medians of {options.turns} "
        "turns, of the models 3."
    )
    publish(__file__, [products, models, note], options)


def bare(turns: int) -> Iterator[list[Cell]]:
    """Yield the rows of products without a model."""
    for dtype in (torch.float32, torch.bfloat16):
        if not fast_kernels.gains(dtype):
            continue
        name = str(dtype).removeprefix("torch.")
        for inputs, outputs in LAYERS:
            layer = FastLinear(inputs, outputs, dtype=dtype)
            for rows in ROWS:
                states = torch.randn(rows, inputs).to(dtype)
                plain = partial(functional.linear, states, layer.weight, layer.bias)
                times = _times([plain, partial(layer, states)], turns)
                yield [f"linear, {rows} x {inputs} to {outputs}", name, *times]
    for length in LENGTHS:
        head = torch.randn(1, length, HEAD_SIZE)
        ways = [partial(torch.bmm, head, head.transpose(1, 2)), partial(heads_product, head, head)]
        yield [f"scores of a head, {length} x {length}", "float32", *_times(ways, turns)]


def whole() -> Iterator[list[Cell]]:
    """Yield the rows of the bundled models."""
    blender, records = Blender.from_pretrained(), read_records()[:N_PROMPTS]
    prompts = [record["prompt"] for record in records]
    candidates = [[candidate["text"] for candidate in record["candidates"]] for record in records]
    top = [texts[:3] for texts in candidates]
    rank, fuse = partial(blender.rank, prompts, candidates), partial(blender.fuse, prompts, top)
    for name, call in ((f"rank, {N_PROMPTS} prompts", rank), (f"fuse, {N_PROMPTS} prompts", fuse)):
        yield [name, *_times([partial(_as_pytorch, call), call], 3)]


def _times(ways: list[Callable[[], object]], turns: int) -> list[float]:
    seconds = medians(ways, turns)
    return [*in_ms(seconds), seconds[0] / seconds[1]]


def _as_pytorch(call: Callable[[], object]) -> object:
    with mock.patch.object(fast_kernels, "gains", return_value=False):
        return call()


if __name__ == "__main__":
    main()
