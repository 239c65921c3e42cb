"""Configuration of GenFuser."""

import math
from typing import Any

from transformers import MT5Config, T5Config

# Kinds of checkpoints that a GenFuser loads as they are: its own, plain T5, such as llm-blender/gen_fuser_3b, and mT5.
LOADABLE_TYPES = ("gen_fuser", "t5", "mt5")


class GenFuserConfig(T5Config):
    """A T5 configuration with what the fuser needs to know of its input.

    Args:
        max_source_length: Most tokens of the fuser's input (1024 in the paper).
        max_candidate_length: Most tokens of a candidate (128 in the paper).
        faithful: Whether the fuser only writes whole passages of its candidates, see `PassageLogitsProcessor`.
        faithful_least_share: Share, 0 to 1, of the tokens of its shortest candidate that a faithful answer has before
            it may end: a small fuser would end too soon.
        faithful_coherence: What speaks for the order in which the candidates have their passages, added to logits.
        faithful_agreement: What speaks for passages that other candidates have too.
        faithful_consensus: What speaks for passages of the candidate that has most in common with the others.
        faithful_most_repeated: Share, 0 to 1, of the distinct tokens of a passage that one of another candidate before
            it may have; for all four see `PassageOrder`.
        **kwargs: Options of `T5Config`.
    """

    model_type = "gen_fuser"

    def __init__(
        self,
        max_source_length: int = 1024,
        max_candidate_length: int = 128,
        faithful: bool = False,
        faithful_least_share: float = 0.0,
        faithful_coherence: float = 0.0,
        faithful_agreement: float = 0.0,
        faithful_consensus: float = 0.0,
        faithful_most_repeated: float = 1.0,
        **kwargs: Any,
    ) -> None:
        for name, value in (("max_source_length", max_source_length), ("max_candidate_length", max_candidate_length)):
            if value < 8:
                raise ValueError(f"{name}={value} leaves no room for text; use 8 or more")
        shares = (("faithful_least_share", faithful_least_share), ("faithful_most_repeated", faithful_most_repeated))
        for name, share in shares:
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share}; it is a share from 0 to 1")
        weights = {
            "faithful_coherence": faithful_coherence,
            "faithful_agreement": faithful_agreement,
            "faithful_consensus": faithful_consensus,
        }
        for name, value in weights.items():
            if not math.isfinite(value):
                raise ValueError(f"{name}={value}; it is a number, 0 for none")
        if kwargs.get("scale_decoder_outputs") is False:
            # So transformers 5 writes what 4 calls tie_word_embeddings=False, and then True for that. Believed by 4, it
            # would put the embeddings in the place of the output layer without a word.
            kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self.faithful = faithful
        self.faithful_least_share = faithful_least_share
        self.faithful_coherence = faithful_coherence
        self.faithful_agreement = faithful_agreement
        self.faithful_consensus = faithful_consensus
        self.faithful_most_repeated = faithful_most_repeated

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the dictionary of a configuration, taking that of a plain T5 or mT5 for one of ours.

        Raises:
            ValueError: If it is that of another kind of model.
        """
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
    """Return the configuration of an mT5 as that of the T5 which it is, with other defaults.

    Its output layer is its own and nothing is scaled, whatever transformers 5 writes in the place of that.
    """
    return {**MT5Config(**config).to_dict(), "tie_word_embeddings": False}
