"""The checkpoints of the authors of LLM-Blender, read as they are.

Both of their formats keep the encoder's weights under `pretrained_model`, and the head in a `Sequential`: 0 dropout, 1
linear, 2 tanh, 3 dropout, 4 linear. They differ in their configuration:

- `llm-blender/PairRM-hf` (class `DebertaV2PairRM`): that of the encoder with a few settings more.
- `llm-blender/PairRM`, `llm-blender/pair-ranker` (`RankerConfig`): it names the encoder's repository, from which the
  tokenizer and the encoder's configuration come.
- `mightbe/Better-PairRM`: as PairRM-hf, trained with other lengths.
"""

import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig

# How the names of the authors' weights begin, and ours.
WEIGHT_PREFIXES = {"pretrained_model.": "backbone.", "head_layer.1.": "head.dense.", "head_layer.4.": "head.out_proj."}
# The same as transformers expects it: regular expressions.
WEIGHT_NAMES = {f"^{re.escape(theirs)}": ours for theirs, ours in WEIGHT_PREFIXES.items()}
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
# Checkpoints in the format of PairRM-hf that were trained with other lengths than it. Their files do not state them,
# only their cards do, so the name of the repository is all there is to go by.
BETTER_PAIRRM = {
    "max_pair_length": 2030 + 2 * 670,
    "max_source_length": 2030,
    # As on the card, what a short prompt leaves is the candidates'.
    "max_candidate_length": (2030 + 2 * 670) // 2,
    "source_truncation_side": "left",
}
# The second is the name under which its card and many scripts know it.
LENGTHS_OF_CARDS = {"mightbe/Better-PairRM": BETTER_PAIRRM, "maywell/Better-PairRM": BETTER_PAIRRM}


def original_weight_name(name: str) -> str:
    """Return the authors' name of one of our weights: the inverse of `WEIGHT_PREFIXES`."""
    for theirs, ours in WEIGHT_PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def lengths_of_card(where: Any) -> dict[str, Any]:
    """Return the lengths and sides that only the card of a repository states; empty for those that are our defaults.

    Args:
        where: A Hub id, a folder with that id at its end, or a snapshot in the Hub's cache.
    """
    parts = Path(str(where)).parts
    for repository, lengths in LENGTHS_OF_CARDS.items():
        if parts[-2:] == tuple(repository.split("/")) or f"models--{repository.replace('/', '--')}" in parts:
            return dict(lengths)
    return {}


def is_pairrm(config: dict[str, Any]) -> bool:
    """Tell whether the dictionary of a configuration is that of a `DebertaV2PairRM`."""
    return {"source_prefix_id", "cand1_prefix_id", "cand2_prefix_id"} <= config.keys()


def from_pairrm(config: dict[str, Any], where: Any) -> dict[str, Any]:
    """Turn the dictionary of a `DebertaV2PairRM` configuration into settings of ours.

    The lengths of the PairRM-hf card are our defaults.

    Args:
        config: The dictionary.
        where: The Hub id or folder that it is from; see `lengths_of_card`.
    """
    encoder = {name: value for name, value in config.items() if name not in NOT_OF_THE_ENCODER}
    return {"backbone_config": encoder, **_renamed(config), **lengths_of_card(where)}


def is_ranker_config(config: dict[str, Any]) -> bool:
    """Tell whether the dictionary of a configuration is an old `RankerConfig`.

    Raises:
        ValueError: If it is one, but of a ranker that does not compare pairs.
    """
    if not {"ranker_type", "model_name", "source_maxlength", "candidate_maxlength"} <= config.keys():
        return False
    if config["ranker_type"] != "pairranker":
        raise ValueError(f"this is a ranker of type {config['ranker_type']!r}; only 'pairranker' compares pairs")
    return True


def from_ranker_config(config: dict[str, Any], tokenizer: Any, **hub: Any) -> dict[str, Any]:
    """Turn the dictionary of a `RankerConfig` into settings of ours.

    Args:
        config: The dictionary.
        tokenizer: Its tokenizer, with the authors' tokens.
        **hub: How the encoder's repository is reached; what does not concern it is left out.
    """
    encoder = AutoConfig.from_pretrained(config["model_name"], **encoder_options(hub)).to_dict()
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


def encoder_options(hub: dict[str, Any]) -> dict[str, Any]:
    """Keep of the options of loading a ranker those that hold for the repository of its encoder too."""
    return {name: hub[name] for name in HUB_OPTIONS if name in hub}


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    return {ours: config[theirs] for theirs, ours in SETTINGS.items() if theirs in config}
