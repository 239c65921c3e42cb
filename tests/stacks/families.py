"""Small random models of many families, in settings that the other version of transformers may lose."""

from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, set_seed

from blender_hf.modeling.configurations import MAJOR_VERSION

LAYERS, HEADS, WIDTH = 2, 4, 32
# Ten times the usual: with that, random models hardly read the texts, and every mistake stays below the rounding.
COMMON: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}


def rotary(base: float, share: float | None = None, scaling: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of rotary positions as this version of transformers calls them."""
    part = {} if share is None else {"partial_rotary_factor": share}
    if MAJOR_VERSION >= 5:
        kind = {"rope_type": "default"} if scaling is None else scaling
        return {"rope_parameters": {"rope_theta": base, **kind, **part}}
    return {"rope_theta": base, "rope_scaling": scaling, **part}


def of_each_layer(full: float, sliding: float, names: tuple[str, str]) -> dict[str, Any]:
    """Return the bases of two kinds of attention, which transformers 4 has under these names."""
    if MAJOR_VERSION < 5:
        return dict(zip(names, (full, sliding), strict=True))
    bases = {"full_attention": full, "sliding_attention": sliding}
    return {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()}}


def _neox() -> dict[str, Any]:
    return rotary(3000.0, 0.5) if MAJOR_VERSION >= 5 else {"rotary_emb_base": 3000.0, "rotary_pct": 0.5}


def _modernbert() -> dict[str, Any]:
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    bases = of_each_layer(900.0, 30.0, ("global_rope_theta", "local_rope_theta"))
    if MAJOR_VERSION >= 5:
        return {
            **COMMON,
            **special,
            **bases,
            "layer_types": ["full_attention", "sliding_attention"],
            "local_attention": 16,
        }
    return {**COMMON, **special, **bases, "global_attn_every_n_layers": 2, "local_attention": 16}


def _modernbert_decoder() -> dict[str, Any]:
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    # transformers 4 has the global base for all layers.
    bases = of_each_layer(900.0, 900.0, ("global_rope_theta", "local_rope_theta"))
    return {**COMMON, **special, **bases, "num_hidden_layers": 4, "local_attention": 16}


def _olmo3() -> dict[str, Any]:
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    if MAJOR_VERSION < 5:
        return {**GROUPED, **kinds, "rope_theta": 900.0, "rope_scaling": yarn}
    bases = of_each_layer(900.0, 900.0, ("", ""))
    return {
        **GROUPED,
        **kinds,
        "rope_parameters": {**bases["rope_parameters"], "full_attention": {**yarn, "rope_theta": 900.0}},
    }


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 3.0, 4.0, 5.0]}


def _longrope() -> dict[str, Any]:
    sizes = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
    kind = {"rope_type": "longrope"} if MAJOR_VERSION >= 5 else {"type": "longrope"}
    return {**GROUPED, **sizes, **rotary(500.0, None, {**kind, **LONGROPE})}


T5 = {
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
}
BART = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 256,
    "init_std": 0.2,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
    "eos_token_id": 1,
    "bos_token_id": 0,
}
GEMMA = {**GROUPED, "head_dim": 8}
# By the name of a family: its `model_type`, and its settings.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("albert", {**COMMON, "embedding_size": 16}),
    "bert": ("bert", COMMON),
    "bert-one-type": ("bert", {**COMMON, "type_vocab_size": 1}),
    "deberta-v2": (
        "deberta-v2",
        {**COMMON, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "distilbert": (
        "distilbert",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 48, "initializer_range": 0.2},
    ),
    "electra": ("electra", {**COMMON, "embedding_size": 16}),
    "mpnet": ("mpnet", {**COMMON, "pad_token_id": 1}),
    "modernbert": ("modernbert", _modernbert()),
    "rembert": ("rembert", {**COMMON, "input_embedding_size": 16, "output_embedding_size": 16}),
    "roberta": ("roberta", {**COMMON, "type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {**COMMON, "type_vocab_size": 1}),
    "xlnet": ("xlnet", {"d_model": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "d_inner": 48, "initializer_range": 0.2}),
    "gemma": ("gemma", {**GEMMA, **rotary(700.0)}),
    "gemma2": ("gemma2", {**GEMMA, **rotary(700.0), "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "gemma3_text",
        {
            **GEMMA,
            **of_each_layer(5000.0, 50.0, ("rope_theta", "rope_local_base_freq")),
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 8,
        },
    ),
    "gpt2": (
        "gpt2",
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 256, "initializer_range": 0.2},
    ),
    "gpt2-scaled": (
        "gpt2",
        {
            **{"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 256, "initializer_range": 0.2},
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
    "gpt_neox": ("gpt_neox", {**COMMON, **_neox()}),
    "llama": ("llama", {**GROUPED, **rotary(500.0)}),
    "llama-scaled": ("llama", {**GROUPED, **rotary(500.0, None, LLAMA3)}),
    "llama-linear": ("llama", {**GROUPED, **rotary(500.0, None, {"rope_type": "linear", "factor": 4.0})}),
    "mistral": ("mistral", {**GROUPED, **rotary(700.0), "sliding_window": 16, "head_dim": 8}),
    "modernbert-decoder": ("modernbert-decoder", _modernbert_decoder()),
    "olmo3": ("olmo3", _olmo3()),
    "qwen3_moe": (
        "qwen3_moe",
        {**GROUPED, **rotary(600.0), "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 24},
    ),
    "olmo2": ("olmo2", {**GROUPED, **rotary(700.0)}),
    "phi3": ("phi3", {**GROUPED, **rotary(500.0, 0.5)}),
    "phi3-long": ("phi3", _longrope()),
    "qwen2": ("qwen2", {**GROUPED, **rotary(600.0)}),
    "qwen3": ("qwen3", {**GROUPED, **rotary(600.0), "head_dim": 8}),
    "stablelm": ("stablelm", {**GROUPED, **rotary(400.0, 0.25)}),
    "bart": ("bart", BART),
    "mt5": ("mt5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5": ("t5", T5),
    "t5-untied": ("t5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
# Those that read a text from left to right, and those that read it in both directions.
DECODERS = (
    *("gemma", "gemma2", "gemma3", "gpt2", "gpt2-scaled", "gpt_neox", "llama", "llama-scaled", "llama-linear"),
    *(
        "mistral",
        "modernbert-decoder",
        "olmo2",
        "olmo3",
        "phi3",
        "phi3-long",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "stablelm",
    ),
)
ENCODERS = (
    *("albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "rembert", "roberta"),
    *("xlm-roberta", "xlnet"),
)


def config_of(family: str, vocab_size: int, **settings: Any) -> PretrainedConfig:
    """Return the configuration of a family."""
    kind, own = FAMILIES[family]
    own = {"bos_token_id": 2, "eos_token_id": 1, **own}
    return AutoConfig.for_model(kind, **{"pad_token_id": 0, **own, "vocab_size": vocab_size, **settings})


def random_model(auto_class: Any, config: PretrainedConfig) -> Any:
    """Return a random model in evaluation mode with opinions: no weight is as it began, norms and biases neither."""
    set_seed(0)
    model = auto_class.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


class MadeFrom:
    """Lets a class of models be made from a configuration, as an Auto class is."""

    def __init__(self, model_class: Any) -> None:
        self._model_class = model_class

    def from_config(self, config: Any, attn_implementation: str) -> Any:
        config._attn_implementation = attn_implementation
        return self._model_class(config)
