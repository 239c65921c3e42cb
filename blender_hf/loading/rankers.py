"""Loading whatever ranks: a pair ranker, or a reward model, told apart by their configurations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from blender_hf.engine.reward_model import check_head
from blender_hf.errors import BlenderError, CheckpointError, InputError
from blender_hf.modeling import PairRanker
from blender_hf.modeling.configuration_pair_ranker import format_of
from blender_hf.modeling.configurations import load_config, read_alike, use_exact_attention
from blender_hf.modeling.fast_kernels import use_fast_products
from blender_hf.modeling.hub_mixins import HubAccess, raise_if_incomplete
from blender_hf.modeling.tokenizer_files import file_options, load_tokenizer

from .checkpoints import (
    DEFAULT_OPTIONS,
    HubOptions,
    explained,
    hub_settings,
    load_ranker,
    locate,
    pick_attention,
    pick_device,
    pick_dtype,
)
from .models import load_model
from .partitioning import whole_weights

HEAD = "ForSequenceClassification"
PLACE_OPTIONS = ("revision", "cache_dir", "subfolder")


def names_pair_ranker(name: str | Path, options: HubOptions) -> bool:
    """Return, from its configuration, whether a checkpoint is a pair ranker, in any format that we read."""
    return explained(
        lambda: format_of(_config_of(locate(name), **hub_settings(options))) is not None, name, "ranker", options
    )


def load_any_ranker(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    base: str | Path | None = None,
    truncation: Mapping[str, int | str] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a pair ranker with its processor, or a reward model with its tokenizer.

    A reward model takes no `truncation` and no `base`; see `load_ranker`.
    """
    running: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
    if names_pair_ranker(name, options):
        return load_ranker(name, options, base=base, truncation=truncation, **running)
    if base is not None:
        raise InputError("base= is for a ranker that is an adapter; a reward model has all of its weights")
    if truncation is not None:
        raise InputError(
            "truncation= is for a PairRanker; a reward model reads what its tokenizer and its configuration state"
        )
    return load_reward_model(name, options, **running)


def load_reward_model(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a reward model and its tokenizer; the arguments are as in `load_ranker`."""
    chosen_device = pick_device(device)
    running: dict[str, Any] = {"dtype": pick_dtype(dtype, chosen_device), **pick_attention(attn_implementation)}
    where, hub = locate(name), hub_settings(options)

    def load() -> tuple[PreTrainedModel, Any]:
        return strictly_loaded(where, **running, **hub), load_tokenizer(where, **hub)

    with whole_weights():
        model, tokenizer = explained(load, name, "ranker", options)
    return model.eval().to(chosen_device), tokenizer


def strictly_loaded(where: str, config: PretrainedConfig | None = None, **options: Any) -> PreTrainedModel:
    """Load a reward model as transformers does, and check that it is one and that every weight came from its files."""
    _check_architecture(_config_of(where, **options))
    model, info = AutoModelForSequenceClassification.from_pretrained(
        where,
        config=load_config(where, **_lookup(options)) if config is None else read_alike(config),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are collected, and then an error
        **options,
    )
    check_head(model.config, type(model).__name__)
    # What the model has no use for, as the pooler of an encoder, changes no score.
    needed = {kind: names for kind, names in info.items() if kind != "unexpected_keys"}
    raise_if_incomplete(needed, where, "reward model")
    use_exact_attention(model)
    use_fast_products(model)
    model.hub_access = HubAccess(**options)
    return model


class AutoRanker:
    """What `transformers.pipeline` loads a ranker with: a `PairRanker`, or a reward model."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> PreTrainedModel:
        """Load a ranker, whichever it is."""
        where = pretrained_model_name_or_path
        options = HubOptions(**{name: kwargs[name] for name in PLACE_OPTIONS if kwargs.get(name) is not None})

        def load() -> PreTrainedModel:
            is_pair_ranker = format_of(_config_of(where, **kwargs)) is not None
            return load_model(PairRanker, where, **kwargs) if is_pair_ranker else strictly_loaded(where, **kwargs)

        try:
            return explained(load, where, "ranker", options)
        except CheckpointError as error:
            # Not an OSError: where transformers meets one, it loads the model by another class, with random weights.
            raise BlenderError(str(error)) from error


def _config_of(where: str, **options: Any) -> dict[str, Any]:
    return PretrainedConfig.get_config_dict(where, **file_options(options))[0]


def _lookup(options: Mapping[str, Any]) -> dict[str, Any]:
    trust = {"trust_remote_code": True} if options.get("trust_remote_code") else {}
    return {**file_options(options), **trust}


def _check_architecture(config: dict[str, Any]) -> None:
    names = config.get("architectures") or []
    if names and not any(name.endswith(HEAD) for name in names):
        raise CheckpointError(
            f"this is a {', '.join(names)}, without a head that scores: a ranker is a PairRanker, or a reward model "
            f"(a model {HEAD} with one label); to train a ranker on top of an encoder use "
            "blender_hf.training.pair_ranker"
        )
