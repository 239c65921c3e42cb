"""Faster kernels with the same result: oneDNN on a CPU, flashdeberta on a GPU, and attention in cache-sized blocks.

PyTorch multiplies float32 by MKL, which limits processors other than Intel's to AVX2: with AVX-512, half of their
speed. In bfloat16 it uses oneDNN, but writes the bias first and adds the product to it. The operator called here is the
one that `torch.compile` uses on CPUs; it ships with PyTorch and multiplies in full precision. Where it is missing,
PyTorch's own runs. It has no gradient, so training does not use it.

flashdeberta (Knowledgator) is a Triton kernel of DeBERTa's attention that never writes the scores to memory, which is
what long pairs spend their time on. It is used on a GPU and in half precision only: in float32 it multiplies in TF32,
which is not exact enough for us.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# With fewer rows PyTorch is as fast; in bfloat16, where only the bias is saved, that is with many.
MIN_ROWS = {torch.float32: 8, torch.bfloat16: 512}
# A product of a new shape costs another third of a millisecond; from this size on, few repetitions win it back.
MIN_PRODUCT = 2**22
# Where and for what flashdeberta runs. Triton multiplies powers of two from 16 on; beyond 128 it is not tuned.
FLASH_DEVICE = "cuda"
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD_SIZES = (16, 32, 64, 128)
# Of one block of attention scores, for each thread: half of the second-level cache of a current core.
CACHED_BYTES = 2**19
# Backward fills a table for each block, so there should be few; and an accelerator needs much work at once.
LARGE_BYTES = 2**24


class FastLinear(nn.Linear):
    """A linear layer with the weights and the result of its parent."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        many = _is_faster(input, self.weight) and input.shape[:-1].numel() >= MIN_ROWS[input.dtype]
        if many and _is_contiguous(self.weight):
            return _linear(input, self.weight, self.bias)
        return super().forward(input)


def use_fast_products(model: nn.Module) -> None:
    """Make the linear layers of a model fast; its weights and their names stay unchanged."""
    for module in model.modules():
        if type(module) is nn.Linear:  # subclasses may do something else
            module.__class__ = FastLinear


def use_plain_products(model: nn.Module) -> None:
    """Undo `use_fast_products`, for code that looks for exactly `nn.Linear`, such as PyTorch's quantization."""
    for module in model.modules():
        if type(module) is FastLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment] # a parent has the same layout


def multiplies_heads(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether `heads_product` is faster for (heads, m, size) and (heads, n, size).

    It is not in bfloat16, where PyTorch multiplies all heads by oneDNN in one call.
    """
    by_one = left.dtype == torch.float32 and _is_faster(left, right)
    return by_one and left.shape[1:].numel() * right.shape[1] >= MIN_PRODUCT


def heads_product(left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply (heads, m, size) and (heads, n, size) to (heads, m, n), one head at a time, and add what is given."""
    weights = [head if _is_contiguous(head) else head.contiguous() for head in right]
    if added is None:
        products = [_linear(rows, weight, None) for rows, weight in zip(left, weights, strict=True)]
    else:
        # Copied, for oneDNN is far slower with an expanded tensor.
        full = added.expand(-1, left.shape[1], len(weights[0])).contiguous()
        add = torch.ops.mkldnn._linear_pointwise.binary
        heads = zip(left, full, weights, strict=True)
        products = [add(rows, sums, weight, None, "add") for rows, sums, weight in heads]
    return products[0][None] if len(products) == 1 else torch.stack(products)


def _linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def _is_faster(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether oneDNN should multiply these: not where a gradient, another precision or a graph is wanted."""
    return (
        not is_traced()  # first: a graph must not depend on anything checked here
        and left.device.type == "cpu"
        and left.dtype == right.dtype
        and _is_plain(left)
        and _is_plain(right)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and gains(left.dtype)
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is no subclass, such as those that quantize or shard a weight."""
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout == torch.strided


def _is_contiguous(weight: torch.Tensor) -> bool:
    """Return whether a matrix or its transpose has no gaps between its rows, with which oneDNN is far slower."""
    return weight.is_contiguous() or weight.t().is_contiguous()


@cache
def gains(dtype: torch.dtype) -> bool:
    """Return whether oneDNN is faster than PyTorch's own kernels on this processor in a precision."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    known = cpu_features()
    if dtype == torch.float32:
        return bool(known.get("avx512_bw")) and "Intel" not in known.get("cpu_name", "Intel")
    return dtype == torch.bfloat16 and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def cpu_features() -> dict[str, Any]:
    """Return what PyTorch knows of this processor; an old release of it knows nothing."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def is_traced() -> bool:
    """Return whether shapes may be symbolic: `torch.export`, `torch.compile` or a TorchScript trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@cache
def flash_kernel() -> Callable[..., torch.Tensor] | None:
    """Return the attention of flashdeberta, or None where it is not installed or can't be loaded.

    It is imported by name: transformers takes an import statement in a file on the Hub for a requirement.
    """
    if importlib.util.find_spec("flashdeberta") is None:
        return None
    try:
        return importlib.import_module("flashdeberta.ops.flash_attention").flash_attention_with_disentangled
    except (ImportError, AttributeError):  # another Triton, or a release that has it elsewhere
        return None


def flash_lengths(mask: torch.Tensor) -> torch.Tensor | None:
    """Return (batch,), how many keys of each row flashdeberta reads; None if it can't, as with padding on the left."""
    if mask.device.type != FLASH_DEVICE or flash_kernel() is None:
        return None
    real = mask.bool()
    if (real[:, 1:] & ~real[:, :-1]).any():
        return None
    return real.sum(dim=1, dtype=torch.int32)


def fits_flash(states: torch.Tensor, head_size: int) -> bool:
    """Return whether flashdeberta supports these states; never with gradients, since it has no attention dropout."""
    return states.dtype in FLASH_DTYPES and head_size in FLASH_HEAD_SIZES and not torch.is_grad_enabled()


def attend_by_flash(*heads: torch.Tensor | None, scale: float, buckets: int, positions: int) -> torch.Tensor:
    """Attend with all heads of a batch, where `flash_kernel` is not None.

    The tensors are queries, keys and values, (batch, heads, length, head size) each; the lengths, (batch,); and the
    tables of positions that queries look at and that look at keys, (1, heads, buckets, head size) each or None.
    """
    kernel = flash_kernel()
    assert kernel is not None  # as `flash_lengths` found out
    return kernel(*heads, sm_scale=scale, position_buckets=buckets, max_relative_distance=positions)


def attend_in_blocks(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    pos_keys: torch.Tensor | None,
    pos_queries: torch.Tensor | None,
    index: torch.Tensor | None,
    n_rows: int,
    dropout: nn.Module,
) -> torch.Tensor:
    """Compute disentangled attention of a few heads, some query rows at a time."""
    keys_by_bucket = None if pos_queries is None else _product(keys, pos_queries, bias)
    context = []
    for start in range(0, queries.shape[1], n_rows):
        rows = slice(start, start + n_rows)
        buckets = None if index is None else index[:, rows]
        scores = None if bias is None else bias.transpose(1, 2)  # (heads, 1, length)
        if keys_by_bucket is not None and buckets is not None:
            # Looked up as (heads, length, rows).
            scores = _lookup(keys_by_bucket, buckets.transpose(1, 2)).transpose(1, 2)
        scores = _product(queries[:, rows], keys, scores)  # (heads, rows, length)
        if pos_keys is not None and buckets is not None:
            scores += _lookup(_product(queries[:, rows], pos_keys), buckets)
        context.append(_product(dropout(functional.softmax(scores, dim=-1)), values.transpose(1, 2)))
    return torch.cat(context, dim=1)


def _product(left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply each row of (heads, m, size) with each of (heads, n, size), and add what is given."""
    if multiplies_heads(left, right):
        return heads_product(left, right, added)
    right = right.transpose(1, 2)
    return torch.bmm(left, right) if added is None else torch.baddbmm(added, left, right)


def _lookup(scores: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return (heads, m, n): the entries of (heads, m, buckets) at an index of that shape."""
    if scores.requires_grad or scores.element_size() != 2:
        return scores.gather(2, index)
    # PyTorch copies the index twice to gather 16-bit floats, but not for integers.
    return scores.view(torch.int16).gather(2, index).view(scores.dtype)


def block_shape(queries: torch.Tensor, length: int, buckets: int) -> tuple[int, int]:
    """Return how many heads and how many query rows make a block of scores, for (heads, queries, head size)."""
    cached = queries.device.type == "cpu" and not queries.requires_grad
    n_scores = (CACHED_BYTES * torch.get_num_threads() if cached else LARGE_BYTES) // queries.element_size()
    # Fewer than 16 rows make a matrix product slow.
    n_rows = min(queries.shape[1], max(16, n_scores // length))
    # With few queries it is the scores of the keys that fill the cache.
    return max(1, n_scores // (max(n_rows, min(length, buckets)) * length)), n_rows
