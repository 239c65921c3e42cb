"""Each format by hand-made rankings, and its columns as the libraries read them."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from blender_hf import Blender
from blender_hf.data.records import Record, record_from_mapping
from blender_hf.engine.aggregation import max_logits
from blender_hf.engine.results import Ranking, Truncation
from blender_hf.engine.schedules import Schedule
from blender_hf.errors import InputError
from blender_hf.labelling.formats import FORMATS, PAIRS, Labelled, pair_outcome
from blender_hf.labelling.settings import LabelSettings, RankingSettings
from blender_hf.modeling.ranking_math import order_of, ranks_of

pytestmark = pytest.mark.once

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2?"}]
NAN = math.nan


def record_of(prompt: Any = "2 + 2?", texts: tuple[str, ...] = ("a", "b", "c"), **extra: Any) -> Record:
    key = "prompt" if isinstance(prompt, str) else "messages"
    candidates = [{"text": text, "model": f"m-{text}"} for text in texts]
    return record_from_mapping({"id": 7, key: prompt, "candidates": candidates, **extra}, where="here", default_id=1)


def ranking_of(comparisons: list[list[float]], texts: tuple[str, ...] = ("a", "b", "c")) -> Ranking:
    scores = max_logits(comparisons)
    return Ranking(
        candidates=texts,
        models=tuple(f"m-{text}" for text in texts),
        order=order_of(scores),
        ranks=ranks_of(scores),
        scores=scores,
        logits=tuple(map(tuple, comparisons)),
        temperature=1.0,
        truncated=Truncation(0, (0,) * len(texts)),
        schedule="full",
    )


# b beats a by 1, a beats c by 2, b beats c by 4: the order is b, a, c.
RANKING = ranking_of([[NAN, -1.0, 2.0], [1.0, NAN, 4.0], [-2.0, -4.0, NAN]])


def fields_of(name: str, labelled: Labelled) -> list[dict[str, Any]]:
    rows = [row.fields for row in FORMATS[name].rows(labelled)]
    for row in rows:
        assert list(row) == list(FORMATS[name].columns)
    return rows


def test_dpo_is_the_best_against_the_worst() -> None:
    (row,) = fields_of("dpo", Labelled(record_of(), replace(RANKING, temperature=2.0)))
    assert row == {
        "id": "7",
        "prompt": "2 + 2?",
        "chosen": "b",
        "rejected": "c",
        "margin": 4.0,
        "probability": pytest.approx(1 / (1 + math.exp(-2.0))),
        "score_chosen": 2.5,
        "score_rejected": -3.0,
        "model_chosen": "m-b",
        "model_rejected": "m-c",
    }


def test_conversations_stay_conversations() -> None:
    labelled = Labelled(record_of(CHAT), RANKING, conversational=True)
    (row,) = fields_of("dpo", labelled)
    assert row["prompt"] == CHAT
    assert row["chosen"] == [{"role": "assistant", "content": "b"}]
    assert fields_of("kto", labelled)[0]["completion"] == [{"role": "assistant", "content": "a"}]
    assert fields_of("rankings", labelled)[0]["prompt"] == CHAT
    assert fields_of("sppo", labelled)[0]["chosen"] == [*CHAT, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (record_of("2 + 2?"), [{"role": "user", "content": "2 + 2?"}]),
        (record_of("2 + 2?", instruction="Reply."), [{"role": "user", "content": "Reply.\n2 + 2?"}]),
        (record_of(CHAT, instruction="Reply."), [{"role": "system", "content": "Reply.\n\nBe short."}, CHAT[1]]),
        (record_of(CHAT[1:], instruction="Reply."), [{"role": "system", "content": "Reply."}, CHAT[1]]),
    ],
)
def test_texts_and_instructions_become_messages(record: Record, expected: list[dict[str, str]]) -> None:
    assert Labelled(record, RANKING, conversational=True).prompt == expected


def test_a_conversation_among_texts_becomes_the_text_that_the_ranker_reads() -> None:
    record = record_of(CHAT)
    assert Labelled(record, RANKING).prompt == record.item.source == "SYSTEM: Be short.\nUSER: 2 + 2?"


def test_kto_labels_what_is_better_than_the_others() -> None:
    rows = fields_of("kto", Labelled(record_of(), RANKING))
    assert [(row["completion"], row["label"]) for row in rows] == [("a", True), ("b", True), ("c", False)]
    assert [row["reward"] for row in rows] == [0.5, 2.5, -3.0]
    assert rows[0]["probability"] == pytest.approx((1 / (1 + math.e) + 1 / (1 + math.exp(-2))) / 2)
    outcomes = [row.outcome for row in FORMATS["kto"].rows(Labelled(record_of(), RANKING))]
    assert [outcome.margin for outcome in outcomes] == [0.5, 2.5, 3.0]
    assert all(outcome.probability >= 0.5 for outcome in outcomes)


def test_sppo_has_the_matrix_and_what_its_trainer_reads() -> None:
    (row,) = fields_of("sppo", Labelled(record_of(), RANKING))
    assert row["responses"] == ["a", "b", "c"]
    assert row["rm_scores"] == [0.5, 2.5, -3.0]
    for i in range(3):
        assert row["probability"][i][i] == 0.5
        assert all(row["probability"][i][j] + row["probability"][j][i] == pytest.approx(1) for j in range(3))
    assert row["probability"][1][2] == pytest.approx(1 / (1 + math.exp(-4)))
    assert row["chosen_probs"] == row["probability"][1][2]
    assert row["chosen_probs_win"] == pytest.approx(sum(row["probability"][1]) / 3)
    assert row["chosen_probs_lose"] == pytest.approx(sum(row["probability"][2]) / 3)


def test_sft_is_what_a_fuser_reads_and_should_write() -> None:
    """The best candidates, none of them the reference, in the user's last message."""
    record = record_of(CHAT, reference="a ", texts=("a", "b", "c"))
    (row,) = fields_of("sft", Labelled(record, RANKING))
    assert row["completion"] == [{"role": "assistant", "content": "a "}]
    system, user = row["prompt"]
    assert system == CHAT[0]
    assert user["content"].startswith("2 + 2?\n\n### Candidate 1\nb\n### Candidate 2\nc\n### Task\n")
    (row,) = fields_of("sft", Labelled(record, RANKING, max_candidates=1))
    assert "Candidate 2" not in row["prompt"][-1]["content"]
    alone = record_of(texts=("a",), reference="a")
    assert fields_of("sft", Labelled(alone, ranking_of([[NAN]], ("a",)))) == []


def test_rankings_and_rewards() -> None:
    labelled = Labelled(record_of(), RANKING)
    (row,) = fields_of("rankings", labelled)
    assert [(c["text"], c["rank"], c["model"]) for c in row["candidates"]] == [
        ("b", 1, "m-b"),
        ("a", 2, "m-a"),
        ("c", 3, "m-c"),
    ]
    rewards = fields_of("rewards", labelled)
    assert [(row["completion"], row["reward"], row["rank"]) for row in rewards] == [
        ("a", 0.5, 2),
        ("b", 2.5, 1),
        ("c", -3.0, 3),
    ]


def test_identical_candidates_are_one_completion() -> None:
    texts = ("a", "a", "b")
    ranking = ranking_of([[NAN, 0.0, 1.0], [0.0, NAN, 1.0], [-1.0, -1.0, NAN]], texts)
    labelled = Labelled(record_of(texts=texts), ranking, pairs="all")
    assert [row["completion"] for row in fields_of("rewards", labelled)] == ["a", "b"]
    assert [(row["chosen"], row["rejected"]) for row in fields_of("dpo", labelled)] == [("a", "b")]


def test_a_single_candidate_has_a_reward_of_zero() -> None:
    labelled = Labelled(record_of(texts=("a",)), ranking_of([[NAN]], ("a",)))
    assert fields_of("rewards", labelled)[0]["reward"] == 0.0
    assert fields_of("rankings", labelled)[0]["flip_rate"] is None


def test_choices_of_pairs() -> None:
    def pairs(name: str, seed: int) -> list[tuple[int, int]]:
        return list(PAIRS[name](RANKING, random.Random(seed)))

    assert pairs("best-worst", 0) == [(1, 2)]
    assert pairs("all", 0) == [(1, 0), (1, 2), (0, 2)]
    drawn = {pair for seed in range(30) for pair in pairs("best-random", seed)}
    assert drawn == {(1, 0), (1, 2)}
    assert pairs("best-random", 5) == pairs("best-random", 5)


def test_flips_are_those_of_a_comparison(blender: Blender) -> None:
    """The same pair, asked for by itself, must flip or not as the row says."""
    texts = ("4", "It is four.", "Bananas are yellow.", "5", "Four, I think.")
    item = record_of(texts=texts).item
    (ranking,) = RankingSettings().rank(blender, [item])
    found = [
        pair_outcome(ranking, i, j).flipped == blender.compare(item.prompt, texts[i], texts[j]).flipped
        for i in range(len(texts))
        for j in range(len(texts))
        if i != j
    ]
    assert all(found)
    flips = [pair_outcome(ranking, i, j).flipped for i in range(len(texts)) for j in range(i)]
    assert ranking.flip_rate == pytest.approx(sum(flips) / len(flips))


def flips_of_completions(ranking: Ranking) -> list[bool | None]:
    return [row.outcome.flipped for row in FORMATS["kto"].rows(Labelled(record_of(), ranking))]


def test_flips_that_were_not_asked_are_unknown(blender: Blender) -> None:
    item = record_of(texts=("4", "5", "Bananas.")).item
    (ranking,) = RankingSettings(schedule=Schedule(orders="one")).rank(blender, [item])
    assert {pair_outcome(ranking, i, j).flipped for i in range(3) for j in range(3) if i != j} == {None}
    assert flips_of_completions(ranking)[0] is None


def test_a_completion_flips_if_the_orders_disagree_on_the_whole() -> None:
    ranking = replace(RANKING, logits=((NAN, 3.0, 1.0), (1.0, NAN, 1.0), (0.5, -3.0, NAN)))
    # Presented first, a has 3 + 1; presented second, -1 - 0.5.
    assert flips_of_completions(ranking)[0] is True
    # Presented first, b has 1 + 1; presented second, -3 + 3.
    assert flips_of_completions(ranking)[1] is False
    assert flips_of_completions(RANKING)[0] is False


def test_what_was_not_compared_is_inferred() -> None:
    sparse = ranking_of([[NAN, 1.0, NAN], [-1.0, NAN, 0.5], [NAN, -0.5, NAN]])
    (row,) = fields_of("dpo", Labelled(record_of(), sparse))
    assert (row["chosen"], row["rejected"], row["margin"]) == ("a", "c", 1.5)
    (row,) = fields_of("sppo", Labelled(record_of(), sparse))
    assert all(math.isfinite(value) for line in row["probability"] for value in line)


def test_equal_scores_are_a_tie_whatever_the_comparison_says() -> None:
    equal = replace(RANKING, scores=(1.0, 1.0, 1.0))
    assert pair_outcome(equal, 1, 2).tied
    assert not pair_outcome(RANKING, 1, 2).tied


@pytest.mark.parametrize(
    ("options", "message"),
    [({"form": "x"}, "unknown format 'x'; use one of dpo"), ({"pairs": "x"}, "unknown choice of pairs 'x'")],
)
def test_names_that_do_not_exist(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelSettings(**options)
