"""Metrics against references: right by hand, the same in any batch, computed once."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from blender_hf.errors import CheckpointError, InputError
from blender_hf.evaluation.learned_metrics import BartScore, BertScore, Bleurt
from blender_hf.evaluation.metric_cache import CachedMetric
from blender_hf.evaluation.metrics import SurfaceMetric, load_metric
from blender_hf.loading.checkpoints import HubOptions

pytestmark = pytest.mark.once

CANDIDATES = ["Boil the egg for eight minutes.", "Eggs.", "I don't know how long an egg takes, sorry.", ""]
REFERENCES = ["Boil it for eight minutes.", "Boil it for eight minutes.", "It takes eight minutes.", "Eight minutes."]


def test_surface_metrics() -> None:
    for name in ("rouge1", "rouge2", "rougeL", "chrf", "bleu"):
        metric = SurfaceMetric(name)
        same, other, empty = metric(["a b c d", "w x y z", ""], ["a b c d"] * 3)
        assert same == pytest.approx(100)
        assert other == pytest.approx(0, abs=1)
        assert empty == pytest.approx(0, abs=1)
    assert SurfaceMetric("rouge1")(["a b"], ["a c"]) == [50.0]


def test_bartscore_is_the_mean_log_likelihood_of_the_reference(models: Path) -> None:
    found = BartScore(models / "bart", device="cpu")(CANDIDATES, REFERENCES)
    model, tokenizer = (
        AutoModelForSeq2SeqLM.from_pretrained(models / "bart"),
        AutoTokenizer.from_pretrained(models / "bart"),
    )
    for candidate, reference, score in zip(CANDIDATES, REFERENCES, found, strict=True):
        labels = tokenizer(reference, return_tensors="pt").input_ids
        inputs = tokenizer(candidate, return_tensors="pt")
        with torch.inference_mode():
            loss = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss
        assert score == pytest.approx(-loss.item(), abs=1e-5)


def test_bleurt_reads_the_reference_first(models: Path) -> None:
    # Of an empty second text a tokenizer of transformers makes no pair.
    found = Bleurt(models / "bleurt", device="cpu")(CANDIDATES[:3], REFERENCES[:3])
    model = AutoModelForSequenceClassification.from_pretrained(models / "bleurt")
    tokenizer = AutoTokenizer.from_pretrained(models / "bleurt")
    for candidate, reference, score in zip(CANDIDATES[:3], REFERENCES[:3], found, strict=True):
        with torch.inference_mode():
            expected = model(
                **tokenizer(reference, candidate, return_token_type_ids=True, return_tensors="pt")
            ).logits.item()
        assert score == pytest.approx(expected, abs=1e-5)


def test_bertscore_by_bert_score(models: Path) -> None:
    metric = BertScore(str(models / "encoder"), num_layers=2, device="cpu")
    same, other = metric(["Boil the egg.", "Trains are late."], ["Boil the egg.", "Boil the egg."])
    assert same == pytest.approx(1, abs=1e-5)
    assert other < same
    assert metric([], []) == []
    with pytest.raises(InputError, match=r"knows no best layer of .*; write bertscore=MODEL@LAYER"):
        BertScore(str(models / "encoder"))


@pytest.mark.parametrize("spec", ["bartscore={}/bart", "bleurt={}/bleurt", "bertscore={}/encoder@2"])
def test_neighbours_change_nothing(spec: str, models: Path) -> None:
    name, metric = load_metric(spec.format(models), {"device": "cpu"})
    together = metric(CANDIDATES[:3], REFERENCES[:3])
    alone = [metric([c], [r])[0] for c, r in zip(CANDIDATES[:3], REFERENCES[:3], strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert all(map(math.isfinite, together))
    assert spec.startswith(name)


def test_names_that_are_none() -> None:
    with pytest.raises(InputError, match="unknown metric 'rouge'; use one of bertscore, bartscore, bleurt, rouge1"):
        load_metric("rouge")
    with pytest.raises(InputError, match="rougeL takes no model"):
        load_metric("rougeL=bert")
    with pytest.raises(CheckpointError, match="can't load the model of BARTScore 'nowhere'"):
        load_metric("bartscore=nowhere", {"hub": HubOptions(local_files_only=True)})


class Counting:
    """A metric that says how often it was asked."""

    def __init__(self, key: str = "length") -> None:
        self.key = key
        self.asked: list[str] = []

    def __call__(self, candidates: list[str], references: list[str]) -> list[float]:
        self.asked += candidates
        return [float(len(c) - len(r)) for c, r in zip(candidates, references, strict=True)]


def test_scores_are_computed_once(tmp_path: Path) -> None:
    first, again, other = Counting(), Counting(), Counting("another")
    path = tmp_path / "new" / "scores.sqlite"
    candidates, references = ["aa", "b", "aa", "a"], ["", "", "", "a"]
    expected = [2.0, 1.0, 2.0, 0.0]
    assert CachedMetric(first, path)(candidates, references) == expected
    assert sorted(first.asked) == ["a", "aa", "b"]
    assert CachedMetric(again, path)(candidates, references) == expected
    assert again.asked == []
    CachedMetric(other, path)(["aa"], [""])
    assert other.asked == ["aa"]
    # Where one text ends and the next begins is part of the pair.
    assert CachedMetric(again, path)(["a"], ["aa"]) == [-1.0]


def test_a_changed_model_is_another_metric(models: Path, tmp_path: Path) -> None:
    import os
    import shutil

    folder = tmp_path / "bart"
    shutil.copytree(models / "bart", folder)
    before = load_metric(f"bartscore={folder}", {"device": "cpu"})[1].key
    assert load_metric(f"bartscore={folder}", {"device": "cpu"})[1].key == before
    os.utime(folder / "config.json", ns=(2 * 10**18, 2 * 10**18))
    assert load_metric(f"bartscore={folder}", {"device": "cpu"})[1].key != before


def test_a_file_that_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be told from one" * 50, encoding="utf-8")
    with pytest.raises(InputError, match=r"can't use .*text to keep scores"):
        CachedMetric(Counting(), tmp_path / "text")
