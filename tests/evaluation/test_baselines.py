"""The baselines of the paper: what they compute, by hand."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.errors import CheckpointError, InputError
from blender_hf.evaluation.loading import has_no_fuser, load_predictor
from blender_hf.evaluation.predictors import Query
from blender_hf.inputs import make_item
from blender_hf.loading.baselines import DualEncoder, MlmScorer

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
    assert all(row.ids.count(mask) == 1 and row.target != mask for row in scorer.masked_rows([TEXTS[1]])[0])


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


def test_rankers_by_name(models: Path) -> None:
    prompt = LabelledPrompt("p", ITEM, scores={"quality": (1.0, 4.0, 2.0, 3.0)})
    query = Query.about(prompt, complete=True)

    def load(name: str) -> Blender:
        return Blender.from_pretrained(name, None, device="cpu", local_files_only=True)

    found = {}
    for spec in ("length", "random", "oracle:quality", f"mlm:{models / 'mlm'}", f"simcls:{models / 'encoder'}"):
        [prediction] = load_predictor(spec, [prompt], load).predict([query])
        found[spec] = prediction.scores
        assert has_no_fuser(spec)
        if not spec.startswith("oracle"):
            assert load(spec).rank(ITEM.prompt, TEXTS).scores == prediction.scores
        assert len(prediction.comparisons) == 6
    assert found["length"] == (31.0, 17.0, 3.0, 0.0)
    assert found["oracle:quality"] == (1.0, 4.0, 2.0, 3.0)
    assert not has_no_fuser("org/ranker")
    with pytest.raises(CheckpointError, match="org/ranker"):
        load_predictor("org/ranker", [prompt], load)
    with pytest.raises(InputError, match="no candidate has scores named 'bleurt'; there are quality"):
        load_predictor("oracle:bleurt", [prompt], load)
    with pytest.raises(InputError, match=r"no ranker 'oracle'; write oracle:\.\.\. with the name of a metric"):
        load_predictor("oracle", [prompt], load)
    with pytest.raises(InputError, match="no ranker 'length:x'; write length"):
        load_predictor("length:x", [prompt], load)
