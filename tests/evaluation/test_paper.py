"""The tables of the paper, by hand and on real judgments in MixInstruct's format."""

import numpy as np
import pytest

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.errors import InputError
from blender_hf.evaluation import paper
from blender_hf.evaluation.gpt_rank import RankAccumulator, at_least_as_good, gpt_ranks, is_fully_judged
from blender_hf.evaluation.metric_cache import fill_scores
from blender_hf.evaluation.metrics import SurfaceMetric
from blender_hf.evaluation.paper import PaperTables, TableSettings, blend_ratios, paper_tables, with_answer
from blender_hf.evaluation.predictors import length_baseline, predictor_of
from tests.evaluation.samples import mixinstruct_records

pytestmark = pytest.mark.once

VICUNA, GUANACO = "vicuna-13b", "guanaco-7b"
SETTINGS = TableSettings(("rougeL", "chrf"), {"Vicuna": VICUNA, "Guanaco": GUANACO})


def four_models() -> LabelledPrompt:
    verdicts = {
        "w,x": "A is better",
        "w,y": "Same good",
        "w,z": "A is better",
        "x,y": "B is better",
        "z,x": "Same bad",
        "y,z": "A is better",
    }
    candidates = [{"model": model, "text": f"answer of {model}"} for model in "wxyz"]
    record = {"instruction": "", "input": "p", "output": "r", "candidates": candidates, "cmp_results": verdicts}
    [prompt] = read_labelled([record])
    return prompt


def test_gpt_rank() -> None:
    prompt = four_models()
    assert is_fully_judged(prompt)
    assert gpt_ranks(prompt) == (1, 3, 1, 3)  # sums 2, -2, 2, -2


@pytest.mark.parametrize(
    ("rule", "expected"),
    # Beside w: itself, beaten, same good, beaten; beside x: better, itself, better, same bad.
    [("paper", ([1, 0, 1, 0], [1, 1, 1, 1])), ("win-rate", ([0.5, 0, 0.5, 0], [1, 0.5, 1, 0]))],
)
def test_at_least_as_good(rule: str, expected: tuple[list[float], list[float]]) -> None:
    prompt = four_models()
    for model, shares in zip("wx", expected, strict=True):
        assert [at_least_as_good(prompt, n, model, rule) for n in range(4)] == shares
    assert at_least_as_good(prompt, 0, "nobody", rule) is None
    with pytest.raises(InputError, match=r"at least as good 'fair'; use one of paper, win-rate"):
        at_least_as_good(prompt, 0, "w", "fair")


def mixinstruct() -> list[LabelledPrompt]:
    return list(read_labelled(mixinstruct_records()))


@pytest.fixture(scope="module")
def tables(blender: Blender) -> PaperTables:
    rankers = {"length": length_baseline()}
    metrics = {name: SurfaceMetric(name) for name in SETTINGS.metrics}
    generation = {"max_new_tokens": 8}
    return paper_tables(
        mixinstruct(),
        rankers,
        SETTINGS,
        blenders={"PairRanker": blender},
        metrics=metrics,
        generation=generation,
        window=3,
    )


def test_the_main_table(tables: PaperTables) -> None:
    rows = {(row.kind, row.name): {name: figure.value for name, figure in row.figures.items()} for row in tables.rows}
    assert [row.kind for row in tables.rows] == sorted(
        (row.kind for row in tables.rows), key=("single model", "oracle", "ranker", "blend").index
    )
    models = {name: values for (kind, name), values in rows.items() if kind == "single model"}
    assert len(models) == 6
    prompts = mixinstruct()
    for name, values in models.items():
        own = [prompt.models.index(name) for prompt in prompts]
        ranks = [gpt_ranks(prompt)[n] for prompt, n in zip(prompts, own, strict=True)]
        assert values["GPT-Rank"] == pytest.approx(np.mean(ranks))
        assert values["top 3 (%)"] == pytest.approx(100 * np.mean([rank <= 3 for rank in ranks]))
        assert values["chrf"] == pytest.approx(
            np.mean([p.scores["chrf"][n] for p, n in zip(prompts, own, strict=True)])
        )
    assert models[VICUNA][">= Vicuna (%)"] == 100
    assert rows["ranker", "Random"]["chrf"] == pytest.approx(np.mean([values["chrf"] for values in models.values()]))
    assert rows["oracle", "GPT-Rank"]["GPT-Rank"] == 1
    for metric in SETTINGS.metrics:
        assert all(
            values[metric] <= rows["oracle", metric][metric] for (kind, _), values in rows.items() if kind != "blend"
        )


def test_the_correlation_table(tables: PaperTables) -> None:
    assert set(tables.correlations) == {"Random", "length", "PairRanker", "rougeL", "chrf"}
    prompts = mixinstruct()
    # As the authors compute it: for each model over the prompts.
    ranks, gold = [], []
    for prompt in prompts:
        by_model = dict(zip(prompt.models, map(len, prompt.item.texts), strict=True))
        order = sorted(by_model.values(), reverse=True)
        names = sorted(by_model)
        ranks.append([order.index(by_model[name]) + 1 for name in names])
        judged = dict(zip(prompt.models, gpt_ranks(prompt), strict=True))
        gold.append([judged[name] for name in names])
    columns = zip(np.array(ranks).T, np.array(gold).T, strict=True)
    found = [np.corrcoef(a, b)[0, 1] for a, b in columns if len(set(a)) > 1 and len(set(b)) > 1]
    assert tables.correlations["length"]["Pearson, by model"] == pytest.approx(np.mean(found))
    distance = np.abs(np.array(ranks) - np.array(gold)).sum(axis=1).mean()
    assert tables.correlations["length"]["footrule"] == pytest.approx(distance)


def test_the_same_ranks_correlate_wholly() -> None:
    ranks = RankAccumulator()
    for scores in ([3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]):
        order = sorted(scores, reverse=True)
        ranks.add(("a", "b", "c"), scores, tuple(order.index(score) + 1 for score in scores))
    found = ranks.correlations()
    assert found.pop("footrule") == 0
    assert len(found) == 6
    assert all(value == pytest.approx(1) for value in found.values())


def test_what_is_not_known_of_a_blend_is_not_said(blender: Blender) -> None:
    prompts = mixinstruct()[:2]
    text = "A new answer."
    metrics = {"chrf": SurfaceMetric("chrf")}
    unjudged = blend_ratios(prompts[0], text, SETTINGS, metrics, None)
    assert set(unjudged) == {"chrf"}
    judged = blend_ratios(prompts[0], text, SETTINGS, metrics, predictor_of(blender))
    assert set(judged) == {"chrf", "GPT-Rank", ">= Vicuna (%)", ">= Guanaco (%)", "top 3 (%)"}
    known = prompts[0].item.texts[2]
    assert blend_ratios(prompts[0], known, SETTINGS, {}, None)["chrf"] == (prompts[0].scores["chrf"][2], 1.0)


def test_a_judged_answer_stands_among_the_others() -> None:
    prompt = mixinstruct()[0]
    longest = with_answer(prompt, "x" * 10_000, length_baseline())
    assert is_fully_judged(longest)
    assert gpt_ranks(longest)[-1] == 1
    shortest = with_answer(prompt, "x", length_baseline())
    assert gpt_ranks(shortest)[-1] == 7
    assert at_least_as_good(shortest, 6, VICUNA, "paper") == 0


def test_prompts_without_all_verdicts_are_counted(blender: Blender) -> None:
    prompts = mixinstruct()[:3]
    [unjudged] = read_labelled([{**mixinstruct_records()[3], "cmp_results": "null"}])
    found = paper_tables([*prompts, unjudged], {}, SETTINGS)
    assert (found.n_prompts, found.n_left_out) == (3, 1)
    with pytest.raises(InputError, match="no prompt has a verdict on every pair of its candidates; 1 lack some"):
        paper_tables([unjudged], {}, SETTINGS)
    with pytest.raises(InputError, match="at least as good 'fair'"):
        paper_tables(prompts, {}, TableSettings((), {}, "fair"))


def test_the_report_says_what_was_measured(tables: PaperTables) -> None:
    text = paper.to_markdown(tables)
    assert "| answers of | kind | rougeL | chrf | GPT-Rank | >= Vicuna (%) | >= Guanaco (%) | top 3 (%) |" in text
    assert 'by the rule "paper"' in text
    assert "| ranks by | Pearson, by model | Spearman, by model | footrule |" in text
    assert paper.to_json(tables)["settings"]["rule"] == "paper"


def test_missing_scores_are_computed_and_others_left() -> None:
    records = mixinstruct_records(("rougeL",))
    del records[1]["candidates"][2]["scores"]["rougeL"]
    metrics = {name: SurfaceMetric(name) for name in ("rougeL", "chrf")}
    records[0]["candidates"][0]["scores"]["rougeL"] = -1.0
    counted: list[int] = []
    filled = list(fill_scores(read_labelled(records), metrics, on_scored=counted.append))
    assert filled[0].scores["rougeL"][0] == -1
    assert filled[1].scores["rougeL"] == pytest.approx(read_scores(1))
    assert all(prompt.complete_scores("chrf") is not None for prompt in filled)
    assert sum(counted) == 8


def read_scores(n: int) -> list[float]:
    record = mixinstruct_records(("rougeL",))[n]
    return [candidate["scores"]["rougeL"] for candidate in record["candidates"]]
