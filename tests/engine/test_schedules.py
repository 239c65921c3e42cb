"""Schedules, played on matrices of known logits."""

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_hf import Blender, InputError, InputTypeError
from blender_hf.engine.aggregation import max_logits
from blender_hf.engine.contests import Contest
from blender_hf.engine.results import Truncation, Unread
from blender_hf.engine.schedules import SCHEDULES, Pair, Schedule
from blender_hf.inputs import make_item
from blender_hf.modeling.ranking_math import order_of
from tests.conftest import example_texts

TEXTS = example_texts()
PARTIAL = [name for name in SCHEDULES if name != "full"]
STRENGTHS = st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True)


def play(schedule: Schedule, n: int, logit: Callable[[int, int], float]) -> tuple[dict[Pair, float], int]:
    """Return the comparisons that a schedule asked for, and in how many rounds."""
    rounds = schedule.rounds(n)
    made: dict[Pair, float] = {}
    n_rounds = 0
    try:
        asked = next(rounds)
        while True:
            n_rounds += 1
            assert not any(pair in made or pair[::-1] in made for pair in asked), "asked twice"
            assert all(i != j and 0 <= i < n and 0 <= j < n for i, j in asked)
            answers = [logit(i, j) for i, j in asked]
            made |= zip(asked, answers, strict=True)
            asked = rounds.send(answers)
    except StopIteration:
        return made, n_rounds


def by_strength(strengths: list[int]) -> Callable[[int, int], float]:
    return lambda i, j: (strengths[i] - strengths[j]) / 10


@pytest.mark.parametrize("n", range(2, 17))
@pytest.mark.parametrize(
    ("name", "n_rounds"), [("bubble", lambda n: n - 1), ("knockout", lambda n: math.ceil(math.log2(n)))]
)
def test_the_best_takes_n_minus_1_comparisons(name: str, n_rounds: Callable[[int], int], n: int) -> None:
    strengths = random.Random(n).sample(range(100), n)
    made, rounds = play(Schedule(name), n, by_strength(strengths))
    assert len(made) == n - 1
    assert rounds == n_rounds(n)


def test_full_compares_all_in_one_round() -> None:
    made, rounds = play(Schedule("full"), 6, lambda i, j: 1.0)
    assert sorted(made) == list(combinations(range(6), 2))
    assert rounds == 1


@settings(max_examples=60, deadline=None)
@given(STRENGTHS, st.integers(1, 4), st.sampled_from(PARTIAL))
def test_without_contradictions_the_best_k_beat_the_rest(strengths: list[int], top_k: int, name: str) -> None:
    """Whom the comparisons do not reach from above is at most the best k."""
    n = len(strengths)
    made, _ = play(Schedule(name, top_k=top_k, confidence=0.999), n, by_strength(strengths))
    best = sorted(range(n), key=lambda i: -strengths[i])
    if name != "adaptive":
        beats = {(i, j) if logit > 0 else (j, i) for (i, j), logit in made.items()}
        for place, winner in enumerate(best[:top_k]):
            reached, edge = {winner}, {winner}
            while edge := {j for i, j in beats if i in edge} - reached:
                reached |= edge
            assert reached >= set(best[place:])
    scores = scores_of(made, n)
    assert sorted(range(n), key=lambda i: -scores[i])[:top_k] == best[:top_k]


def scores_of(made: dict[Pair, float], n: int) -> tuple[float, ...]:
    matrix = [[math.nan] * n for _ in range(n)]
    for (i, j), logit in made.items():
        matrix[i][j], matrix[j][i] = logit, -logit
    return max_logits(matrix)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 24, 50])
def test_adaptive_orders_all_within_n_log_n(n: int) -> None:
    strengths = random.Random(n).sample(range(500), n)
    made, _ = play(Schedule("adaptive"), n, by_strength(strengths))
    assert len(made) <= n * math.ceil(math.log2(n))
    best = sorted(range(n), key=lambda i: -strengths[i])
    scores = scores_of(made, n)
    wrong = sum(scores[i] < scores[j] for i, j in combinations(best, 2))
    assert wrong / math.comb(n, 2) < 0.05


def test_adaptive_asks_more_the_surer_it_is_to_be() -> None:
    rng = random.Random(0)
    n = 16
    noisy = {(i, j): (i - j) / 3 + rng.gauss(0, 1) for i, j in combinations(range(n), 2)}
    counts = [
        len(
            play(
                Schedule("adaptive", top_k=1, confidence=sure),
                n,
                lambda i, j: noisy[min(i, j), max(i, j)] * (1 if i < j else -1),
            )[0]
        )
        for sure in (0.5, 0.9, 0.999)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= math.comb(n, 2)


def test_adaptive_is_as_sure_of_the_best_when_more_places_are_asked_for() -> None:
    """It once asked only who belongs to the best K, and left it to chance which of them is the best."""
    rng = random.Random(0)
    right = {1: 0, 3: 0}
    for _ in range(150):
        strengths = [rng.gauss(0, 2) for _ in range(8)]
        noise = {pair: rng.gauss(0, 0.7) for pair in combinations(range(8), 2)}

        def logit(i: int, j: int, strengths: list[float] = strengths, noise: dict[Pair, float] = noise) -> float:
            return strengths[i] - strengths[j] + (noise[i, j] if i < j else -noise[j, i])

        def best(made: dict[Pair, float], logit: Callable[[int, int], float] = logit) -> int:
            matrix = [[math.nan] * 8 for _ in range(8)]
            for i, j in made:
                matrix[i][j], matrix[j][i] = logit(i, j), logit(j, i)
            return order_of(max_logits(matrix))[0]

        expected = best(dict.fromkeys(combinations(range(8), 2), 0.0))
        for top_k in right:
            right[top_k] += best(play(Schedule("adaptive", top_k=top_k), 8, logit)[0]) == expected
    assert right[1] >= 0.95 * 150
    assert right[3] >= 0.95 * 150


def test_contradictions_cost_comparisons() -> None:
    def comparisons(noise: float) -> int:
        total = 0
        for seed in range(8):
            rng = random.Random(seed)
            strengths = [rng.gauss(0, 1) for _ in range(10)]
            logits = {(i, j): strengths[i] - strengths[j] + rng.gauss(0, noise) for i, j in combinations(range(10), 2)}
            logits |= {(j, i): -logit for (i, j), logit in logits.items()}
            total += len(play(Schedule("adaptive", top_k=1), 10, lambda i, j: logits[i, j])[0])  # noqa: B023
        return total

    assert comparisons(0.1) < comparisons(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_candidates(name: str, n: int) -> None:
    made, _ = play(Schedule(name), n, lambda i, j: 0.0)
    assert len(made) == math.comb(n, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "bubbles"}, "unknown schedule 'bubbles'; use one of full, bubble, knockout, adaptive"),
        ({"orders": "ab"}, "unknown orders 'ab'; use one of both, one"),
        ({"seek": "first"}, "unknown seek 'first'"),
        ({"top_k": 0}, "top_k=0; ask for 1 or more"),
        ({"confidence": 1.0}, "confidence=1.0; it is a probability"),
        ({"seed": -1}, "seed=-1; use a whole number"),
        ({"seed": 1.5}, "seed=1.5; use a whole number"),
        ({"top_k": True}, "top_k=True; ask for 1 or more"),
        ({"confidence": "0.9"}, "confidence='0.9'; it is a probability"),
        ({"name": ["full"]}, "unknown schedule .*use one of full"),
    ],
)
def test_options_are_closed(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(**options)


@settings(max_examples=12, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from([*SCHEDULES]),
    orders=st.sampled_from(["both", "one"]),
    candidates=st.lists(st.sampled_from([*TEXTS[1:7], "", "hi"]), min_size=1, max_size=7),
)
def test_permuting_the_candidates_permutes_the_result_of_every_schedule(
    blender: Blender, data: st.DataObject, name: str, orders: str, candidates: list[str]
) -> None:
    order = data.draw(st.permutations(range(len(candidates))))
    straight = blender.rank(TEXTS[0], candidates, schedule=name, orders=orders)
    permuted = blender.rank(TEXTS[0], [candidates[i] for i in order], schedule=name, orders=orders)
    assert permuted.scores == tuple(straight.scores[i] for i in order)
    assert permuted.n_comparisons == straight.n_comparisons


def test_prompts_are_played_together_and_change_nothing(blender: Blender) -> None:
    prompts = [TEXTS[0], TEXTS[7], "p"]
    candidates = [list(TEXTS[1:7]), list(TEXTS[8:11]), ["a"]]
    for name in SCHEDULES:
        together = blender.rank(prompts, candidates, schedule=name)
        for ranking, prompt, own in zip(together, prompts, candidates, strict=True):
            alone = blender.rank(prompt, own, schedule=name)
            assert alone.order == ranking.order
            assert alone.scores == pytest.approx(ranking.scores, abs=1e-5)


def test_the_winner_of_a_tournament_is_the_best(blender: Blender) -> None:
    ranking = blender.rank(TEXTS[0], TEXTS[1:7], schedule="knockout")
    assert (ranking.n_comparisons, ranking.n_possible, ranking.schedule) == (5, 15, "knockout")
    best = ranking.order[0]
    assert all(logit >= 0 for logit in ranking.comparisons[best] if not math.isnan(logit))
    assert sum(math.isnan(logit) for row in ranking.comparisons for logit in row) == 6 + 2 * 10


def test_best_and_worst_of_n(blender: Blender) -> None:
    ranking = blender.rank(TEXTS[0], TEXTS[1:4])
    beats_all = [all(logit > 0 for j, logit in enumerate(row) if j != i) for i, row in enumerate(ranking.comparisons)]
    assert any(beats_all), "with these weights one candidate beats all others; otherwise this test shows nothing"
    assert blender.best_of_n(TEXTS[0], TEXTS[1:4]) == TEXTS[1 + beats_all.index(True)]
    assert blender.best_of_n([TEXTS[0], "p"], [TEXTS[1:4], ["only"]]) == [ranking.best, "only"]
    losers = [all(logit < 0 for j, logit in enumerate(row) if j != i) for i, row in enumerate(ranking.comparisons)]
    assert any(losers)
    assert blender.worst_of_n(TEXTS[0], TEXTS[1:4]) == TEXTS[1 + losers.index(True)]
    assert blender.best_of_n(TEXTS[0], TEXTS[1:4], schedule="knockout") == ranking.best
    assert blender.worst_of_n(TEXTS[0], TEXTS[1:4], schedule="bubble") == ranking.worst
    assert blender.best_of_n([], []) == []


def test_one_order_is_half_the_work_and_has_no_flip_rate(blender: Blender) -> None:
    both, one = (blender.rank(TEXTS[0], TEXTS[1:5], orders=orders) for orders in ("both", "one"))
    assert (both.n_comparisons, one.n_comparisons) == (6, 6)
    assert both.flip_rate is not None
    assert one.flip_rate is None
    presented = {
        sign * getattr(blender.compare(TEXTS[0], TEXTS[1], TEXTS[2]), name)
        for name, sign in (("logit_ab", 1), ("logit_ba", -1))
    }
    assert any(one.comparisons[0][1] == pytest.approx(logit, abs=1e-5) for logit in presented)


def test_in_one_order_everybody_is_read_first_as_often_as_second() -> None:
    """Otherwise position bias would lift one candidate in all its comparisons."""
    for n in (4, 5, 9):
        contest = Contest(make_item("p", list(TEXTS[:n])), Schedule(orders="one"))
        first = Counter(presentation.first for presentation in contest.pending)
        assert sum(first.values()) == math.comb(n, 2)
        assert all(abs(first[text] - (n - 1) / 2) <= 0.5 for text in TEXTS[:n])


def test_position_bias_alone_names_no_winner() -> None:
    """Scored by a model that favours the first candidate, whatever it is."""
    contest = Contest(make_item("p", list(TEXTS[:5])), Schedule(orders="one"))
    contest.receive([1.0] * 10)
    assert set(contest.ranking("max_logits", 1.0, Truncation(0, (0,) * 5), Unread(0, (0,) * 5), False).ranks) == {1}


def test_numbers_of_numpy_are_numbers() -> None:
    schedule = Schedule("adaptive", top_k=np.int64(2), seed=np.int64(3), confidence=np.float32(0.5))
    assert list(Contest(make_item("p", list(TEXTS[:3])), schedule).pending)


def test_a_schedule_that_is_none_is_refused(blender: Blender) -> None:
    with pytest.raises(InputTypeError, match="schedule=None is neither"):
        blender.rank("p", ["a", "b"], schedule=None)


@pytest.mark.parametrize("name", ["full", "bubble", "knockout", "adaptive"])
def test_no_schedule_compares_more_than_it_says(name: str) -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 12):
        for top_k in (None, 1, 2, 3, n):
            schedule = Schedule(name, top_k)
            for _ in range(6):
                strength, made = rng.normal(size=n), 0
                rounds = schedule.rounds(n)
                pairs = next(rounds, []) if n > 1 else []
                while pairs:
                    made += len(pairs)
                    logits = [strength[i] - strength[j] + rng.normal() for i, j in pairs]
                    try:
                        pairs = rounds.send(logits)
                    except StopIteration:
                        break
                assert made <= schedule.max_comparisons(n), (n, top_k)
