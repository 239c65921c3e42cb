"""DeBERTa's attention by the Triton kernel of the package flashdeberta (Knowledgator), where it is installed.

It never writes the scores to memory, which is what long pairs spend their time on. On a GPU and in half precision
alone: in float32 it multiplies in TF32, which is not exact enough for us.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache

import torch

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float16)
# What Triton multiplies: powers of two, from 16 on; beyond 128 it is not tuned.
HEAD_SIZES = (16, 32, 64, 128)


@cache
def kernel() -> Callable[..., torch.Tensor] | None:
    """Return the attention of flashdeberta, or None where it is not installed or can't be loaded.

    By name: what transformers finds in an import statement of a file on the Hub, it takes for a requirement.
    """
    if importlib.util.find_spec("flashdeberta") is None:
        return None
    try:
        return importlib.import_module("flashdeberta.ops.flash_attention").flash_attention_with_disentangled
    except (ImportError, AttributeError):  # another Triton, or a release that has it elsewhere
        return None


def lengths_of(mask: torch.Tensor) -> torch.Tensor | None:
    """Return (batch,), how many keys of each row the kernel reads, or None if it can't read them.

    Args:
        mask: (batch, length). Zero for padding, which must be on the right.
    """
    if mask.device.type != DEVICE or kernel() is None:
        return None
    real = mask.bool()
    if (real[:, 1:] & ~real[:, :-1]).any():
        return None
    return real.sum(dim=1, dtype=torch.int32)


def fits(states: torch.Tensor, head_size: int) -> bool:
    """Tell whether the kernel is for such states. It is used without gradients alone: it drops no attention."""
    return states.dtype in DTYPES and head_size in HEAD_SIZES and not torch.is_grad_enabled()


def attend_by_kernel(*heads: torch.Tensor | None, scale: float, buckets: int, positions: int) -> torch.Tensor:
    """Attend with all heads of a batch.

    Args:
        *heads: Queries, keys and values, (batch, heads, length, head size) each; the lengths, (batch,); and the
            positions that queries look at and keys are looked at by, (1, heads, buckets, head size) each or None.
        scale: What scores are multiplied with.
        buckets: `position_buckets` of the configuration; below 1 for a row of the tables a distance.
        positions: How far the tables reach.

    Returns:
        (batch, heads, length, head size).
    """
    return kernel()(*heads, sm_scale=scale, position_buckets=buckets, max_relative_distance=positions)
