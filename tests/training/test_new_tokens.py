"""The tokens that an encoder gets: what a line break becomes, and where new tokens start."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from blender_hf import PairRankerProcessor
from blender_hf.training.fine_tuning import add_line_break_token, initialise_new_tokens
from tests.conftest import LENGTHS, backbone_config
from tests.original_checkpoints import write_encoder_tokenizer
from tests.training.conftest import wordpiece_tokenizer


def test_line_breaks_become_tokens_and_stay_text(tmp_path: Path) -> None:
    tokenizer = wordpiece_tokenizer()
    add_line_break_token(tokenizer)
    saved = PairRankerProcessor.for_training(tokenizer, **LENGTHS)
    saved.save_pretrained(tmp_path)
    processor = PairRankerProcessor.from_pretrained(tmp_path)
    [line_break] = processor.tokenizer.convert_tokens_to_ids(["\n"])
    one, two, three = processor.encode_texts(["a b", "a\nb", "a \n\n b\n"])
    assert (two.count(line_break), three.count(line_break)) == (1, 3)
    assert [i for i in three if i != line_break] == one
    assert line_break not in processor.tokenizer.all_special_ids


def test_sentencepiece_gets_them_too(tmp_path: Path) -> None:
    write_encoder_tokenizer(tmp_path, "sentencepiece")
    backbone_config("deberta-v2", 900).save_pretrained(tmp_path)  # says whose tokenizer it is
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    known = len(tokenizer)
    add_line_break_token(tokenizer)
    assert len(tokenizer) == known + 1
    assert tokenizer.convert_tokens_to_ids("\n") in tokenizer("a\nb", add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_keeps_line_breaks_is_left_alone() -> None:
    letters = pre_tokenizers.ByteLevel.alphabet()
    plain = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    add_line_break_token(tokenizer)
    assert len(tokenizer) == len(letters)
    twice = wordpiece_tokenizer()
    add_line_break_token(twice)
    known = len(twice)
    add_line_break_token(twice)
    assert len(twice) == known


def test_new_tokens_start_from_words_and_known_ones_stay() -> None:
    tokenizer = wordpiece_tokenizer()
    known = len(tokenizer)
    add_line_break_token(tokenizer)
    PairRankerProcessor.for_training(tokenizer, **LENGTHS)
    before = torch.randn(len(tokenizer), 8)
    after = before.clone()
    initialise_new_tokens(torch.nn.Embedding.from_pretrained(after), tokenizer, known)
    assert torch.equal(after[:known], before[:known])
    words = tokenizer("new line", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(after[tokenizer.convert_tokens_to_ids("\n")], before[words].mean(dim=0))
    again = after.clone()
    initialise_new_tokens(torch.nn.Embedding.from_pretrained(again), tokenizer, len(tokenizer))
    assert torch.equal(again, after), "what is known was trained"
