"""The checkpoints of the authors of LLM-Blender, read as they are.

Both of their formats keep the encoder's weights under `pretrained_model`, and the head in a `Sequential`: 0 dropout, 1
linear, 2 tanh, 3 dropout, 4 linear. They differ in their configuration:

- `llm-blender/PairRM-hf` (class `DebertaV2PairRM`): that of the encoder with a few settings more.
- `llm-blender/PairRM`, `llm-blender/pair-ranker` (`RankerConfig`): it names the encoder's repository, from which the
  tokenizer and the encoder's configuration come.
"""

from typing import Any

from transformers import AutoConfig, AutoTokenizer

# Names of weights, as regular expressions, and ours.
WEIGHT_NAMES = {
    r"^pretrained_model\.": "backbone.",
    r"^head_layer\.1\.": "head.dense.",
    r"^head_layer\.4\.": "head.out_proj.",
}
# Settings of PairRM-hf, and ours.
SETTINGS = {
    "n_tasks": "n_tasks",
    "drop_out": "head_dropout",
    "source_prefix_id": "source_token_id",
    "cand1_prefix_id": "candidate1_token_id",
    "cand2_prefix_id": "candidate2_token_id",
}
NOT_OF_THE_ENCODER = {*SETTINGS, "cand_prefix_id", "architectures", "dtype", "torch_dtype", "transformers_version"}
SPECIAL_TOKENS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token")


def is_pairrm(config: dict[str, Any]) -> bool:
    """Tell whether the dictionary of a configuration is that of a `DebertaV2PairRM`."""
    return {"source_prefix_id", "cand1_prefix_id", "cand2_prefix_id"} <= config.keys()


def from_pairrm(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the dictionary of a `DebertaV2PairRM` configuration into settings of ours.

    The lengths of the PairRM-hf card are our defaults.
    """
    encoder = {name: value for name, value in config.items() if name not in NOT_OF_THE_ENCODER}
    return {"backbone_config": encoder, **_renamed(config)}


def is_ranker_config(config: dict[str, Any]) -> bool:
    """Tell whether the dictionary of a configuration is an old `RankerConfig`."""
    return {"ranker_type", "model_name", "source_maxlength", "candidate_maxlength"} <= config.keys()


def from_ranker_config(config: dict[str, Any], **hub: Any) -> dict[str, Any]:
    """Turn the dictionary of a `RankerConfig` into settings of ours.

    Args:
        config: The dictionary.
        **hub: How the encoder's repository is reached; what does not concern it is left out.

    Raises:
        ValueError: If it is that of a ranker that does not compare pairs.
    """
    if config["ranker_type"] != "pairranker":
        raise ValueError(f"this is a ranker of type {config['ranker_type']!r}; only 'pairranker' compares pairs")
    tokenizer = original_tokenizer(config, **hub)
    encoder = AutoConfig.from_pretrained(config["model_name"], **_hub_options(hub)).to_dict()
    ids = dict(zip(list(SETTINGS)[2:], tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS[:3])), strict=True))
    # The authors made the table of embeddings as long as the tokenizer.
    return {
        "backbone_config": {**encoder, "vocab_size": len(tokenizer)},
        **_renamed({**config, **ids}),
        **ranker_lengths(config),
    }


def ranker_lengths(config: dict[str, Any]) -> dict[str, int]:
    """Return the lengths of a `RankerConfig` under our names: a pair holds the source and two candidates."""
    source, candidate = config["source_maxlength"], config["candidate_maxlength"]
    total = source + 2 * candidate
    return {"max_pair_length": total, "max_source_length": source, "max_candidate_length": total // 2}


def original_tokenizer(config: dict[str, Any], **hub: Any) -> Any:
    """Return the tokenizer of a `RankerConfig`: the encoder's with the authors' four tokens."""
    tokenizer = AutoTokenizer.from_pretrained(config["model_name"], **_hub_options(hub))
    tokenizer.add_tokens([t for t in SPECIAL_TOKENS if t not in tokenizer.get_vocab()], special_tokens=True)
    return tokenizer


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    return {ours: config[theirs] for theirs, ours in SETTINGS.items() if theirs in config}


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in HUB_OPTIONS if name in options}
