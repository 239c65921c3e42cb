"""What the configuration of a ranker says and refuses."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from blender_hf import PairRankerConfig
from blender_hf.modeling.configuration_pair_ranker import ABSOLUTE_POSITIONS

# As few weights as each kind of encoder lets itself be built with, under the names that it has for them.
TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "embedding_size": 16,
    "input_embedding_size": 16,
    "dim": 16,
    "hidden_dim": 16,
    "num_hidden_layers": 1,
    "n_layers": 1,
    "num_attention_heads": 2,
    "n_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
    "pad_token_id": 3,
    "attention_window": [4],
    "languages": ["en_XX"],
    "default_language": "en_XX",
    "word_embed_proj_dim": 16,
    "ffn_dim": 16,
    "attention_types": [[["global"], 1]],
    "num_layers": 1,
}

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


@pytest.mark.parametrize("kind", ABSOLUTE_POSITIONS)
def test_the_positions_are_as_many_as_the_encoder_really_reads(kind: str) -> None:
    # LiLT embeds six coordinates of a box in equal parts.
    config = AutoConfig.for_model(kind, **TINY | ({"hidden_size": 24} if kind == "lilt" else {}))
    n_positions = PairRankerConfig(backbone_config=config, pooling="mean").n_positions
    assert n_positions is not None
    encoder = AutoModel.from_config(config).eval()
    ids = torch.full((1, n_positions + 1), 7)
    with torch.no_grad():
        assert encoder(input_ids=ids[:, 1:]).last_hidden_state.shape[1] == n_positions
        with pytest.raises((IndexError, RuntimeError)):
            encoder(input_ids=ids)


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_relative_and_rotary_positions_do_not_end(kind: str) -> None:
    own = {"position_biased_input": False} if kind == "deberta-v2" else {}
    assert PairRankerConfig(backbone_config={"model_type": kind, **own}).n_positions is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_dropout": None}, r"head_dropout=None; use a number from 0 up to 1 \(PairRM: drop_out\)"),
        ({"head_dropout": 1.0}, r"head_dropout=1\.0; use a number"),
        ({"backbone_config": {"hidden_size": 32}}, "states no model_type: add it to config.json"),
        ({"backbone_config": {"model_type": "t5"}}, "a t5, whose decoder wants a text of its own; use an encoder"),
        ({"backbone_config": {"model_type": "clip"}}, "a clip, whose configuration states no hidden_size"),
    ],
)
def test_what_a_configuration_can_not_state(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairRankerConfig(**settings)


def test_a_modernbert_has_the_positions_that_either_release_of_transformers_states() -> None:
    """4 passed over `rope_parameters` without a word, and took its defaults."""
    by_four = {"global_rope_theta": 77.0, "local_rope_theta": 33.0}
    by_five = {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 77.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 33.0},
        }
    }
    small = {**TINY, "global_attn_every_n_layers": 2, "num_hidden_layers": 2, **dict.fromkeys(SPECIAL_IDS, 0)}
    ids = torch.arange(30)[None]
    states = []
    for stated in (by_four, by_five, {}):
        config = PairRankerConfig(backbone_config={"model_type": "modernbert", **small, **stated}).backbone_config
        torch.manual_seed(0)
        with torch.no_grad():
            states.append(AutoModel.from_config(config).eval()(ids).last_hidden_state)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
