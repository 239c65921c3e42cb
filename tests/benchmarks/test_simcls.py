"""The training of benchmarks/simcls.py: the loss by hand, and that it learns."""

import json
import random
from pathlib import Path

import pytest
import torch

from benchmarks import simcls
from blender_hf.errors import InputError
from blender_hf.inputs import make_item
from blender_hf.loading.baselines import DualEncoder
from tests.evaluation.conftest import models  # noqa: F401

pytestmark = pytest.mark.once


def test_the_loss_wants_a_margin_that_grows_with_the_rank() -> None:
    ranks = torch.tensor([1, 2, 3])
    assert simcls.ranking_loss(torch.tensor([0.5, 0.3, 0.1]), ranks, 0.1) == 0
    assert simcls.ranking_loss(torch.tensor([0.5, 0.5, 0.5]), ranks, 0.1) == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    # The reference needs no margin, and equals are not told apart.
    assert simcls.ranking_loss(torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0, 1, 1]), 0.1) == 0


def colour_records(n: int) -> list[dict[str, object]]:
    """Return prompts whose better answer is about the same thing."""
    words = ["egg", "train", "time", "water", "python", "history", "music", "planet"]
    rng = random.Random(0)
    records = []
    for k in range(n):
        word, other = rng.sample(words, 2)
        candidates = [{"text": f"It is about the {w}."} for w in (word, other)]
        record = {
            "prompt": f"Tell me about the {word}.",
            "pairs": [{"a": 0, "b": 1, "label": 1}],
            "candidates": candidates,
        }
        records.append({"id": k, **record})
    return records


@pytest.mark.slow
def test_the_dual_encoder_learns(models: Path, tmp_path: Path) -> None:  # noqa: F811
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in colour_records(160)), encoding="utf-8")
    arguments = ["--backbone", str(models / "encoder"), "--data", str(data), "--output_dir", str(tmp_path / "out")]
    options = ["--learning_rate", "2e-3", "--num_train_epochs", "4", "--margin", "0.3"]
    simcls.main([*arguments, *options])
    items = [make_item(r["prompt"], r["candidates"]) for r in colour_records(160)]
    right = {}
    for name, folder in (("before", models / "encoder"), ("after", tmp_path / "out")):
        scores = DualEncoder.from_pretrained(folder, device="cpu").scores(items)
        right[name] = sum(a > b for a, b in scores)
    assert right["after"] >= 140, right
    assert right["after"] > right["before"]


def test_training_needs_candidates_of_different_quality(models: Path, tmp_path: Path) -> None:  # noqa: F811
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"prompt": "p", "candidates": ["a", "b"], "pairs": []}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="no prompt with candidates of different quality"):
        simcls.train(simcls.Settings(str(models / "encoder"), str(data)), simcls.Arguments(str(tmp_path / "out")))
