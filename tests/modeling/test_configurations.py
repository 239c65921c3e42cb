"""Configurations that the other version of transformers wrote: read alike, or refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

from blender_hf.modeling.configuration_pair_ranker import PairRankerConfig
from blender_hf.modeling.configurations import MAJOR_VERSION, ROPE_BASES, load_config, read_alike, use_exact_attention

on_4 = pytest.mark.skipif(MAJOR_VERSION >= 5, reason="transformers 5 wrote these")
on_5 = pytest.mark.skipif(MAJOR_VERSION < 5, reason="transformers 4 wrote these")
SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32}


@on_4
@pytest.mark.parametrize(
    ("kind", "saved", "expected"),
    [
        ("llama", {"rope_theta": 5.0, "rope_type": "default"}, {"rope_theta": 5.0, "rope_scaling": None}),
        (
            "llama",
            {"rope_theta": 5.0, "rope_type": "linear", "factor": 2.0},
            {"rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ),
        (
            "gpt_neox",
            {"rope_theta": 5.0, "rope_type": "default", "partial_rotary_factor": 0.5},
            {"rope_theta": 5.0, "rotary_emb_base": 5.0, "rotary_pct": 0.5, "partial_rotary_factor": 0.5},
        ),
        (
            "gemma3_text",
            {
                "full_attention": {"rope_theta": 5.0, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"},
            },
            {"rope_theta": 5.0, "rope_local_base_freq": 3.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
    ],
)
def test_rotary_positions_of_5_are_those_of_4(kind: str, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    config = read_alike(AutoConfig.for_model(kind, rope_parameters=saved))
    assert {name: getattr(config, name) for name in expected} == expected
    assert not hasattr(read_alike(config), "rope_parameters"), "what is saved now states it once"


@on_4
@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("mistral", {"rope_parameters": {"rope_theta": 5.0, "rope_type": "yarn", "factor": 2.0}}, "type 'yarn'"),
        ("llama", {"rope_parameters": {"rope_theta": 5.0, "rope_type": "proportional"}}, "type 'proportional'"),
        ("llama", {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "of full_attention"),
        ("llama", {"is_causal": False}, "is_causal=False"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types="),
        (
            "olmo3",
            {"rope_parameters": {"rope_theta": 5.0, "full_attention": {"rope_theta": 3.0}}},
            "rotary positions with",
        ),
        ("modernbert-decoder", {"local_rope_theta": 3.0}, "local_rope_theta=3.0"),
        ("qwen2_moe", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types="),
    ],
)
def test_what_4_can_not_compute_is_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    config = AutoConfig.for_model(kind)
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=rf"(?s)saved by transformers 5.*{message}.*load it with transformers 5"):
        read_alike(config)


@on_5
def test_bases_of_4_that_a_class_of_5_reads_for_some_layers_alone_are_kept(tmp_path: Path) -> None:
    saved = {"model_type": "olmo3", "rope_theta": 600.0, "rope_scaling": None, **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    found = load_config(tmp_path).rope_parameters
    assert {kind: part["rope_theta"] for kind, part in found.items()} == dict.fromkeys(ROPE_BASES["olmo3"], 600.0)


@on_5
@pytest.mark.parametrize(
    "saved", [{"rope_theta": 600.0, "rope_scaling": None}, {"rope_theta": 12000000.0, "rope_scaling": None}]
)
def test_rotary_positions_that_a_class_of_5_overrules_are_refused(tmp_path: Path, saved: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "apertus", **SMALL, **saved}))
    with pytest.raises(ValueError, match=r"can't compute rope_.*load it with transformers 4"):
        load_config(tmp_path)


@on_4
def test_a_window_that_4_writes_and_does_not_read_is_kept(tmp_path: Path) -> None:
    AutoConfig.for_model("modernbert-decoder", **SMALL, local_attention=16).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).sliding_window != 8
    assert load_config(tmp_path).sliding_window == 8


def test_long_rotations_are_alike_wherever_the_original_length_stands(tmp_path: Path) -> None:
    """transformers 4 reads it beside the factors alone, 5 among them."""
    factors = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 3.0, 4.0, 5.0]}
    scaling = {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, **factors}
    saved = {"model_type": "llama", **SMALL, "rope_theta": 500.0, "rope_scaling": scaling, "vocab_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    model: Any = AutoModel.from_config(load_config(tmp_path))
    assert model.rotary_emb.attention_scaling == pytest.approx((1 + math.log(4) / math.log(64)) ** 0.5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("falcon", {"alibi": True, "multi_query": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gemma2", {"attn_logit_softcapping": 0.5, "head_dim": 8, "num_key_value_heads": 2}),
    ],
)
def test_attention_is_whole_in_every_way_that_can_be_chosen(kind: str, settings: dict[str, Any]) -> None:
    """Falcon counts ALiBi twice if it is eager; sdpa leaves other settings out, in transformers 4."""
    config = AutoConfig.for_model(kind, **SMALL, **settings, vocab_size=50, initializer_range=0.3, pad_token_id=0)
    set_seed(0)
    model: Any = AutoModel.from_config(config, attn_implementation="eager").eval()
    found = []
    for way in ("eager", "sdpa") if kind != "gemma2" or MAJOR_VERSION < 5 else ("eager",):
        for part in (config, model.config):
            part._attn_implementation = way
        use_exact_attention(model)
        with torch.no_grad():
            found.append(model(torch.arange(20)[None], use_cache=False).last_hidden_state)
    assert all(torch.allclose(found[0], one, atol=1e-5) for one in found)


@on_5
def test_relative_keys_of_4_are_refused_by_5_which_dropped_them() -> None:
    config = AutoConfig.for_model("bert", position_embedding_type="relative_key")
    with pytest.raises(ValueError, match=r"position_embedding_type='relative_key'; load it with transformers 4 \(pip"):
        read_alike(config)


def test_a_gemma_has_the_activation_that_it_was_trained_with() -> None:
    assert read_alike(AutoConfig.for_model("gemma", hidden_act="gelu")).hidden_act == "gelu_pytorch_tanh"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3_text", "gpt_neox", "modernbert-decoder"])
def test_a_causal_encoder_needs_another_pooling_than_the_markers(kind: str) -> None:
    backbone = AutoConfig.for_model(kind, **SMALL)
    with pytest.raises(ValueError, match=rf"pooling='marker' with a {kind}.*has not read.*use pooling='last'"):
        PairRankerConfig(backbone_config=backbone)
    assert PairRankerConfig(backbone_config=backbone, pooling="mean").pooling == "mean"


def test_a_decoder_made_of_an_encoder_is_causal_too() -> None:
    with pytest.raises(ValueError, match="from left to right"):
        PairRankerConfig(backbone_config=AutoConfig.for_model("bert", **SMALL, is_decoder=True))
