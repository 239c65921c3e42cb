"""Loading whatever ranks: a pair ranker, a reward model, or a reranker of sentence-transformers, by its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.utils.quantization_config import QuantizationConfigMixin

from blender_hf.engine.reward_model import positive_index, reading_length
from blender_hf.errors import BlenderError, CheckpointError, InputError, InputTypeError, require
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
from .cross_encoders import is_cross_encoder, load_cross_encoder
from .models import load_model
from .partitioning import whole_weights

HEAD = "ForSequenceClassification"
PLACE_OPTIONS = ("revision", "cache_dir", "subfolder")
# Of `truncation`, what applies to a reward model too.
LONGEST = "max_pair_length"


@dataclass(frozen=True, kw_only=True)
class PointwiseOptions:
    """What only rankers take that score candidates one by one: reward models, and rerankers."""

    #: Of two labels, the index or the name of the one that means a good answer.
    positive_label: int | str | None = None
    #: How transformers spreads the model over devices: "auto", "balanced", ..., or a mapping of modules to devices.
    device_map: Any = None
    #: How transformers quantises the weights while it loads them: one of its `...Config` objects, or a mapping.
    quantization_config: Any = None

    def given(self) -> str | None:
        """Return the name of the first of them that is set, or None."""
        return next((name for name, value in vars(self).items() if value is not None), None)

    def placing(self, device: torch.device) -> dict[str, Any]:
        """Return the options of `from_pretrained` with which it puts the model where it runs; none if it need not.

        Quantised weights stay where they were loaded, so `device` is where that is unless there is a `device_map`.
        """
        where, config = self.device_map, self.quantization_config
        if where is None and config is None:
            return {}
        placed = {"device_map": {"": device} if where is None else where}
        return placed if config is None else {**placed, "quantization_config": config}

    def check(self, device: str | torch.device | None) -> None:
        """Raise an error if they can't be used, or a package is missing that they need."""
        config, where = self.quantization_config, self.device_map
        if config is not None and not isinstance(config, QuantizationConfigMixin | Mapping):
            raise InputTypeError(
                "quantization_config must be one of transformers, such as BitsAndBytesConfig(load_in_4bit=True), or a "
                f"mapping of its fields, not {type(config).__name__}"
            )
        if where is not None and not isinstance(where, str | int | torch.device | Mapping):
            raise InputTypeError(
                f'device_map must be a text such as "auto", a device, or a mapping of modules to devices, not '
                f"{type(where).__name__}"
            )
        if where is not None and device is not None:
            raise InputError(f"device_map={where!r} and device={device!r} both say where the ranker runs; give one")
        if where is not None or config is not None:
            require("accelerate", "train", "device_map=" if config is None else "quantization_config=")


DEFAULT_POINTWISE = PointwiseOptions()


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
    reward: PointwiseOptions = DEFAULT_POINTWISE,
) -> tuple[Any, Any]:
    """Load a pair ranker with its processor, a reward model with its tokenizer, or a reranker with None.

    The last two take no `base`, the first no options of `reward`, and of `truncation` a reward model takes
    `max_pair_length`: the most tokens of a prompt with a candidate. See `load_ranker`.
    """
    running: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
    reward.check(device)
    if names_pair_ranker(name, options):
        if (given := reward.given()) is not None:
            raise InputError(f"{given}= is for a reward model, and {str(name)!r} is a ranker of pairs")
        return load_ranker(name, options, base=base, truncation=truncation, **running)
    if base is not None:
        raise InputError("base= is for a ranker that is an adapter; a reward model has all of its weights")
    if is_cross_encoder(locate(name), options):
        if truncation is not None:
            raise InputError("truncation= is for a PairRanker or a reward model; a reranker states its own lengths")
        if reward.positive_label is not None:
            raise InputError("positive_label= is for a reward model, and this is a reranker, which gives one score")
        placing = reward.placing(pick_device(device))
        return load_cross_encoder(name, options, placing=placing, **running), None
    model, tokenizer = load_reward_model(name, options, reward=reward, **running)
    if truncation is not None:
        _shorten(tokenizer, model.config, truncation)
    return model, tokenizer


def _shorten(tokenizer: Any, config: PretrainedConfig, truncation: Mapping[str, int | str]) -> None:
    """Let a reward model read fewer tokens than its tokenizer and its configuration state."""
    most, longest = reading_length(tokenizer, config), truncation.get(LONGEST)
    if set(truncation) != {LONGEST}:
        raise InputError(
            f"truncation= of a reward model takes {LONGEST} alone, the most tokens of a prompt with a candidate; it "
            f"has {', '.join(map(str, truncation)) or 'nothing'}"
        )
    if not isinstance(longest, int) or isinstance(longest, bool) or not 0 < longest <= most:
        raise InputError(f"truncation: {LONGEST}={longest!r}; this reward model reads from 1 to {most} tokens")
    tokenizer.model_max_length = longest


def load_reward_model(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    reward: PointwiseOptions = DEFAULT_POINTWISE,
) -> tuple[PreTrainedModel, Any]:
    """Load a reward model and its tokenizer; the arguments are as in `load_ranker`."""
    chosen_device = pick_device(device)
    placing = reward.placing(chosen_device)
    running: dict[str, Any] = {"dtype": pick_dtype(dtype, chosen_device), **pick_attention(attn_implementation)}
    where, hub = locate(name), hub_settings(options)

    def load() -> tuple[PreTrainedModel, Any]:
        has_choice = reward.positive_label is not None
        return strictly_loaded(where, has_choice=has_choice, **running, **placing, **hub), load_tokenizer(where, **hub)

    with whole_weights():
        model, tokenizer = explained(load, name, "ranker", options)
    # What accelerate placed has its devices, and quantised weights can't be moved by `to`.
    return (model.eval() if placing else model.eval().to(chosen_device)), tokenizer


def strictly_loaded(
    where: str, config: PretrainedConfig | None = None, *, has_choice: bool = False, **options: Any
) -> PreTrainedModel:
    """Load a reward model as transformers does, and check that it is one and that every weight came from its files.

    With `has_choice` the caller has chosen one of its labels, so it may have two.
    """
    _check_architecture(_config_of(where, **options))
    model, info = AutoModelForSequenceClassification.from_pretrained(
        where,
        config=load_config(where, **_lookup(options)) if config is None else read_alike(config),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are collected, and then an error
        **options,
    )
    if not has_choice:
        positive_index(model.config, type(model).__name__, None)
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
