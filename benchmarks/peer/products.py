"""The matrix products of an encoder: operations needed by its real tokens, and the speed of the machine."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from torch.nn import functional
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from benchmarks.timing import timed
from blender_hf.modeling.fast_kernels import FastLinear, heads_product, multiplies_heads

# Each product is repeated for this long, after one that is not counted.
SECONDS_EACH = 0.3
# Its kind, count per layer, operations, and the ways to compute it.
LayerProduct = tuple[str, int, float, list[Callable[[], Any]]]


def model_flops(config: Any, lengths: Iterable[int], n_read: int) -> float:
    """Return the operations that sequences of these lengths need: products only, without padding.

    The linear layers, queries with keys, weights with values and, in DeBERTa, both position terms: each query with the
    projected key of every bucket of relative positions that the length reaches, and each key with the query of it. Of
    the last layer, all keys and values, and the rest for the `n_read` states the head reads.
    """
    return float(sum(_sequence_flops(*_dimensions(config), length, n_read) for length in lengths))


@cache
def _sequence_flops(layers: int, hidden: int, inner: int, terms: int, buckets: int, length: int, n_read: int) -> int:
    reached = reached_buckets(length, buckets)

    def layer(queries: int) -> int:
        linear = 2 * length * hidden * hidden + queries * (2 * hidden * hidden + 2 * hidden * inner)
        return linear + queries * hidden * (2 * length + terms * reached)

    return 2 * ((layers - 1) * layer(length) + layer(n_read))


def _dimensions(config: Any) -> tuple[int, int, int, int, int]:
    relative = getattr(config, "relative_attention", False)
    terms = len(config.pos_att_type) if relative else 0
    return (
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        terms,
        config.position_buckets if relative else 0,
    )


@cache
def reached_buckets(length: int, buckets: int) -> int:
    """Return how many different buckets of relative positions a length reaches; 0 without such positions.

    >>> reached_buckets(4, 256)
    7
    """
    if not buckets:
        return 0
    # DeBERTa-v3 was trained on 512 positions; its buckets end there.
    return len(make_log_bucket_position(torch.arange(1 - length, length), buckets, 512).unique())


@torch.inference_mode()
def measure_products(config: Any, shapes: Iterable[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> dict:
    """Return the operations per second of a layer's products, and of its linear layers alone, at these batch shapes."""
    totals = {"linear": [0.0, 0.0], "all": [0.0, 0.0]}
    for rows, length in shapes:
        for kind, count, flops, ways in _layer_products(config, rows, length, dtype, device):
            seconds = min(_seconds(product) for product in ways)
            for name in {kind, "all"} & totals.keys():
                totals[name][0] += count * flops
                totals[name][1] += count * seconds
    return {"rate": totals["all"][0] / totals["all"][1], "linear_rate": totals["linear"][0] / totals["linear"][1]}


def _layer_products(
    config: Any, rows: int, length: int, dtype: torch.dtype, device: torch.device
) -> list[LayerProduct]:
    """Return kind, how often in a layer, operations, and the product itself in one or two ways."""
    _, hidden, inner, terms, buckets = _dimensions(config)
    heads = config.num_attention_heads
    width = hidden // heads
    reached = reached_buckets(length, buckets)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def linear(count: int, inputs: int, outputs: int) -> LayerProduct:
        states, layer = made(rows, length, inputs), FastLinear(inputs, outputs, device=device, dtype=dtype)
        flops = 2.0 * rows * length * inputs * outputs
        plain = partial(functional.linear, states, layer.weight, layer.bias)
        return "linear", count, flops, [plain, partial(layer, states)]

    def batched(count: int, places: int, inner: int, outputs: int) -> LayerProduct:
        left, right = made(rows * heads, places, inner), made(rows * heads, outputs, inner)
        ways = [partial(torch.bmm, left, right.transpose(1, 2))]
        if multiplies_heads(left, right):
            ways.append(partial(heads_product, left, right))
        return "attention", count, 2.0 * rows * heads * places * inner * outputs, ways

    found = [linear(4, hidden, hidden), linear(1, hidden, inner), linear(1, inner, hidden)]
    found += [batched(1, length, width, length), batched(1, length, length, width)]
    return found + ([batched(terms, length, width, reached)] if terms else [])


def _seconds(product: Callable[[], Any]) -> float:
    product()
    times: list[float] = []
    while sum(times) < SECONDS_EACH or len(times) < 3:
        times.append(timed(product)[0])
    return median(times)
