"""Padding, what tokenizers add, and how far positions reach."""

from typing import Any

import pytest
import torch
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from transformers import AutoConfig

from blender_hf.modeling.tokenization import affixes, n_positions, pad_right
from tests.conftest import encoder_tokenizer


def test_shorter_rows_are_filled_on_the_right() -> None:
    batch = pad_right([(5, 6, 7), [8], range(2)], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9], [0, 1, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_no_rows_are_a_batch_too() -> None:
    assert pad_right([], pad_token_id=0)["input_ids"].shape == (0, 0)


def test_affixes_are_what_a_tokenizer_puts_around_one_text_and_around_two() -> None:
    tokenizer = encoder_tokenizer()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert affixes(tokenizer) == ([cls], [sep])
    tokenizer.backend_tokenizer.post_processor = RobertaProcessing(("[SEP]", sep), ("[CLS]", cls), False, False)
    assert affixes(tokenizer) == ([cls], [sep])
    assert affixes(tokenizer, 2) == ([cls], [sep, sep], [sep])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    assert affixes(tokenizer) == ([], [])


def test_a_tokenizer_that_drops_a_text_has_no_affixes() -> None:
    tokenizer = encoder_tokenizer()
    ends = [("[CLS]", tokenizer.cls_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS]", special_tokens=ends)
    with pytest.raises(ValueError, match="encodes 'a' differently with special tokens than without"):
        affixes(tokenizer)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("bert", {"pad_token_id": 3}, 40),
        ("roberta", {"pad_token_id": 3}, 36),
        ("longformer", {"pad_token_id": 1}, 38),
        ("mpnet", {"pad_token_id": 5}, 38),
        ("llama", {"pad_token_id": None}, 40),
        ("modernbert", {}, 40),
    ],
)
def test_positions_are_counted_from_behind_the_padding(kind: str, settings: dict[str, Any], expected: int) -> None:
    assert n_positions(AutoConfig.for_model(kind, max_position_embeddings=40, **settings)) == expected


def test_what_states_no_positions_may_have_any_number() -> None:
    assert n_positions(AutoConfig.for_model("t5")) is None
