"""Loading fusers by their name: those of transformers, and language models whose weights are of a few bits."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME

from blender_hf.modeling import CausalGenFuser, FusionProcessor, GenFuser, GenFuserProcessor
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenizer_files import file_options, settings_of

from .adapters import load_model
from .checkpoints import DEFAULT_OPTIONS, HubOptions, load_both, running_options
from .low_bits import ENTRY, base_weights, has_low_bits


def load_fuser(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[GenFuser | CausalGenFuser, FusionProcessor]:
    """Load a fuser, of either kind, and its processor; everything is as in `load_ranker`."""
    running = running_options(device, dtype, attn_implementation)
    return load_both(name, "fuser", fuser_from_pretrained, GenFuserProcessor, options, *running)


def fuser_from_pretrained(
    where: str, *, dtype: torch.dtype = torch.float32, own_weights: bool = False, **options: Any
) -> Any:
    """Load a fuser from its weights or an adapter, or make one of a language model whose weights are of a few bits.

    Args:
        where: A folder or a Hub id.
        dtype: The precision.
        own_weights: Whether weights of a few bits are copied. Without it they are those of all other models of the same
            checkpoint, and nobody may write to them, as training does.
        **options: Options of `GenFuser.from_pretrained`.
    """
    hub = file_options(options)
    if ENTRY not in settings_of(where, CONFIG_NAME, **hub):
        return load_model(GenFuser, where, dtype=dtype, own_weights=own_weights, **options)
    config = load_config(where, **hub)
    has_low_bits(config)  # in a version of the format that is known
    weights: Mapping[str, torch.Tensor] = base_weights(where, dtype, **hub)
    if own_weights:
        weights = {name: weight.clone() for name, weight in weights.items()}
    # What is saved of the fuser has whole weights.
    config = deepcopy(config)
    delattr(config, ENTRY)
    others = {name: value for name, value in options.items() if name not in hub}
    return GenFuser.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, **others)
