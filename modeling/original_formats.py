"""The checkpoints of the authors of LLM-Blender, read as they are.

`llm-blender/PairRM-hf` (class `DebertaV2PairRM`) has a DeBERTa-v2 configuration with a few settings more, the encoder's
weights under `pretrained_model`, and the head in a `Sequential`: 0 dropout, 1 linear, 2 tanh, 3 dropout, 4 linear.
"""

from typing import Any

# Names of weights, as regular expressions, and ours.
WEIGHT_NAMES = {
    r"^pretrained_model\.": "backbone.",
    r"^head_layer\.1\.": "head.dense.",
    r"^head_layer\.4\.": "head.out_proj.",
}
# Settings of PairRM, and ours.
SETTINGS = {
    "n_tasks": "n_tasks",
    "drop_out": "head_dropout",
    "source_prefix_id": "source_token_id",
    "cand1_prefix_id": "candidate1_token_id",
    "cand2_prefix_id": "candidate2_token_id",
}
NOT_OF_THE_ENCODER = {*SETTINGS, "cand_prefix_id", "architectures", "dtype", "torch_dtype", "transformers_version"}


def is_pairrm(config: dict[str, Any]) -> bool:
    """Tell whether the dictionary of a configuration is that of a `DebertaV2PairRM`."""
    return {"source_prefix_id", "cand1_prefix_id", "cand2_prefix_id"} <= config.keys()


def from_pairrm(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Turn the dictionary of a `DebertaV2PairRM` configuration into that of a `PairRankerConfig`.

    The lengths of the PairRM-hf card are our defaults.
    """
    encoder = {name: value for name, value in config.items() if name not in NOT_OF_THE_ENCODER}
    ours = {ours: config[theirs] for theirs, ours in SETTINGS.items() if theirs in config}
    return {**ours, "model_type": model_type, "backbone_config": encoder}
