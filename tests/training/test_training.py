"""Both training programs, from their command lines, at the smallest scale; and the checkpoints that they write."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from blender_hf import Blender, GenFuser, GenFuserProcessor, PairRanker
from blender_hf.blender import make_items
from blender_hf.modeling.processing_gen_fuser import split_passages
from blender_hf.training import bundle, gen_fuser, pair_ranker
from tests.conftest import EXAMPLES, backbone_config, encoder_tokenizer, ranker_processor


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short real texts: the first sentence of an answer is better than a word."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts = ["".join(split_passages(c["text"])[:2])[:120] for c in record["candidates"][:2]]
            record["candidates"] = [{"text": texts[0]}, {"text": texts[1]}, {"text": "No."}]
            record["pairs"] = [{"a": 0, "b": 2, "label": 1}, {"a": 2, "b": 1, "label": -1}]
            out.write(json.dumps(record) + "\n")
    return path


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = encoder_tokenizer()
    tokenizer.save_pretrained(folder)
    BertModel(backbone_config("bert", len(tokenizer))).save_pretrained(folder)
    return folder


RANKER_OPTIONS = [
    *("--max-pair-length", "96", "--max-source-length", "32", "--damaged-pairs", "8", "--epochs", "6"),
    *("--learning-rate", "3e-3", "--head-learning-rate", "3e-3"),
]


@pytest.mark.slow
def test_a_ranker_learns_from_judged_pairs(data: Path, backbone: Path, tmp_path: Path) -> None:
    options = ["--backbone", str(backbone), "--data", str(data), "--output", str(tmp_path), *RANKER_OPTIONS]
    assert pair_ranker.main(options) == 0
    blender = Blender.from_pretrained(tmp_path, None)
    judged = list(pair_ranker.read_preferences(data))
    results = blender.compare(
        [p.prompt for p in judged], [p.candidate_a for p in judged], [p.candidate_b for p in judged]
    )
    right = [(r.preferred == "a") == (p.label == 1.0) for r, p in zip(results, judged, strict=True)]
    assert sum(right) > 0.9 * len(right)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16"
    assert str(backbone) not in json.dumps(config)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(data: Path, backbone: Path, tmp_path: Path) -> None:
    settings = ["--backbone", str(backbone), "--data", str(data), *RANKER_OPTIONS]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    pair_ranker.main([*settings, "--output", str(straight)])

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_ranker, "save_checkpoint", fail)
        with pytest.raises(KeyboardInterrupt):
            pair_ranker.main([*settings, "--output", str(broken)])
    pair_ranker.main([*settings, "--output", str(broken)])
    one, other = (PairRanker.from_pretrained(folder).state_dict() for folder in (straight, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_other_pair_of_a_batch_has_the_better_first() -> None:
    processor = ranker_processor()
    examples = [{"input_ids": [k, 1], "swapped_ids": [k, 2], "label": label} for k, label in enumerate([1, 1, 0, 0.25])]
    batch = pair_ranker.collate(examples, processor)
    assert batch["labels"].tolist() == [1, 0, 1, 0.25]
    assert batch["input_ids"].tolist() == [[0, 1], [1, 2], [2, 2], [3, 1]]


@pytest.mark.slow
def test_a_fuser_is_trained_from_nothing(data: Path, tmp_path: Path) -> None:
    options = ["--vocab-size", "600", "--d-model", "192", "--layers", "1", "--max-steps", "4", "--batch-size", "4"]
    assert gen_fuser.main(["--data", str(data), "--output", str(tmp_path), *options]) == 0
    model, processor = GenFuser.from_pretrained(tmp_path), GenFuserProcessor.from_pretrained(tmp_path)
    assert model.config.faithful
    [item], _ = make_items("2 + 2?", ["It is 4. Yes.", "Four! I am sure."])
    encoding = processor.encode(item.prompt, item.texts)
    written = model.generate(**processor.pad([encoding.input_ids]), passages=[encoding.passages])
    assert processor.decode_text(written[0])
    assert processor.decode_text(encoding.passages[0]) == "It is 4."
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers 4 knows no other name"


def test_the_tokenizer_of_a_fuser_loses_nothing() -> None:
    tokenizer = gen_fuser.train_tokenizer(["Some English text, Cased.\n\n1. A list"] * 5, 500)
    for text in ("Cased Words, 3.5!", "日本語 and émigré", "tabs\tand\n\nlines", "<extra_id_0> is text"):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() == text


def test_bundling_takes_no_code_and_refuses_what_is_no_checkpoint(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "locate", lambda name: str(tmp_path / name))
    place = bundle.bundle(checkpoints / "ranker", "pair-ranker-mini")
    assert (checkpoints / "ranker" / "modeling_pair_ranker.py").exists()
    assert not list(place.glob("*.py"))
    assert "auto_map" not in (place / "config.json").read_text(encoding="utf-8")
    assert Blender.from_pretrained(place, None).rank("p", ["a", "b"])
    with pytest.raises(ValueError, match="no bundled checkpoint 'mine'"):
        bundle.bundle(checkpoints / "ranker", "mine")
    with pytest.raises(ValueError, match="holds no weights"):
        bundle.bundle(tmp_path, "pair-ranker-mini")


def test_an_unknown_setting_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pair_ranker.main(["--backbone", "b", "--data", "d", "--output", "o", "--learnign-rate", "1"])
    assert "--learnign-rate" in capsys.readouterr().err
