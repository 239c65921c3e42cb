"""What a small fuser is made of."""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from blender_hf.training.gen_fuser import train_tokenizer


def test_its_tokenizer_is_the_same_on_every_stack(tmp_path: Path) -> None:
    """transformers 4 takes the space in front of a text away where tokenizer_config.json does not state it."""
    tokenizer = train_tokenizer(["Some English text, Cased.\n\n1. A list"] * 5, 500)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))["add_prefix_space"]
    by_itself = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("Some list", "\n\nA text", "日本", " text"):
        ids = by_itself.encode(text).ids
        assert by_itself.decode(ids) == (text if text.startswith(" ") else f" {text}")
        assert tokenizer(text)["input_ids"] == ids
        assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids
