"""Adapters: a ranker or a fuser as a few weights over a language model that is stored once.

The files are those of PEFT: `adapter_config.json` names the language model, and `adapter_model.safetensors` has the
low-rank matrices of LoRA (Hu et al., 2021, arXiv 2106.09685) and the layers that are stored whole. They are merged
while loading, so what comes out is an ordinary model; beside them lie the files of that model but its weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils.hub import cached_file

from blender_hf.errors import CheckpointError
from blender_hf.modeling import PairRanker, PairRankerConfig
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenizer_files import file_options

from .low_bits import base_weights, has_low_bits

CONFIG, ADAPTER_CONFIG, WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
# What PEFT puts before the names of weights, and how those of the two matrices of a layer end.
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# Settings of PEFT that change what a layer computes, with the value that is read here.
PLAIN = {"use_dora": False, "use_rslora": False, "fan_in_fan_out": False, "bias": "none"}
# What the names of the weights that a language model shares with a ranker over it begin with, in either.
LANGUAGE_MODEL, BACKBONE = "model.", "backbone."
# Options of a model that its configuration knows by the same names.
RUNNING = ("dtype", "attn_implementation")
# Where an adapter is, which says nothing of where its language model is.
OF_THE_ADAPTER = ("revision", "subfolder")


def load_model(
    model_class: Any, where: str, *, base: str | None = None, own_weights: bool = False, **options: Any
) -> Any:
    """Load a model, as `from_pretrained` of its class does, from all of its weights or from an adapter.

    Args:
        model_class: `PairRanker` or `GenFuser`.
        where: The folder or Hub id of a checkpoint.
        base: For an adapter, the folder or Hub id of another copy of its language model, such as one in full precision;
            None takes the one that it names.
        own_weights: Whether the weights of a language model that is stored in a few bits are copied, for training.
            Without it they are those of all other models that are made of it.
        **options: The options of `from_pretrained`.

    Raises:
        CheckpointError: If an adapter is not plain LoRA, or does not fit the language model; or if `base` is given and
            there is no adapter.
        OSError: If a file is missing, as in transformers.
    """
    settings = _settings_of(where, options)
    if settings is None:
        if base is not None:
            raise CheckpointError(f"it is no adapter (it has no {ADAPTER_CONFIG}), so it takes no base")
        return model_class.from_pretrained(where, **options)
    named = settings["base_model_name_or_path"] if base is None else base
    # As it is known to the other models that are made of it.
    beside = Path(where, options.get("subfolder") or "", named).resolve()
    weights = _weights_of(str(beside if base is None and beside.is_dir() else named), options)
    if own_weights:
        weights = {name: weight.clone() for name, weight in weights.items()}
    if issubclass(model_class, PairRanker):
        config: Any = PairRankerConfig.from_pretrained(where, **file_options(options))
        # As `from_pretrained` of a model takes settings of its configuration by name.
        for name in [name for name in options if hasattr(config, name) and name not in RUNNING]:
            setattr(config, name, options.pop(name))
        # A ranker has no layer that predicts tokens.
        weights = {
            BACKBONE + name.removeprefix(LANGUAGE_MODEL): weight
            for name, weight in weights.items()
            if name.startswith(LANGUAGE_MODEL)
        }
    else:
        config = load_config(where, **file_options(options))
    adapter = load_file(str(cached_file(where, WEIGHTS, **file_options(options))))  # there, or it is an OSError
    merged = _merged(weights, adapter, settings["lora_alpha"] / settings["r"])
    return model_class.from_pretrained(None, config=config, state_dict=merged, **options)


def _settings_of(where: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of an adapter that lies beside the configuration of its model; None if there is none."""
    known = {**file_options(options), "_raise_exceptions_for_missing_entries": False}
    path = cached_file(where, ADAPTER_CONFIG, **known)
    if path is None or cached_file(where, CONFIG, **known) is None:
        return None
    settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    stated = {name: settings.get(name) for name in PLAIN if settings.get(name) not in (None, PLAIN[name])}
    if settings.get("peft_type") != "LORA" or stated:
        what = ", ".join(
            f"{name}={value!r}" for name, value in {"peft_type": settings.get("peft_type"), **stated}.items()
        )
        raise CheckpointError(
            f"it is an adapter other than plain LoRA ({what}): merge it into its model with PEFT (merge_and_unload), "
            "and save that"
        )
    return settings


def _weights_of(where: str, options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights of a language model, by their names in a checkpoint."""
    hub = {name: value for name, value in file_options(options).items() if name not in OF_THE_ADAPTER}
    dtype = options.get("dtype") or torch.float32
    if has_low_bits(load_config(where, **hub)):
        return base_weights(where, dtype, **hub)
    return AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **hub).state_dict()


def _merged(
    weights: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor], scale: float
) -> dict[str, torch.Tensor]:
    """Return the weights with those of an adapter; those that it leaves as they are are the same tensors."""
    own = {name.removeprefix(PREFIX): weight for name, weight in adapter.items()}
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
