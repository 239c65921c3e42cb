"""Configuration of GenFuser."""

import math
from typing import Any

from transformers import MT5Config, T5Config

# Kinds of checkpoints that a GenFuser loads unchanged: its own, plain T5, such as llm-blender/gen_fuser_3b, and mT5.
LOADABLE_TYPES = ("gen_fuser", "t5", "mt5")
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
        self._check()
        if kwargs.get("scale_decoder_outputs") is False:
            # So transformers 5 writes what 4 calls tie_word_embeddings=False, for which it then writes True. 4 would
            # believe that, and silently put the embeddings in the place of the output layer.
            kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    def _check(self) -> None:
        for name in ("max_source_length", "max_candidate_length"):
            if (value := getattr(self, name)) < 8:
                raise ValueError(f"{name}={value} leaves no room for text; use 8 or more")
        for name in ("extractive_min_length_ratio", "extractive_max_overlap"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value}; it is a share from 0 to 1")
        for name in ("extractive_coherence", "extractive_agreement", "extractive_consensus"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"{name}={value}; it is a number, 0 for none")

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
                f"this is a checkpoint of model_type {kind!r}; a GenFuser loads {', '.join(LOADABLE_TYPES)}"
            )
        if kind == MT5Config.model_type:
            config = _as_t5(config)
        return {**config, "model_type": cls.model_type}, rest


def _as_t5(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of an mT5 as a T5, which it is with other defaults.

    Its output layer is separate and not scaled, whatever transformers 5 writes instead.
    """
    return {**MT5Config(**config).to_dict(), "tie_word_embeddings": False}
