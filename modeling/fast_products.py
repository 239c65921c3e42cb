"""Products of matrices by oneDNN on a CPU, where PyTorch by itself would multiply more slowly.

PyTorch multiplies float32 by MKL, which gives a processor that is not Intel's no more than AVX2: on one with AVX-512,
half of what it could do. In bfloat16 it uses oneDNN, but writes the bias first and adds the product to it. The operator
called here is the one that `torch.compile` uses on CPUs; it comes with PyTorch, multiplies in the full precision, and
where it is missing, all is as ever. It has no gradient, so training does not use it.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

# With fewer rows, PyTorch is as fast: in bfloat16, where the bias is all that is saved, with many.
FEWEST_ROWS = {torch.float32: 8, torch.bfloat16: 512}
# A product of a new shape takes a third of a millisecond more; of one of this size, few repetitions win it back.
SMALLEST_PRODUCT = 2**22


class FastLinear(nn.Linear):
    """A linear layer with the weights and the result of its parent."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        many = _is_faster(input, self.weight) and input.shape[:-1].numel() >= FEWEST_ROWS[input.dtype]
        if many and _is_whole(self.weight):
            return _linear(input, self.weight, self.bias)
        return super().forward(input)


def use_fast_products(model: nn.Module) -> None:
    """Let the linear layers of a model multiply fast; its weights and their names stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:  # what inherits from it may do something else
            module.__class__ = FastLinear


def use_plain_products(model: nn.Module) -> None:
    """Take back `use_fast_products`, for what looks for the very class `nn.Linear`, as PyTorch's quantisation does."""
    for module in model.modules():
        if type(module) is FastLinear:
            module.__class__ = nn.Linear


def multiplies_heads(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether `heads_product` is the faster for (heads, m, size) and (heads, n, size).

    Not in bfloat16, where PyTorch multiplies all heads by oneDNN in one call.
    """
    by_one = left.dtype == torch.float32 and _is_faster(left, right)
    return by_one and left.shape[1:].numel() * right.shape[1] >= SMALLEST_PRODUCT


def heads_product(left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply each row with each row, a head at a time.

    Args:
        left: (heads, m, size).
        right: (heads, n, size); of each head in one piece or transposed, or it is copied.
        added: (heads, m, n), or what can be expanded to that, to which the product is added, or None.

    Returns:
        (heads, m, n).
    """
    right = [others if _is_whole(others) else others.contiguous() for others in right]
    if added is None:
        products = [_linear(rows, others, None) for rows, others in zip(left, right, strict=True)]
    else:
        # Written out, for what has to be expanded takes oneDNN far longer.
        full = added.expand(-1, left.shape[1], len(right[0])).contiguous()
        add = torch.ops.mkldnn._linear_pointwise.binary
        heads = zip(left, full, right, strict=True)
        products = [add(rows, sums, others, None, "add") for rows, sums, others in heads]
    return products[0][None] if len(products) == 1 else torch.stack(products)


def _linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def _is_faster(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether oneDNN should multiply these: not where a gradient or another precision is wanted, or a graph."""
    return (
        not is_traced()  # first: a graph must not depend on anything that is asked here
        and left.device.type == "cpu"
        and left.dtype == right.dtype
        and _is_plain(left)
        and _is_plain(right)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and gains(left.dtype)
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is no subclass, such as those that quantise or shard a weight."""
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout == torch.strided


def _is_whole(weight: torch.Tensor) -> bool:
    """Tell whether a matrix, or its transpose, has no gaps between its rows; with them, oneDNN takes far longer."""
    return weight.is_contiguous() or weight.t().is_contiguous()


@cache
def gains(dtype: torch.dtype) -> bool:
    """Tell whether this processor gains in a precision."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    known = cpu_features()
    if dtype == torch.float32:
        return bool(known.get("avx512_bw")) and "Intel" not in known.get("cpu_name", "Intel")
    return dtype == torch.bfloat16 and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def cpu_features() -> dict[str, Any]:
    """Return what PyTorch knows of this processor: nothing, if it is an old one."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def is_traced() -> bool:
    """Tell whether the shapes may be symbols: `torch.export`, `torch.compile` or a TorchScript trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
