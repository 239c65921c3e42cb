"""Configurations that the other version of transformers wrote: read alike, or refused."""

from typing import Any

import pytest
from transformers import AutoConfig

from blender_hf.modeling.configuration_pair_ranker import PairRankerConfig
from blender_hf.modeling.configurations import MAJOR_VERSION, read_alike

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
def test_relative_keys_of_4_are_refused_by_5_which_dropped_them() -> None:
    config = AutoConfig.for_model("bert", position_embedding_type="relative_key")
    with pytest.raises(ValueError, match=r"position_embedding_type='relative_key'; load it with transformers 4 \(pip"):
        read_alike(config)


def test_a_gemma_has_the_activation_that_it_was_trained_with() -> None:
    assert read_alike(AutoConfig.for_model("gemma", hidden_act="gelu")).hidden_act == "gelu_pytorch_tanh"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3_text", "gpt_neox", "modernbert-decoder"])
def test_a_causal_encoder_needs_another_pooling_than_the_markers(kind: str) -> None:
    backbone = AutoConfig.for_model(kind, **SMALL)
    with pytest.raises(ValueError, match=rf"pooling='marker' with a {kind}.*has not read.*use pooling='mean'"):
        PairRankerConfig(backbone_config=backbone)
    assert PairRankerConfig(backbone_config=backbone, pooling="mean").pooling == "mean"


def test_a_decoder_made_of_an_encoder_is_causal_too() -> None:
    with pytest.raises(ValueError, match="from left to right"):
        PairRankerConfig(backbone_config=AutoConfig.for_model("bert", **SMALL, is_decoder=True))
