"""Packed rows: a prompt and several of its candidates as one row, of which each candidate reads the prompt and itself.

So a prompt is read once in a training step for all of its candidates, with gradients, and without copies of its keys
and values. The positions of each candidate go on from the prompt, so its states are those of a row of its own.
"""

from inspect import signature
from typing import Any

import torch

from .configuration_pair_ranker import PairRankerConfig, is_causal

# The kinds of attention that take any mask.
MASKED_ATTENTION = ("eager", "sdpa")
# In configurations: what tells that a layer reads some of the tokens before it only, by their distance in the row.
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window", "local_attention")
FULL_ATTENTION = frozenset({"full_attention", "global"})


def packs_prompts(backbone: Any, config: PairRankerConfig) -> bool:
    """Return whether a backbone reads packed rows as it reads whole ones.

    It has to be causal, with attention of all layers to all tokens before, by positions that are given to it.
    """
    settings = backbone.config
    return (
        is_causal(config.backbone_config)
        and getattr(backbone, "_supports_attention_backend", False)  # takes a mask of its own for each query
        and not getattr(backbone, "_is_stateful", False)
        and "position_ids" in signature(backbone.forward).parameters
        and getattr(settings, "_attn_implementation", None) in MASKED_ATTENTION
        and not _has_windows(settings)
    )


def read_packs(
    backbone: Any, config: PairRankerConfig, input_ids: torch.Tensor, segments: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the representations of the prompts and of the candidates of packed rows, (candidates, hidden) each.

    Args:
        backbone: The decoder; `packs_prompts` is true of it.
        config: The ranker's configuration.
        input_ids: (rows, length). The prompt of each row, then its candidates, padded on the right.
        segments: (rows, length). 0 for the tokens of the prompt, 1, 2, ... for those of each candidate, -1 for padding.
    """
    numbers = torch.arange(int(segments.max()) + 1, device=segments.device)  # of the parts of a row
    spans = segments[:, None, :] == numbers[None, :, None]  # (rows, parts, length)
    hidden = backbone(
        input_ids,
        attention_mask=_mask(backbone, segments),
        position_ids=_positions(spans, segments),
        use_cache=False,
        return_dict=True,
    ).last_hidden_state
    parts = _representations(hidden, input_ids, spans, config)  # (rows, parts, hidden)
    rows, places = (spans[:, 1:].any(dim=2)).nonzero(as_tuple=True)
    return parts[rows, 0], parts[rows, places + 1]


def _has_windows(settings: Any) -> bool:
    """Return whether some layers see a part of what is before them only."""
    kinds = getattr(settings, "layer_types", None) or getattr(settings, "attention_layers", None)
    if kinds:
        return not FULL_ATTENTION.issuperset(kinds)
    return any(getattr(settings, name, None) for name in WINDOWS) and getattr(settings, "use_sliding_window", True)


def _mask(backbone: Any, segments: torch.Tensor) -> torch.Tensor:
    """Return which tokens each token reads, (rows, 1, length, length): those before it of the prompt and of its part.

    It is boolean for PyTorch's attention, and a bias where the attention of transformers adds it.
    """
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    read = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
    read = (read & before)[:, None]
    if backbone.config._attn_implementation == "sdpa":
        return read
    dtype = next(backbone.parameters()).dtype
    return torch.zeros(read.shape, dtype=dtype, device=read.device).masked_fill(~read, torch.finfo(dtype).min)


def _positions(spans: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Return the positions of the tokens, (rows, length), which in each candidate go on from the prompt; padding: 0."""
    lengths = spans.sum(dim=2)  # (rows, parts)
    shifts = lengths.cumsum(dim=1) - lengths - lengths[:, :1]
    shifts[:, 0] = 0
    places = torch.arange(segments.shape[1], device=segments.device)[None, :]
    positions = places - shifts.gather(1, segments.clamp(min=0))
    return positions.masked_fill(segments < 0, 0)


def _representations(
    hidden: torch.Tensor, input_ids: torch.Tensor, spans: torch.Tensor, config: PairRankerConfig
) -> torch.Tensor:
    """Return the representations of all parts, (rows, parts, hidden); those of parts that a row lacks mean nothing."""
    if config.pooling == "last":
        places = (spans * torch.arange(spans.shape[2], device=spans.device)).argmax(dim=2)
        return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
    begun = spans  # (rows, parts, length)
    if not config.is_chat:
        markers = [torch.eq(input_ids, marker)[:, None, :] for marker in config.markers[:2]]
        marked = torch.cat([spans[:, :1] & markers[0], spans[:, 1:] & markers[1]], dim=1)
        begun = spans & (marked.cumsum(dim=2) > 0)
    begun = begun.to(hidden.dtype)
    return begun @ hidden / begun.sum(dim=2, keepdim=True).clamp(min=1)
