"""Adapters: a ranker or a fuser as a few weights over a language model that is stored once.

The files are those of PEFT: `adapter_config.json` names the language model, and `adapter_model.safetensors` has the
low-rank matrices of LoRA (Hu et al., 2021, arXiv 2106.09685) and the layers that are stored whole. They are merged
while loading, so what comes out is an ordinary model; beside them lie the files of that model but its weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file

from blender_hf.errors import CheckpointError
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenizer_files import settings_of

from .low_bits import base_weights, has_low_bits

ADAPTER_CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What PEFT puts before the names of weights, and how those of the two matrices of a layer end.
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# Settings of PEFT that change what a layer computes, with the value that is read here.
PLAIN = {"use_dora": False, "use_rslora": False, "fan_in_fan_out": False, "bias": "none"}
# Where an adapter is, which says nothing of where its language model is.
OF_THE_ADAPTER = ("revision", "subfolder")


def adapter_settings(where: str, **hub: Any) -> dict[str, Any] | None:
    """Return the settings of an adapter that lies beside the configuration of its model; None if there is none.

    Raises:
        CheckpointError: If it is not plain LoRA.
    """
    settings = settings_of(where, ADAPTER_CONFIG, **hub)
    if not settings or not settings_of(where, CONFIG_NAME, **hub):
        return None
    stated = {name: settings.get(name) for name in PLAIN if settings.get(name) not in (None, PLAIN[name])}
    kind = settings.get("peft_type")
    if kind != "LORA" or stated:
        what = ", ".join(f"{name}={value!r}" for name, value in {"peft_type": kind, **stated}.items())
        raise CheckpointError(
            f"it is an adapter other than plain LoRA ({what}): merge it into its model with PEFT (merge_and_unload), "
            "and save that"
        )
    return settings


def weights_under(
    where: str, settings: Mapping[str, Any], base: str | None, dtype: torch.dtype, **hub: Any
) -> dict[str, torch.Tensor]:
    """Return the weights of the language model under an adapter, by their names in its checkpoint.

    Args:
        where: The folder or Hub id of the adapter.
        settings: Its settings.
        base: Another copy of the language model than the one that it names.
        dtype: The precision.
        **hub: The options of `from_pretrained` that say how a repository of the Hub is looked up.
    """
    named = settings["base_model_name_or_path"] if base is None else base
    # As it is known to the other models that are made of it.
    beside = Path(where, hub.get("subfolder") or "", named).resolve()
    home = str(beside if base is None and beside.is_dir() else named)
    access = {name: value for name, value in hub.items() if name not in OF_THE_ADAPTER}
    if has_low_bits(load_config(home, **access)):
        return base_weights(home, dtype, **access)
    return AutoModelForCausalLM.from_pretrained(home, dtype=dtype, **access).state_dict()


def adapted(
    weights: Mapping[str, torch.Tensor], where: str, settings: Mapping[str, Any], **hub: Any
) -> dict[str, torch.Tensor]:
    """Return weights, by their names in the model, with an adapter in them; those that it leaves are the same tensors.

    Raises:
        CheckpointError: If it does not fit them.
        OSError: If its file is missing, as in transformers.
    """
    adapter = load_file(str(cached_file(where, WEIGHTS, **hub)))  # there, or it is an OSError
    own = {name.removeprefix(PREFIX): weight for name, weight in adapter.items()}
    scale = settings["lora_alpha"] / settings["r"]
    merged = dict(weights)
    for name in [name for name in own if name.endswith(UP)]:
        changed = name.removesuffix(UP) + ".weight"
        up, down, before = own.pop(name), own.pop(name.removesuffix(UP) + DOWN, None), weights.get(changed)
        if down is None or before is None or before.shape != (up.shape[0], down.shape[1]):
            raise CheckpointError(
                f"the adapter does not fit its language model, which has no {changed} of the shape that it changes: "
                "give the model that it was trained over as base"
            )
        # In float32: the sum is what is rounded.
        merged[changed] = (before.float() + scale * (up.float() @ down.float())).to(before.dtype)
    dtype = next(iter(weights.values())).dtype
    return {**merged, **{name: weight.to(dtype) for name, weight in own.items()}}
