import json
import math
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest

from blender_hf import Blender, Ranking, Truncation
from blender_hf.data.records import record_from_mapping
from blender_hf.space.leaderboard import fit_strengths, leaderboard
from blender_hf.space.service import as_json_lines, preference_records, ranked_record

pytestmark = pytest.mark.once

TRUE = {"strong": 1.0, "middle": 0.2, "weak": -1.2}


def ranking_of(logits: dict[tuple[str, str], float], models: tuple[str | None, ...]) -> Ranking:
    """Return a ranking whose comparisons are these, where one is known."""
    matrix = [[math.nan] * len(models) for _ in models]
    for i, j in combinations(range(len(models)), 2):
        if (models[i], models[j]) in logits:
            matrix[i][j], matrix[j][i] = (sign * logits[models[i], models[j]] for sign in (1, -1))
    scores = tuple(float(-index) for index in range(len(models)))
    return Ranking(
        candidates=tuple(f"text {index}" for index in range(len(models))),
        models=models,
        order=tuple(range(len(models))),
        ranks=tuple(range(1, len(models) + 1)),
        scores=scores,
        logits=tuple(map(tuple, matrix)),
        temperature=1.0,
        truncated=Truncation(0, (0,) * len(models)),
        schedule="full",
    )


def simulated(n: int, seed: int = 0) -> list[Ranking]:
    random = Random(seed)
    names = tuple(TRUE)
    return [
        ranking_of(
            {pair: TRUE[pair[0]] - TRUE[pair[1]] + random.gauss(0, 0.3) for pair in combinations(names, 2)}, names
        )
        for _ in range(n)
    ]


def test_strengths_are_those_that_made_the_comparisons() -> None:
    standings = leaderboard(simulated(200), 0.0)
    assert [standing.model for standing in standings] == ["strong", "middle", "weak"]
    assert [standing.strength for standing in standings] == pytest.approx([1.0, 0.2, -1.2], abs=0.1)
    assert sum(standing.strength for standing in standings) == pytest.approx(0, abs=1e-9)
    assert all(standing.low < standing.strength < standing.high for standing in standings)


def test_more_prompts_make_narrower_intervals() -> None:
    few, many = (leaderboard(simulated(n), 0.0)[0] for n in (10, 200))
    assert many.high - many.low < (few.high - few.low) / 2


def test_fit_is_the_maximum_of_the_likelihood() -> None:
    wins = np.array([[0.0, 6.0, 9.0], [3.0, 0.0, 5.0], [1.0, 2.0, 0.0]])
    fitted = fit_strengths(wins)

    def likelihood(strengths: np.ndarray) -> float:
        return -(wins * np.log1p(np.exp(strengths[None, :] - strengths[:, None]))).sum()

    moves = np.random.default_rng(0).normal(scale=0.2, size=(50, 3))
    assert all(likelihood(fitted) > likelihood(fitted + move) for move in moves)


def test_models_that_never_met_have_finite_strengths() -> None:
    rankings = [ranking_of({("a", "b"): 30.0}, ("a", "b")), ranking_of({("c", "d"): 30.0}, ("c", "d"))]
    standings = leaderboard(rankings, 0.0)
    assert len(standings) == 4
    assert all(math.isfinite(value) for s in standings for value in (s.strength, s.low, s.high))


def test_win_rates_count_ties_as_half() -> None:
    rankings = [ranking_of({("a", "b"): logit}, ("a", "b")) for logit in (2.0, 0.001, -2.0, 2.0)]
    best = leaderboard(rankings, 0.02)[0]
    assert (best.model, best.wins, best.ties, best.losses, best.win_rate) == ("a", 2, 1, 1, 0.625)


def test_candidates_without_a_name_are_passed_over() -> None:
    rankings = [ranking_of({("a", "b"): 1.0}, ("a", None, "b")), ranking_of({}, (None, None))]
    assert [(s.model, s.n_prompts) for s in leaderboard(rankings, 0.0)] == [("a", 1), ("b", 1)]
    assert leaderboard(rankings[1:], 0.0) == ()
    assert leaderboard([], 0.0) == ()


def test_the_order_of_the_prompts_changes_nothing_but_the_draws() -> None:
    rankings = simulated(20)
    one, other = (leaderboard(order, 0.0) for order in (rankings, rankings[::-1]))
    assert [s.strength for s in one] == pytest.approx([s.strength for s in other])


def test_exports_have_the_standard_format(blender: Blender) -> None:
    values = [
        {"id": "q", "prompt": "2 + 2?", "candidates": [{"text": "4", "model": "m"}, "Bananas.", "5"]},
        {"prompt": "?", "candidates": ["same", "same"]},
    ]
    records = [record_from_mapping(value, where="here", default_id=i) for i, value in enumerate(values)]
    rankings = [blender.rank(record.item.prompt, record.item.candidates) for record in records]
    (preference,) = preference_records(records, rankings)
    assert preference["prompt"] == "2 + 2?"
    assert (preference["chosen"], preference["rejected"]) == (rankings[0].best, rankings[0].worst)
    assert preference["score_chosen"] > preference["score_rejected"]
    ranked = json.loads(as_json_lines([ranked_record(records[0], rankings[0])]))
    assert [candidate["text"] for candidate in ranked["candidates"]] == list(rankings[0].sorted_candidates)
    assert [candidate["rank"] for candidate in ranked["candidates"]] == [1, 2, 3]


def test_rankings_of_an_equal_score_give_no_preference(blender: Blender) -> None:
    record = record_from_mapping({"prompt": "?", "candidates": ["a", "b"]}, where="here", default_id=1)
    ranking = replace(blender.rank("?", ["a", "b"]), scores=(1.0, 1.0))
    assert preference_records([record], [ranking]) == []
