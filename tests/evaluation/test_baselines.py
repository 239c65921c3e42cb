"""The baselines of the paper: what they compute, by hand, and that they learn."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.errors import CheckpointError, InputError
from blender_hf.evaluation.baselines import simcls
from blender_hf.evaluation.baselines.dual_encoder import DualEncoder
from blender_hf.evaluation.baselines.mlm import MlmScorer
from blender_hf.evaluation.baselines.named import load_judge
from blender_hf.evaluation.judges import Question
from blender_hf.inputs import make_item
from blender_hf.loading.checkpoints import HubOptions

TEXTS = ["Boil the egg for eight minutes.", "Eggs [MASK] eggs.", "No.", ""]
ITEM = make_item("How long do I boil an egg?", TEXTS)


def test_mlm_scoring_masks_each_token_in_turn(models: Path) -> None:
    scorer = MlmScorer.from_pretrained(models / "mlm", device="cpu")
    [found] = scorer.scores([ITEM])
    model, tokenizer = (
        AutoModelForMaskedLM.from_pretrained(models / "mlm"),
        AutoTokenizer.from_pretrained(models / "mlm"),
    )
    for text, score in ((TEXTS[0], found[0]), (TEXTS[2], found[2])):
        ids = tokenizer(text)["input_ids"]
        likelihoods = []
        for place in range(1, len(ids) - 1):
            masked = [*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]
            with torch.inference_mode():
                logits = model(torch.tensor([masked])).logits[0, place]
            likelihoods.append(logits.log_softmax(-1)[ids[place]].item())
        assert score == pytest.approx(sum(likelihoods) / len(likelihoods), abs=1e-5)
    assert found[3] == pytest.approx(-math.log(len(tokenizer)))  # an empty text
    assert scorer.scores([make_item("another prompt", TEXTS[:1])])[0][0] == pytest.approx(found[0], abs=1e-5)


def test_a_mask_in_a_text_is_text(models: Path) -> None:
    scorer = MlmScorer.from_pretrained(models / "mlm", device="cpu")
    mask = scorer._tokenizer.mask_token_id
    assert all(row.ids.count(mask) == 1 and row.target != mask for row in scorer._rows(scorer._plain([TEXTS[1]])[0]))


def test_the_dual_encoder_gives_cosines(models: Path) -> None:
    [found] = DualEncoder.from_pretrained(models / "encoder", device="cpu").scores([ITEM])
    model, tokenizer = (
        AutoModel.from_pretrained(models / "encoder").eval(),
        AutoTokenizer.from_pretrained(models / "encoder"),
    )

    def embedding(text: str) -> torch.Tensor:
        with torch.inference_mode():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)

    for index in (0, 2):
        expected = torch.cosine_similarity(embedding(ITEM.source), embedding(TEXTS[index]), dim=0)
        assert found[index] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("kind", [MlmScorer, DualEncoder])
def test_baselines_are_rankers(kind: type, models: Path) -> None:
    scorer = kind.from_pretrained(models / {"MlmScorer": "mlm", "DualEncoder": "encoder"}[kind.__name__], device="cpu")
    ranking = Blender(scorer).rank(ITEM.prompt, TEXTS)
    assert ranking.scores == pytest.approx(scorer.scores([ITEM])[0])


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
def test_the_dual_encoder_learns(models: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in colour_records(160)), encoding="utf-8")
    arguments = ["--backbone", str(models / "encoder"), "--data", str(data), "--output", str(tmp_path / "out")]
    options = ["--learning_rate", "2e-3", "--epochs", "4", "--margin", "0.3"]
    assert simcls.main([*arguments, *options]) == 0
    items = [make_item(r["prompt"], r["candidates"]) for r in colour_records(160)]
    right = {}
    for name, folder in (("before", models / "encoder"), ("after", tmp_path / "out")):
        scores = DualEncoder.from_pretrained(folder, device="cpu").scores(items)
        right[name] = sum(a > b for a, b in scores)
    assert right["after"] >= 140, right
    assert right["after"] > right["before"]


def test_training_needs_candidates_of_different_quality(models: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"prompt": "p", "candidates": ["a", "b"], "pairs": []}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="no prompt with candidates of different quality"):
        simcls.train_simcls(simcls.SimclsConfig(str(models / "encoder"), str(data), str(tmp_path / "out")))


def test_rankers_by_name(models: Path) -> None:
    prompt = LabelledPrompt("p", ITEM, scores={"quality": (1.0, 4.0, 2.0, 3.0)})
    question = Question.about(prompt, everything=True)
    options = {"device": "cpu", "hub": HubOptions(local_files_only=True)}

    def no_blender(name: str) -> Blender:
        raise CheckpointError(name)

    found = {}
    for spec in ("length", "random", "oracle:quality", f"mlm:{models / 'mlm'}", f"simcls:{models / 'encoder'}"):
        [opinion] = load_judge(spec, [prompt], no_blender, options).answer([question])
        found[spec] = opinion.scores
        assert len(opinion.comparisons) == 6
    assert found["length"] == (31.0, 17.0, 3.0, 0.0)
    assert found["oracle:quality"] == (1.0, 4.0, 2.0, 3.0)
    with pytest.raises(CheckpointError, match="org/ranker"):
        load_judge("org/ranker", [prompt], no_blender, options)
    with pytest.raises(InputError, match="no candidate has scores named 'bleurt'; there are quality"):
        load_judge("oracle:bleurt", [prompt], no_blender, options)
    with pytest.raises(InputError, match=r"no ranker 'oracle'; write oracle:\.\.\. with the name of a metric"):
        load_judge("oracle", [prompt], no_blender, options)
    with pytest.raises(InputError, match="no ranker 'length:x'; write length"):
        load_judge("length:x", [prompt], no_blender, options)
