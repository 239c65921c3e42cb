"""What the training of a ranker starts from: another ranker, or an encoder or decoder with a new head."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PretrainedConfig

from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import locate, pick_attention
from blender_hf.loading.low_bits import has_low_bits, low_bit_language_model
from blender_hf.loading.models import load_model
from blender_hf.modeling import PairRanker, PairRankerConfig, PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import LAYOUTS, OF_JOINT, format_of, is_causal
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenizer_files import load_tokenizer

from .fine_tuning import add_line_break_token, dropouts_of, initialise_new_tokens, set_dropouts
from .settings import RankerSettings

logger = logging.getLogger(__name__)
LENGTHS = ("max_pair_length", "max_source_length", "max_candidate_length", "source_truncation_side")
# What else of `PairRankerConfig` the settings may change, in a new ranker and in one that a run goes on from.
FORM = (
    "candidate_encoding",
    "shared_prompt",
    "preference_dim",
    "layout",
    "pooling",
    "symmetric",
    "distinct_token_weight",
)


def starting_point(settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    """Load the ranker that training goes on from, or put a new head on an encoder; in training mode and float32."""
    where, hub = locate(settings.model), {"revision": settings.revision}
    config, _ = PretrainedConfig.get_config_dict(where, **hub)
    is_ranker = format_of(config) is not None
    if settings.interpolation < 1 and not is_ranker:
        raise InputError(
            "interpolation is for going on from a ranker: a new head on an encoder has nothing to go back to"
        )
    if settings.line_breaks and is_ranker:
        raise InputError(
            "line_breaks is for training from an encoder: a ranker keeps the tokens that it was trained with"
        )
    model, processor = (_from_ranker if is_ranker else _from_encoder)(where, hub, settings)
    if model.config.is_separate and settings.final_distinct_token_weight:
        raise InputError("final_distinct_token_weight is for candidate_encoding=joint; leave it out")
    if settings.frozen_layers and not model.config.is_separate:
        raise InputError("frozen_layers is for candidate_encoding=separate, where a row is read in every epoch")
    processor.check_lengths(model.config)
    return model.train(), processor


def _from_ranker(where: str, hub: dict[str, Any], settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    lengths = _given(settings, LENGTHS)
    changes = {**lengths, **_given(settings, FORM)}
    loading = {"dtype": torch.float32, **pick_attention(settings.attn_implementation), **hub}
    stated, _ = PairRankerConfig.get_config_dict(where, **hub)
    before = PairRankerConfig.from_dict(stated)
    _check_tasks(before.n_tasks, settings)
    if settings.layout not in (None, before.layout):
        raise InputError(
            f"{settings.model} has layout={before.layout}, and can't go on with layout={settings.layout}: leave it "
            "out, or train from a language model"
        )
    if settings.candidate_encoding in (None, before.candidate_encoding):
        _check_preference_dim(before, settings)
        model = load_model(PairRanker, where, own_weights=True, **loading, **changes)
    elif before.is_separate:
        raise InputError(
            f"{settings.model} encodes each candidate by itself, and can't go on with candidate_encoding=joint: leave "
            "it out, or train from an encoder"
        )
    else:
        model = _separate(load_model(PairRanker, where, own_weights=True, **loading), stated, changes, settings.model)
    model.config.logit_temperature = 1.0  # it was fitted to the old weights
    set_dropouts(model.backbone, dropouts_of(settings, model.backbone.config))
    return model, PairRankerProcessor.from_pretrained(where, **lengths, **hub)


def _separate(joint: PairRanker, stated: Mapping[str, Any], changes: Mapping[str, Any], name: str) -> PairRanker:
    """Return a ranker that encodes each candidate by itself, with the encoder and the score of one that reads pairs.

    What gives a preference embedding is new, and small, so at first the score says nearly all.
    """
    dropped = {key: getattr(joint.config, key) for key in OF_JOINT if getattr(joint.config, key)}
    if dropped:
        listed = ", ".join(f"{key}={value}" for key, value in dropped.items())
        logger.info("left out of %s what is for pairs that are read together: %s", name, listed)
    # The encoder's own configuration knows how its attention is computed.
    form = {**OF_JOINT, **changes, "backbone_config": joint.config.backbone_config}
    model = PairRanker(PairRankerConfig.from_dict({**stated, **form}))
    model.load_state_dict({**model.state_dict(), **joint.state_dict()})
    return model


def _check_preference_dim(before: PairRankerConfig, settings: RankerSettings) -> None:
    if before.is_separate and settings.preference_dim not in (None, before.preference_dim):
        raise InputError(
            f"{settings.model} has preference_dim={before.preference_dim}, and can't go on with "
            f"{settings.preference_dim}: leave preference_dim out, or train from a joint ranker or an encoder, which "
            "get new preference embeddings"
        )


def _check_tasks(n_tasks: int, settings: RankerSettings) -> None:
    asked = max(1, len(settings.metrics))
    if n_tasks != asked:
        labels = f"metrics names {len(settings.metrics)}" if settings.metrics else "without metrics there is one"
        raise InputError(
            f"{settings.model} has n_tasks={n_tasks}, one logit a label, and {labels}: name {n_tasks} metrics, or "
            "train from an encoder, which gets a new head"
        )


def _from_encoder(where: str, hub: dict[str, Any], settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    tokenizer = load_tokenizer(where, **hub)
    _choose_padding(tokenizer, settings.model)
    n_tokens = len(tokenizer)
    if settings.line_breaks:
        add_line_break_token(tokenizer)
    config = load_config(where, **hub)
    lengths = {**_lengths_of(where, hub), **_given(settings, LENGTHS)}
    processor = PairRankerProcessor.for_training(tokenizer, layout=settings.layout or LAYOUTS[0], **lengths)
    # At the marker in front of a part, a model that reads from left to right has not read that part.
    pooling = {"pooling": "last"} if is_causal(config) else {}
    dropouts = dropouts_of(settings, config)
    attention: dict[str, Any] = pick_attention(settings.attn_implementation)
    encoder: Any = where
    if has_low_bits(config):
        encoder = low_bit_language_model(where, load_config(where, **dropouts, **hub), **attention, **hub).base_model
    model = PairRanker.from_backbone(
        encoder,
        n_added_tokens=len(tokenizer) - n_tokens,
        n_positions=processor.max_pair_length,
        n_tasks=max(1, len(settings.metrics)),
        backbone_options={**dropouts, **attention, **hub},
        **{**pooling, **_given(settings, FORM)},
        **processor.special_token_ids(),
        **{name: getattr(processor, name) for name in LENGTHS},
    )
    initialise_new_tokens(model.get_input_embeddings(), tokenizer, n_tokens)
    return model, processor


def _choose_padding(tokenizer: Any, name: str) -> None:
    """Let the end token pad where a tokenizer has no padding token, as those of many decoders: padding is not read."""
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name} has neither a padding token nor an end token, and rows of a batch are padded: "
            "name one as pad_token in its tokenizer_config.json"
        )
    tokenizer.pad_token = tokenizer.eos_token


def _lengths_of(where: str, hub: dict[str, Any]) -> dict[str, int]:
    """Return lengths for an encoder: those of PairRM, or all that its table of positions reaches."""
    positions = getattr(load_config(where, **hub), "max_position_embeddings", 0)
    relative = PretrainedConfig.get_config_dict(where, **hub)[0].get("model_type") == "deberta-v2"
    if relative or positions >= 2048:
        return {}
    # A little less: RoBERTa's table has rows that are no positions.
    length = positions - 2
    return {"max_pair_length": length, "max_source_length": length // 2, "max_candidate_length": length // 2}


def _given(settings: RankerSettings, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
