"""Official scores of benchmarks, from records in their published layout, against results worked out by hand."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from blender_hf import Blender, InputError
from blender_hf.data.benchmarks import JUDGE_BENCH, REWARD_BENCH_2, RM_BENCH
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.evaluation.evaluate import CHANCE, evaluate
from blender_hf.evaluation.predictors import predictor_of
from blender_hf.evaluation.report import to_markdown
from blender_hf.training.loading import load_training_data
from blender_hf.training.settings import RankerSettings
from tests.data.shapes import SHAPES

pytestmark = pytest.mark.once


class Marks:
    """A pointwise ranker that reads the score off the end of an answer, as in "Lima|2"."""

    def scores(self, items: Sequence[Any]) -> list[list[float]]:
        return [[float(text.rpartition("|")[2]) for text in item.texts] for item in items]


class Biased:
    """A pairwise ranker that adds a bias for the first to the difference of such marks."""

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def logits(self, presentations: Sequence[Any]) -> list[float]:
        marks = [[float(text.rpartition("|")[2]) for text in (p.first, p.second)] for p in presentations]
        return [first - second + self.bias for first, second in marks]


def scores_of(records: Sequence[Mapping[str, Any]], ranker: Any, benchmark: str) -> dict[str, float]:
    evaluation = evaluate(read_labelled(records), {"own": predictor_of(Blender(ranker))})
    assert benchmark in to_markdown(evaluation)
    return dict(evaluation.rankers["own"].official[benchmark])


def judge_bench(source: str, a: float, b: float, label: str) -> dict[str, Any]:
    record = SHAPES["JudgeBench"].record
    return {**record, "source": source, "response_A": f"one|{a}", "response_B": f"two|{b}", "label": label}


@pytest.mark.parametrize(("bias", "right"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.0)])
def test_judge_bench_wants_no_order_to_be_wrong(bias: float, right: float) -> None:
    # The second order of a difference of 1 says "right", "tie" or "wrong", as the bias grows.
    records = [judge_bench("mmlu-pro-math", 2, 1, "A>B"), judge_bench("livecodebench", 2, 1, "B>A")]
    assert scores_of(records, Biased(bias), JUDGE_BENCH) == {
        "mmlu-pro": right,
        "livecodebench": 0.0,
        "Overall": right / 2,
    }


def test_judge_bench_of_a_ranker_that_scores_single_answers() -> None:
    records = [judge_bench("livebench-math", 1, 2, "B>A"), judge_bench("livebench-math", 1, 1, "B>A")]
    assert scores_of(records, Marks(), JUDGE_BENCH) == {"livebench-math": 0.5, "Overall": 0.5}


def reward_bench_2(id: str, subset: str, chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, Any]:
    return {
        **SHAPES["RewardBench 2"].record,
        "id": id,
        "prompt": f"prompt {id}",
        "chosen": [f"good {n}|{mark}" for n, mark in enumerate(chosen)],
        "rejected": [f"bad {n}|{mark}" for n, mark in enumerate(rejected)],
        "num_correct": len(chosen),
        "num_incorrect": len(rejected),
        "total_completions": len(chosen) + len(rejected),
        "subset": subset,
    }


@pytest.mark.parametrize("ranker", [Marks(), Biased(0.0)], ids=["pointwise", "pairwise"])
def test_reward_bench_2(ranker: Any) -> None:
    records = [
        reward_bench_2("1", "Factuality", [3], [2, 1, 0]),
        reward_bench_2("2", "Factuality", [3], [3, 1, 0]),  # equals share it
        reward_bench_2("3", "Math", [2], [3, 1, 0]),
        reward_bench_2("ref:0", "Ties", [6], [2, 1]),  # right, by 4
        reward_bench_2("tied:0", "Ties", [6, 5], [2, 1]),  # right by 3, and its right answers are 1 apart
        reward_bench_2("ref:1", "Ties", [2], [3, 1]),  # wrong by 1
        reward_bench_2("tied:1", "Ties", [6, 3], [2, 1]),  # right by 1, 3 apart
    ]
    found = scores_of(records, ranker, REWARD_BENCH_2)
    # The logits of a pairwise ranker are averaged over the others, so margins differ by a factor for each prompt.
    gaps = {0: 3.0, 1: -1.0}
    margins = [math.tanh(gaps[0] / 1 - 1), math.tanh(gaps[1] / 3 - 1)]
    ties = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * sum(margins) / 2
    assert found["Factuality"] == 0.75
    assert found["Math"] == 0.0
    assert found["Ties"] == pytest.approx(ties, abs=2e-3 if isinstance(ranker, Biased) else 1e-9)
    assert found["Overall"] == pytest.approx((0.75 + 0 + found["Ties"]) / 3)


def test_chance_on_reward_bench_2_is_one_in_four() -> None:
    evaluation = evaluate(
        read_labelled([reward_bench_2("1", "Focus", [3], [2, 1, 0])]), {"own": predictor_of(Blender(Marks()))}
    )
    assert evaluation.rankers[CHANCE].official[REWARD_BENCH_2]["Focus"] == 0.25


def test_right_answers_that_score_the_same_leave_no_spread() -> None:
    records = [reward_bench_2("ref:0", "Ties", [2], [1]), reward_bench_2("tied:0", "Ties", [3, 3], [1, 0])]
    assert scores_of(records, Marks(), REWARD_BENCH_2)["Ties"] == pytest.approx(1.01)
    assert scores_of(records[1:], Marks(), REWARD_BENCH_2)["Ties"] == pytest.approx(0.3)  # without its twin


@pytest.mark.parametrize("ranker", [Marks(), Biased(0.3)], ids=["pointwise", "pairwise"])
def test_rm_bench(ranker: Any) -> None:
    # A ranker that likes style: 0, 2, 4 for the three styles, and 1 more for what is right.
    likes = {
        **SHAPES["RM-Bench"].record,
        "chosen": ["a|1", "b|3", "c|5"],
        "rejected": ["d|0", "e|2", "f|4"],
    }
    fair = {
        **likes,
        "id": "code_1",
        "prompt": "Another?",
        "chosen": ["a|2", "b|2", "c|2"],
        "rejected": ["d|1", "e|1", "f|2"],
    }
    found = scores_of([likes, fair], ranker, RM_BENCH)
    assert found == pytest.approx({"hard_acc": (0 + 1 / 3) / 2, "normal_acc": (1 + 2 / 3) / 2, "easy_acc": 1.0})


@pytest.mark.parametrize("name", ["JudgeBench", "RewardBench 2", "RM-Bench"])
def test_nobody_trains_on_a_benchmark(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(SHAPES[name].record) + "\n", encoding="utf-8")
    settings = RankerSettings(data=[str(path)])
    with pytest.raises(InputError, match=rf"is of the benchmark {name}, whose scores would mean nothing"):
        load_training_data(settings)


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"JudgeBench", "RewardBench 2", "RM-Bench"}))
def test_other_records_are_of_no_benchmark(name: str) -> None:
    [prompt] = read_labelled([SHAPES[name].record])
    assert prompt.benchmark is None
