"""Tokenizers as other hands and other versions of transformers leave them: the tokens are those of tokenizer.json."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from blender_hf import GenFuserProcessor, PairRankerProcessor, locate
from blender_hf.modeling.configurations import MAJOR_VERSION
from blender_hf.modeling.hub_mixins import make_portable
from blender_hf.modeling.tokenizer_files import load_tokenizer
from tests.stacks.tokenizer_kinds import TOKENIZERS, write_tokenizer

TEXTS = ["Où est le café ? 12 345", "Rank the answers  of several models", "ÜBER\u00a0ﬁne cafés…"]


def ids(tokenizer: Any) -> list[list[int]]:
    return tokenizer(TEXTS)["input_ids"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_stays_the_same_when_it_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """By transformers alone too, where it keeps what it is given; and with what stands around a text."""
    stated = write_tokenizer(tmp_path / "own", name, saved=False)
    loaded = load_tokenizer(tmp_path / "own")
    assert ids(loaded) == [encoded.ids for encoded in stated.encode_batch(TEXTS)]
    loaded.save_pretrained(tmp_path / "saved")
    assert ids(load_tokenizer(tmp_path / "saved")) == ids(loaded)


@pytest.mark.parametrize(
    "stated", [{"tokenizer_class": "TokenizersBackend"}, {"extra_special_tokens": ["<|im_start|>"]}]
)
def test_what_transformers_5_writes_is_read(stated: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "fuser"
    shutil.copytree(locate("gen-fuser-mini"), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stated))
    own, other = (GenFuserProcessor.from_pretrained(where) for where in (locate("gen-fuser-mini"), folder))
    assert ids(other.tokenizer) == ids(own.tokenizer)
    other.save_pretrained(tmp_path / "again")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "again")) == ids(own.tokenizer)


@pytest.mark.skipif(MAJOR_VERSION >= 5, reason="it has the class")
def test_a_class_of_5_without_the_file_of_its_tokens_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"a TokenizersBackend, which transformers 4 does not have.*transformers 5"):
        load_tokenizer(tmp_path)


def test_the_normalizer_of_a_ranker_is_that_of_its_file(tmp_path: Path) -> None:
    """Accents are kept, though the class of the tokenizer strips them."""
    shutil.copytree(locate("pair-ranker-mini"), tmp_path, dirs_exist_ok=True)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "BertTokenizer"}))
    processor = PairRankerProcessor.from_pretrained(tmp_path)
    expected = [encoded.ids for encoded in backend.encode_batch(TEXTS, add_special_tokens=False)]
    assert processor.encode_texts(TEXTS) == expected


def test_a_portable_tokenizer_has_the_tokens_of_its_file(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "backend", saved=False)
    before = ids(load_tokenizer(tmp_path))
    make_portable(tmp_path)
    assert ids(load_tokenizer(tmp_path)) == before


def _bare(folder: Path, kind: str, settings: dict[str, Any], files: dict[str, str | bytes]) -> Any:
    """Load a tokenizer that has no tokenizer.json."""
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **settings}))
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_tokenizer(folder)


@pytest.mark.parametrize(
    ("kind", "settings", "around"),
    [
        ("LlamaTokenizer", {}, ["<s>", "▁Rank"]),
        ("LlamaTokenizer", {"legacy": True}, ["<s>", "▁Rank"]),
        ("LlamaTokenizer", {"legacy": False}, ["<s>", "▁Rank"]),
        ("LlamaTokenizer", {"add_bos_token": False, "add_eos_token": True}, ["▁Rank", "</s>"]),
        ("GemmaTokenizer", {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>", "Rank"]),
    ],
)
def test_a_model_of_sentencepiece_alone_is_read_alike(
    kind: str, settings: dict[str, Any], around: list[str], tmp_path: Path
) -> None:
    """transformers 4 failed, and 5 lost the token that begins texts, and spaces."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["Rank the answers of several models"] * 9),
        model_writer=model,
        **{"model_type": "bpe", "vocab_size": 320, "byte_fallback": True, "hard_vocab_limit": False},
        **{"normalization_rule_name": "identity", "minloglevel": 2},
        add_dummy_prefix=kind == "LlamaTokenizer",
    )
    tokenizer = _bare(tmp_path, kind, settings, {"tokenizer.model": model.getvalue()})
    assert tokenizer.convert_ids_to_tokens(tokenizer("Rank")["input_ids"]) == around
    n_spaces = 2 + (kind == "LlamaTokenizer" and settings.get("legacy") is not False)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("  the", add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == "▁" * n_spaces + "the"


def test_a_text_of_a_pair_begins_once(tmp_path: Path) -> None:
    files = {"vocab.json": json.dumps({"<s>": 0, "a": 1, "b": 2}), "merges.txt": "#version: 0.2\n"}
    settings = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<s>")
    tokenizer = _bare(tmp_path, "GPT2Tokenizer", {**settings, "add_bos_token": True}, files)
    assert [tokenizer("a")["input_ids"], tokenizer("a", "b")["input_ids"]] == [[0, 1], [0, 1, 2]]
