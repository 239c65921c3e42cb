"""Small real models of every kind that evaluation needs, and a small file of real judgments."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    set_seed,
)

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from tests.conftest import backbone_config, encoder_tokenizer

JUDGED = Path(__file__).parent / "judged.jsonl"


@pytest.fixture(scope="session")
def judged() -> list[LabelledPrompt]:
    """Eight prompts with six candidates, each pair judged by GPT-4 and people, from vicuna80 (MIT)."""
    return list(read_labelled(JUDGED))


def judged_records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in JUDGED.read_text(encoding="utf-8").splitlines()]


def bart_config(vocab_size: int) -> BartConfig:
    return BartConfig(
        vocab_size=vocab_size,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `encoder`, a masked model `mlm`, a `bart`, and a regression model `bleurt`, all random."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = encoder_tokenizer()
    bert = backbone_config("bert", len(tokenizer))
    regression = backbone_config("bert", len(tokenizer))
    regression.num_labels = 1
    set_seed(0)
    made: dict[str, PreTrainedModel] = {
        "encoder": BertModel(bert),
        "mlm": BertForMaskedLM(bert),
        "bart": BartForConditionalGeneration(bart_config(len(tokenizer))),
        "bleurt": BertForSequenceClassification(regression),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root
