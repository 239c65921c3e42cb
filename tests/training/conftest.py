import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertModel, PreTrainedTokenizerFast, set_seed

from blender_hf.modeling.segmentation import split_segments
from tests.conftest import EXAMPLES, backbone_config, encoder_tokenizer, example_texts


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short real texts: the first sentence of an answer is better than a word."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts = ["".join(split_segments(c["text"])[:2])[:120] for c in record["candidates"][:2]]
            record["candidates"] = [{"text": texts[0]}, {"text": texts[1]}, {"text": "No."}]
            record["pairs"] = [{"a": 0, "b": 2, "label": 1}, {"a": 2, "b": 1, "label": -1}]
            out.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let this process compute the same bits as those of `forked`, which have one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = encoder_tokenizer()
    tokenizer.save_pretrained(folder)
    set_seed(0)  # how much a small run learns depends on where it starts
    BertModel(backbone_config("bert", len(tokenizer))).save_pretrained(folder)
    return folder


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """Return a fresh tokenizer like BERT's, to which a line break is a space."""
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")}
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=[*special.values()], show_progress=False)
    tokenizer.train_from_iterator(example_texts(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def wordpiece_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordpiece")
    tokenizer = wordpiece_tokenizer()
    tokenizer.save_pretrained(folder)
    set_seed(0)
    BertModel(backbone_config("bert", len(tokenizer))).save_pretrained(folder)
    return folder


@pytest.fixture
def ranker_config(data: Path, backbone: Path, tmp_path: Path) -> Path:
    """The settings of a small run that learns in seconds; its folder is `run` beside it."""
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model": str(backbone),
        "data": [str(data)],
        "eval_data": [str(data)],
        "max_pair_length": 96,
        "max_source_length": 32,
        "max_candidate_length": 32,
        "synthetic_negatives": 8,
        "learning_rate": 3e-3,
        "num_train_epochs": 6,
        "per_device_train_batch_size": 16,
        "save_steps": 10,
    }
    path = tmp_path / "ranker.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return path
