"""Evaluations of real small rankers and of rules, against what can be computed by hand."""

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from blender_hf import Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt, gold_scores
from blender_hf.engine.scorer import PairScorer, Presentation
from blender_hf.errors import BlenderError, InputError
from blender_hf.evaluation import report
from blender_hf.evaluation.evaluate import BEST_MODEL, CHANCE, LENGTH, MEAN, Evaluation, evaluate
from blender_hf.evaluation.plots import save_plots
from blender_hf.evaluation.predictors import Query, best_model_baseline, oracle, predictor_of, random_baseline
from blender_hf.inputs import make_item


def prompt(n: int, texts: list[str], pairs: list[tuple[int, int, float]], **more: object) -> LabelledPrompt:
    models = more.pop("models", [None] * len(texts))
    candidates = [{"text": text, "model": model} for text, model in zip(texts, models, strict=True)]
    judged = tuple(JudgedPair(a, b, label) for a, b, label in pairs)
    return LabelledPrompt(n, make_item(f"prompt {n}", candidates), judged, **more)


THREE = [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)]


@pytest.fixture(scope="module")
def evaluation(blender: Blender, judged: list[LabelledPrompt]) -> Evaluation:
    return evaluate(judged, {"ours": predictor_of(blender), "dice": random_baseline()})


def test_everybody_is_measured_on_the_same(evaluation: Evaluation) -> None:
    assert list(evaluation.rankers) == ["ours", "dice", LENGTH, BEST_MODEL, CHANCE]
    assert evaluation.n_prompts == evaluation.n_ranked == 8
    decided = evaluation.n_pairs - evaluation.n_ties
    for name, found in evaluation.rankers.items():
        assert found.figures["accuracy"].n == decided, name
        assert found.figures["accuracy, ties missed"].n == evaluation.n_pairs
        assert found.figures["win rate"].n == 8
        assert found.figures["top-1 regret"].n == evaluation.rankers["ours"].figures["top-1 regret"].n
    assert evaluation.rankers[CHANCE].figures["accuracy"].value == 0.5
    missed = evaluation.rankers[CHANCE].figures["accuracy, ties missed"]
    assert missed.value == pytest.approx(0.5 * decided / evaluation.n_pairs)


def test_accuracy_is_that_of_compare(evaluation: Evaluation, blender: Blender, judged: list[LabelledPrompt]) -> None:
    right = first = 0.0
    n = 0
    for one in judged:
        for a, b in {tuple(sorted((pair.a, pair.b))) for pair in one.pairs}:
            texts = one.item.texts
            comparison = blender.compare(one.item.prompt, texts[a], texts[b])
            for pair in one.pairs:
                if {pair.a, pair.b} == {a, b} and pair.label != 0.5:
                    wins = pair.label if pair.a == a else 1 - pair.label
                    # What is cut to the same tokens is a tie, and half right.
                    right += 0.5 if comparison.logit == 0 else (comparison.logit > 0) == (wins == 1)
                    as_given = comparison.logit_ab if pair.a == a else comparison.logit_ba
                    first += 0.5 if as_given == 0 else (as_given > 0) == (pair.label == 1)
                    n += 1
    figures = evaluation.rankers["ours"].figures
    assert figures["accuracy"].value == pytest.approx(right / n)
    assert figures["accuracy, one order"].value == pytest.approx(first / n)
    rankings = [blender.rank(one.item.prompt, list(one.item.texts)) for one in judged]
    flips = sum((r.flip_rate or 0) * r.n_comparisons for r in rankings) / sum(r.n_comparisons for r in rankings)
    assert figures["flips"].value == pytest.approx(flips)
    cycles = sum(ranking.n_cycles for ranking in rankings) / (8 * 20)
    assert figures["cycles"].value == pytest.approx(cycles)


def test_each_pair_is_asked_about_once(
    blender: Blender, judged: list[LabelledPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[Presentation] = Counter()
    score = PairScorer.score

    def counted(self: PairScorer, presentations: list[Presentation], *args: object, **options: object) -> list[float]:
        asked.update(presentations)
        return score(self, presentations, *args, **options)

    monkeypatch.setattr(PairScorer, "score", counted)
    evaluate(judged[:2], {"ours": predictor_of(blender)})
    different = [len(list(combinations(one.item.texts, 2))) for one in judged[:2]]
    assert sum(asked.values()) == 2 * sum(different)
    assert max(asked.values()) == 1
    asked.clear()
    evaluate(judged[:2], {"ours": predictor_of(blender)}, rankings=False)
    assert sum(asked.values()) == 2 * sum(len({frozenset((p.a, p.b)) for p in one.pairs}) for one in judged[:2])


def test_prompts_are_read_as_they_are_needed(blender: Blender) -> None:
    read = []

    def source() -> Iterator[LabelledPrompt]:
        for n in range(9):
            read.append(n)
            yield prompt(n, ["good", "bad"], [(0, 1, 1.0)])

    seen: list[int] = []
    evaluate(source(), {"ours": predictor_of(blender)}, window=2, on_prompt=lambda *_: seen.append(len(read)))
    assert seen[0] <= 5
    assert len(seen) == 9


def test_a_right_ranker_and_a_wrong_one() -> None:
    prompts = [
        prompt(n, ["aaa", "bb", "c"], THREE, scores={"right": (3.0, 2.0, 1.0), "wrong": (1.0, 2.0, 3.0)})
        for n in range(4)
    ]
    found = evaluate(prompts, {name: oracle(name, prompts) for name in ("right", "wrong")}).rankers
    right, wrong = ({name: f.value for name, f in found[key].figures.items()} for key in ("right", "wrong"))
    assert right | {"footrule": 0, "top-1 regret": 0} == {
        **dict.fromkeys(("accuracy", "accuracy, ties missed", "accuracy, three-way", "win rate", "top-1 found"), 1),
        **dict.fromkeys(("pearson", "spearman", "kendall"), pytest.approx(1)),
        "footrule": 0,
        "top-1 regret": 0,
    }
    assert (wrong["accuracy"], wrong["win rate"], wrong["top-1 found"], wrong["top-1 regret"]) == (0, 0, 0, 1)
    assert wrong["footrule"] == 1
    assert found["right"].calibration is None
    assert found["right"].figures == found[LENGTH].figures


def test_ties_need_a_threshold(blender: Blender) -> None:
    prompts = [prompt(0, ["same", "same"], [(0, 1, 0.5)]), prompt(1, ["yes", "no"], [(0, 1, 1.0)])]
    strict = evaluate(prompts, {"ours": predictor_of(blender)}, tie_threshold=0.0).rankers["ours"].figures
    loose = evaluate(prompts, {"ours": predictor_of(blender)}, tie_threshold=0.5).rankers["ours"].figures
    assert strict["accuracy, ties missed"].value <= 0.5
    assert strict["accuracy, three-way"].value >= 0.5  # identical texts tie under any threshold
    assert loose["accuracy, three-way"].value == 0.5
    assert strict["accuracy"] == loose["accuracy"]


def test_sources_and_languages_stand_apart() -> None:
    prompts = [prompt(0, ["longer", "b"], [(0, 1, 1.0)], source="x", lang="en")]
    prompts += [prompt(n, ["longer", "b"], [(0, 1, 0.0)], source="y", lang="ja") for n in (1, 2)]
    found = evaluate(prompts, {}).rankers[LENGTH]
    assert {name: figures["accuracy"].value for name, figures in found.by_source.items()} == {"x": 1, "y": 0, MEAN: 0.5}
    assert {name: figures["accuracy"].value for name, figures in found.by_language.items()} == {"en": 1, "ja": 0}
    assert found.figures["accuracy"].value == pytest.approx(1 / 3)
    text = report.to_markdown(evaluate(prompts, {}))
    assert "## By source" in text
    assert "| x | 1 | 1.000 |" in text
    assert "## By language" in text


def test_the_best_single_model_learns_from_other_prompts_alone() -> None:
    pairs = [(0, 1, 1.0)]
    prompts = [prompt(n, ["a", "b"], pairs, models=["strong", "weak"]) for n in range(3)]
    prompts.append(prompt(3, ["a", "b"], [(0, 1, 0.0)], models=["strong", "weak"]))
    predictions = best_model_baseline(prompts).predict([Query.about(one, complete=True) for one in prompts])
    strengths = [found.scores for found in predictions if found is not None]
    assert strengths == [(pytest.approx(2 / 3), pytest.approx(1 / 3))] * 3 + [(1.0, 0.0)]
    # A model that is seen once has nothing to be known by.
    [alone] = best_model_baseline(prompts[:1]).predict([Query.about(prompts[0], complete=True)])
    assert alone is not None
    assert alone.scores == (0.5, 0.5)
    for names in ([None, None], ["unknown", "unknown"]):
        nameless = prompt(0, ["a", "b"], pairs, models=names)
        assert best_model_baseline([nameless]).predict([Query.about(nameless, complete=True)]) == [None]


def test_two_candidates_make_no_ranking(blender: Blender) -> None:
    found = (
        evaluate([prompt(0, ["good", "bad"], [(0, 1, 1.0)])], {"ours": predictor_of(blender)}).rankers["ours"].figures
    )
    assert "win rate" in found
    assert not {"pearson", "spearman", "kendall", "footrule"} & set(found)


def test_what_candidates_are_worth() -> None:
    texts = ["a", "b", "c", "d"]
    assert gold_scores(prompt(0, texts, THREE)) is None  # d was never judged
    assert gold_scores(prompt(0, texts[:3], THREE)) == (1.0, 0.0, -1.0)
    # The best and the worst were never compared, and what lies between them says enough.
    assert gold_scores(prompt(0, texts[:3], THREE[:2])) == (1.5, 0.0, -1.5)
    assert gold_scores(prompt(0, texts[:3], [(0, 1, 1.0), (1, 0, 1.0), (1, 2, 0.5), (0, 2, 0.5)])) == (0.0, 0.0, 0.0)
    assert gold_scores(prompt(0, texts[:2], [(0, 1, 1.0)], scores={"score": (1.0, None)})) == (1.0, -1.0)
    assert gold_scores(prompt(0, texts[:2], [], scores={"score": (1.0, 3.0)})) == (1.0, 3.0)
    assert gold_scores(prompt(0, texts[:2], [(0, 1, 1.0)]), "bleurt") is None
    assert gold_scores(prompt(0, texts[:1], [])) is None


def test_scores_without_pairs(blender: Blender, tmp_path: Path) -> None:
    prompts = [prompt(n, ["good", "fair", "bad"], [], scores={"score": (3.0, 2.0, 1.0)}) for n in range(2)]
    found = evaluate(prompts, {"ours": predictor_of(blender)})
    assert set(found.rankers["ours"].figures) >= {"spearman", "top-1 regret", "flips"}
    assert "accuracy" not in found.rankers["ours"].figures
    assert found.rankers["ours"].calibration is None
    assert save_plots(found, tmp_path) == []
    assert "| spearman |" in report.to_markdown(found)


def test_plots_are_drawn_again_the_same(evaluation: Evaluation, tmp_path: Path) -> None:
    files = save_plots(evaluation, tmp_path)
    assert [file.name for file in files] == ["accuracy.png", "calibration.png"]
    before = [file.read_bytes() for file in files]
    assert all(data.startswith(b"\x89PNG") for data in before)
    assert [file.read_bytes() for file in save_plots(evaluation, tmp_path)] == before


def test_what_can_not_be_measured(blender: Blender) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate([prompt(0, ["a", "b"], [])], {"ours": predictor_of(blender)})
    with pytest.raises(InputError, match=r"tie_threshold=0\.7"):
        evaluate([], {}, tie_threshold=0.7)
    with pytest.raises(InputError, match="chance is always measured"):
        evaluate([], {"chance": predictor_of(blender)})


def test_random_scores_are_the_same_wherever_a_candidate_stands() -> None:
    one, other = prompt(0, ["a", "b", "a"], []), prompt(0, ["b", "a"], [])
    [first, second] = random_baseline(3).predict([Query.about(p, complete=True) for p in (one, other)])
    assert first is not None
    assert second is not None
    assert first.scores == (second.scores[1], second.scores[0], second.scores[1])


def test_a_missing_extra_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(BlenderError, match=r"evaluation needs scipy: pip install 'blender-hf\[evaluate\]'"):
        evaluate([], {})
