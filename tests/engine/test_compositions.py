"""Rankers that are made of others."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blender_hf import Blender, InputError
from blender_hf.cli.main import main
from blender_hf.engine.compositions import Cascade, MinimumBayesRisk, Mixture
from blender_hf.inputs import make_item

pytestmark = pytest.mark.once

PROMPT = "How do I boil an egg?"
ANSWERS = ["Put it in boiling water for eight minutes.", "Eggs are laid by hens.", "No.", "Boil it for eight minutes."]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]


class Table:
    """A pairwise ranker by a number for each text; it notes what it was asked."""

    def __init__(self, marks: dict[str, float], temperature: float = 1.0) -> None:
        self.marks, self.logit_temperature = marks, temperature
        self.asked: list[tuple[str, str]] = []

    def logits(self, presentations: Sequence[Any]) -> list[float]:
        self.asked += [(p.first, p.second) for p in presentations]
        return [self.marks[p.first] - self.marks[p.second] + 0.1 for p in presentations]


@pytest.mark.parametrize("prompt", [PROMPT, TALK])
def test_a_mixture_weighs_the_logits_of_its_rankers(prompt: Any) -> None:
    mini, length = (Blender.from_pretrained(name, None) for name in ("pair-ranker-mini", "length"))
    found = Blender(Mixture([mini.ranker, length.ranker], [0.7, 0.01])).compare(prompt, *ANSWERS[:2])
    parts = [one.compare(prompt, *ANSWERS[:2]) for one in (mini, length)]
    expected = [w * (one.logit_ab / one.temperature) for w, one in zip((0.7, 0.01), parts, strict=True)]
    assert found.logit_ab == pytest.approx(sum(expected), abs=1e-5)
    assert found.temperature == 1.0


def test_fitted_weights_prefer_the_ranker_that_is_right() -> None:
    right, wrong = Table({"a": 1.0, "b": 0.0}), Table({"a": 0.0, "b": 1.0})
    rankers = [Blender(one).ranker for one in (right, wrong)]
    items = [make_item(f"{n}", ["a", "b"]) for n in range(8)]
    mixture = Mixture.fitted(rankers, items, [0.8] * 8)
    assert mixture.weights[1] == pytest.approx(0, abs=1e-4)
    assert mixture.weights[0] == pytest.approx(math.log(0.8 / 0.2), abs=1e-2)


def test_a_cascade_asks_the_expensive_ranker_inside_the_band_alone() -> None:
    cheap = Table({"a": 6.0, "b": 3.0, "c": 2.8}, temperature=2.0)
    expensive = Table({"a": 0.0, "b": 0.0, "c": 5.0})
    cascade = Cascade(Blender(cheap).ranker, Blender(expensive).ranker, (0.3, 0.7))
    ranking = Blender(cascade).rank(PROMPT, ["a", "b", "c"])
    # 3 / 2 is a probability of 0.82, 0.2 / 2 one of 0.52.
    assert set(expensive.asked) == {("b", "c"), ("c", "b")}
    assert (cascade.compared, cascade.asked) == (3, 1)
    assert ranking.comparisons[0][1] == pytest.approx(1.5)
    assert ranking.comparisons[1][2] == pytest.approx(-5)
    assert len(cheap.asked) == 6  # both orders of three pairs, once


@pytest.mark.parametrize(("band", "asked"), [((0.0, 1.0), 1), ((0.5, 0.5), 0)])
def test_the_ends_of_the_band(band: tuple[float, float], asked: int) -> None:
    cascade = Cascade(Blender(Table({"a": 9, "b": 0})).ranker, Blender(Table({"a": 0, "b": 1})).ranker, band)
    Blender(cascade).compare(PROMPT, "a", "b")
    assert cascade.asked == asked


def test_minimum_bayes_risk_by_chrf_prefers_what_the_others_say() -> None:
    ranking = Blender(MinimumBayesRisk()).rank(PROMPT, ANSWERS)
    assert set(ranking.order[:2]) == {0, 3}
    from sacrebleu.metrics import CHRF

    others = [CHRF().sentence_score(ANSWERS[2], [other]).score / 100 for other in (*ANSWERS[:2], ANSWERS[3])]
    assert ranking.scores[2] == pytest.approx(sum(others) / 3)
    assert Blender(MinimumBayesRisk()).rank(PROMPT, ["x"]).scores == (1.0,)
    assert Blender(MinimumBayesRisk()).rank(PROMPT, ["x", "x"]).scores == (1.0, 1.0)


def test_minimum_bayes_risk_by_a_ranker_is_its_mean_probability() -> None:
    mini = Blender.from_pretrained("pair-ranker-mini", None)
    found = Blender.from_pretrained("mbr:pair-ranker-mini", None).rank(PROMPT, ANSWERS).scores
    assert found == pytest.approx(mini.group_reward(PROMPT, ANSWERS, scale="probability"), abs=1e-6)


@pytest.mark.parametrize(
    "name",
    ["mbr:chrf", "mixture:2*pair-ranker-mini|1*mbr:chrf", "cascade:0.4-.6|pair-ranker-mini|length"],
)
def test_compositions_by_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": PROMPT, "candidates": ANSWERS}), encoding="utf-8")
    assert main(["rank", str(path), "--ranker", name, "--quiet"]) == 0
    shown = json.loads(capsys.readouterr().out)["ranking"]["scores"]
    assert shown == pytest.approx(Blender.from_pretrained(name, None).rank(PROMPT, ANSWERS).scores, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mixture", "write mixture:... with rankers"),
        ("mixture:length", "needs two rankers or more, and has 1"),
        ("mixture:a|", "has an empty part"),
        ("mixture:2*a|b", "give a weight to each ranker"),
        ("mixture:0*length|0*random", r"the weights \[0.0, 0.0\] of 2 rankers"),
        ("cascade:a|b", "write cascade:0.25-0.75"),
        ("cascade:0.6-0.7|length|random", "must be inside 0-1 and hold 0.5"),
    ],
)
def test_names_that_cannot_be_read(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Blender.from_pretrained(name, None)
