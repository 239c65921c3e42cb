"""The page on a reward model, which scores each answer by itself and compares no pairs."""

from pathlib import Path

import pytest

from blender_hf import Blender
from blender_hf.space import markup
from blender_hf.space.fused import blend_fields
from blender_hf.space.models import Models
from blender_hf.space.service import Service
from blender_hf.space.settings import FusionSettings, RankingSettings
from tests.engine.test_pointwise import chat_tokenizer, decoder_model

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I boil an egg?"}]
TEXTS = ("Boil the water. Add the egg.", "Eggs are laid by hens. Wait eight minutes.", "No. Never. I like trains.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a chat template, which reads the turns and not the text of a conversation."""
    folder = tmp_path_factory.mktemp("models") / "reward"
    tokenizer = chat_tokenizer()
    decoder_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path, checkpoints: Path) -> Service:
    return Service(Models([str(folder)], [str(checkpoints / "fuser")]))


@pytest.fixture(scope="module")
def blender(folder: Path, checkpoints: Path) -> Blender:
    return Blender.from_pretrained(folder, checkpoints / "fuser")


def test_it_ranks_compares_and_blends_as_the_library_does(service: Service, blender: Blender) -> None:
    settings, writing = RankingSettings(top_k=2, tie_threshold=0.0), FusionSettings(24)
    item = service.item(PROMPT, TEXTS)
    ranking = service.rank(item, settings)
    expected = blender.blend(PROMPT, list(TEXTS), top_k=2, generation={"max_new_tokens": 24, "num_beams": 1}).to_dict()
    found = blend_fields(ranking, service.fuse(item, ranking, settings, writing))
    assert found["ranking"]["scores"] == pytest.approx(expected["ranking"]["scores"], abs=1e-5)
    for name in ("fused", "fused_from", "returned", "output"):
        assert found[name] == expected[name]
    comparison = service.compare(PROMPT, *TEXTS[:2])
    assert comparison.logit == pytest.approx(blender.compare(PROMPT, *TEXTS[:2]).logit, abs=1e-5)


def test_the_page_says_that_no_pairs_were_compared(service: Service) -> None:
    ranking = service.rank(service.item(PROMPT, TEXTS), RankingSettings())
    assert "each answer scored by itself" in markup.ranking_html(ranking, 0.02)
    cells = markup.heat_map_html(ranking)
    assert cells.count("From the scores of both.") == 6
    assert "The same text" not in cells
    comparison = service.compare(PROMPT, *TEXTS[:2])
    assert "The order of presentation changes nothing." in markup.comparison_html(comparison)


def test_a_batch_makes_a_leaderboard(service: Service) -> None:
    candidates = [{"text": text, "model": model} for text, model in zip(TEXTS, "mno", strict=True)]
    records = service.records([{"prompt": f"{n}?", "candidates": candidates} for n in range(3)])
    rankings = list(service.iter_rank(records, RankingSettings()))
    found = service.batch_result(records, rankings, 0.02)
    assert {standing["model"] for standing in found["leaderboard"]} == {*"mno"}
