"""Configuration of GenFuser: that of a T5, or that of a causal language model, with the settings of a fuser."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import MT5Config, PretrainedConfig, T5Config
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

# Kinds of checkpoints that a GenFuser loads unchanged: its own, plain T5, such as llm-blender/gen_fuser_3b, and mT5.
LOADABLE_TYPES = ("gen_fuser", "t5", "mt5")
# Causal language models that are not made for writing on a text.
OTHER_CAUSAL_TYPES = ("bert-generation", "xlnet")
# Settings of extractive decoding, and their values in a fuser that states none; see `GenFuserConfig`.
EXTRACTIVE_SETTINGS: dict[str, Any] = {
    "extractive": False,
    "extractive_min_length_ratio": 0.0,
    "extractive_coherence": 0.0,
    "extractive_agreement": 0.0,
    "extractive_consensus": 0.0,
    "extractive_max_overlap": 1.0,
}
# Names of settings in checkpoints that were saved before 0.1.0, and today's.
RENAMED_SETTINGS = {
    "faithful": "extractive",
    "faithful_least_share": "extractive_min_length_ratio",
    "faithful_coherence": "extractive_coherence",
    "faithful_agreement": "extractive_agreement",
    "faithful_consensus": "extractive_consensus",
    "faithful_most_repeated": "extractive_max_overlap",
}


class GenFuserConfig(T5Config):
    """A T5 configuration with the settings of the fuser's input and of extractive decoding.

    Args:
        max_source_length: Maximum tokens of the fuser's input (1024 in the paper).
        max_candidate_length: Maximum tokens of a candidate (128 in the paper).
        extractive: Whether the fuser only writes whole segments of its candidates, see `SegmentLogitsProcessor`.
        extractive_min_length_ratio: Minimum length of an extractive answer, relative to its shortest candidate, 0 to 1:
            a small fuser would end too soon.
        extractive_coherence: Weight of the order in which the candidates have their segments, added to logits.
        extractive_agreement: Weight of segments that other candidates share.
        extractive_consensus: Weight of segments of the candidate that is most similar to the others.
        extractive_max_overlap: Share, 0 to 1, of the distinct tokens of a segment that one of another candidate before
            it may have; for all four see `SegmentScores`.
        **kwargs: Options of `T5Config`.
    """

    model_type = "gen_fuser"

    def __init__(
        self,
        max_source_length: int = 1024,
        max_candidate_length: int = 128,
        extractive: bool = False,
        extractive_min_length_ratio: float = 0.0,
        extractive_coherence: float = 0.0,
        extractive_agreement: float = 0.0,
        extractive_consensus: float = 0.0,
        extractive_max_overlap: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self.extractive = extractive
        self.extractive_min_length_ratio = extractive_min_length_ratio
        self.extractive_coherence = extractive_coherence
        self.extractive_agreement = extractive_agreement
        self.extractive_consensus = extractive_consensus
        self.extractive_max_overlap = extractive_max_overlap
        check_fusion_settings(self)
        if kwargs.get("scale_decoder_outputs") is False:
            # So transformers 5 writes what 4 calls tie_word_embeddings=False, for which it then writes True. 4 would
            # believe that, and silently put the embeddings in the place of the output layer.
            kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "GenFuserConfig":
        """Create a configuration from its dictionary, which may have the names of `RENAMED_SETTINGS`."""
        renamed = {RENAMED_SETTINGS.get(name, name): value for name, value in config_dict.items()}
        return super().from_dict(renamed, **kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the dictionary of a configuration, converting that of a T5 or mT5; ValueError for other models."""
        config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        kind = config.get("model_type", cls.model_type)
        if kind not in LOADABLE_TYPES:
            raise ValueError(
                f"this is a checkpoint of model_type {kind!r}; a GenFuser loads {', '.join(LOADABLE_TYPES)}, and "
                "causal language models such as llama and qwen3"
            )
        if kind == MT5Config.model_type:
            config = _as_t5(config)
        return {**config, "model_type": cls.model_type}, rest


def _as_t5(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of an mT5 as a T5, which it is with other defaults.

    Its output layer is separate and not scaled, whatever transformers 5 writes instead.
    """
    return {**MT5Config(**config).to_dict(), "tie_word_embeddings": False}


def is_causal_type(model_type: str | None) -> bool:
    """Return whether models of a type are causal language models, of which `GenFuser` makes a `CausalGenFuser`."""
    others = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, OTHER_CAUSAL_TYPES)
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not any(model_type in names for names in others)


def add_fusion_settings(config: PretrainedConfig, given: Mapping[str, Any]) -> None:
    """Give the configuration of a causal language model, in place, the settings of a fuser that it lacks, or `given`.

    It stays that of the language model, which servers and other libraries load as before.

    Raises:
        ValueError: If a value can't work.
    """
    for name, default in EXTRACTIVE_SETTINGS.items():
        setattr(config, name, given.get(name, getattr(config, name, default)))
    check_fusion_settings(config)


def check_fusion_settings(config: PretrainedConfig) -> None:
    """Raise ValueError if a setting of a fuser has a value that can't work."""
    for name in ("max_source_length", "max_candidate_length"):
        if (value := getattr(config, name, 8)) < 8:
            raise ValueError(f"{name}={value} leaves no room for text; use 8 or more")
    for name in ("extractive_min_length_ratio", "extractive_max_overlap"):
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"{name}={value}; it is a share from 0 to 1")
    for name in ("extractive_coherence", "extractive_agreement", "extractive_consensus"):
        if not math.isfinite(value := getattr(config, name)):
            raise ValueError(f"{name}={value}; it is a number, 0 for none")
