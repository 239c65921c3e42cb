"""The facade: ranking, comparing, fusing, blending, and every answer to unusual input."""

import json
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_hf import Blender, BlenderError, InputError, InputTypeError, ModelOutputError
from blender_hf.inputs import Item, make_item
from blender_hf.modeling.ranking_math import best_distinct
from blender_hf.modeling.segmentation import split_segments
from tests.conftest import build_fuser, build_ranker, example_texts

TEXTS = example_texts()
PROMPT, ANSWERS = TEXTS[0], list(TEXTS[1:7])
LONG = " ".join(TEXTS)


def close(found: Any, expected: Any) -> bool:
    return found == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_a_ranking_says_what_it_is(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ANSWERS)
    assert sorted(ranking.order) == list(range(6))
    assert [ranking.scores[i] for i in ranking.order] == sorted(ranking.scores, reverse=True)
    assert [ranking.ranks[i] for i in ranking.order] == [1, 2, 3, 4, 5, 6]
    assert (ranking.best, ranking.worst) == (ANSWERS[ranking.order[0]], ANSWERS[ranking.order[-1]])
    assert ranking.sorted_candidates == tuple(ANSWERS[i] for i in ranking.order)
    assert ranking.n_comparisons == 15
    assert 0 <= ranking.flip_rate <= 1
    assert all(math.isnan(ranking.comparisons[i][i]) for i in range(6))


def test_a_ranking_is_made_of_the_comparisons(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ANSWERS[:3])
    for i in range(3):
        logits = [blender.compare(PROMPT, ANSWERS[i], ANSWERS[j]).logit for j in range(3) if j != i]
        assert close([ranking.comparisons[i][j] for j in range(3) if j != i], logits)
        assert close(ranking.scores[i], sum(logits) / 2)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), candidates=st.lists(st.sampled_from([*ANSWERS, "", "hi"]), min_size=2, max_size=5))
def test_permuting_candidates_permutes_the_result(blender: Blender, data: Any, candidates: list[str]) -> None:
    order = data.draw(st.permutations(range(len(candidates))))
    straight = blender.rank(PROMPT, candidates)
    permuted = blender.rank(PROMPT, [candidates[i] for i in order])
    assert permuted.scores == tuple(straight.scores[i] for i in order)
    assert permuted.n_cycles == straight.n_cycles


def test_swapping_a_and_b_negates_the_comparison_exactly(blender: Blender) -> None:
    forth, back = blender.compare(PROMPT, "a", "b"), blender.compare(PROMPT, "b", "a")
    assert forth.logit == -back.logit
    assert {forth.preferred, back.preferred} == {"a", "b"}
    assert forth.probability == pytest.approx(1 - back.probability)
    assert (forth.logit_ab, forth.logit_ba) == (back.logit_ba, back.logit_ab)


def test_the_logit_is_the_mean_of_both_orders(blender: Blender) -> None:
    """PEER_FAULTS: documented as the average, computed as the sum."""
    comparison = blender.compare(PROMPT, ANSWERS[0], "b")
    assert comparison.logit == (comparison.logit_ab - comparison.logit_ba) / 2
    assert comparison.probability == pytest.approx(1 / (1 + math.exp(-comparison.logit)))


def test_a_positive_logit_prefers_a() -> None:
    model, processor = build_ranker()
    blender = Blender(model, processor)
    comparison = blender.compare("p", "a", "b")
    with torch.no_grad():
        model.head.out_proj.weight.mul_(-1)
    assert {blender.compare("p", "a", "b").preferred, comparison.preferred} == {"a", "b"}
    assert (comparison.logit > 0) == (comparison.preferred == "a")


def test_another_prompt_in_the_call_changes_nothing(blender: Blender) -> None:
    """PEER_FAULTS: a long source in the batch cut this prompt's candidates."""
    alone = blender.rank("hi", [ANSWERS[0], "b"])
    beside = blender.rank(["hi", LONG], [[ANSWERS[0], "b"], [LONG, "c", "d"]])[0]
    assert close(beside.comparisons[0], alone.comparisons[0])
    assert beside.truncated == alone.truncated


def test_lists_of_different_length(blender: Blender) -> None:
    """PEER_FAULTS: AssertionError."""
    rankings = blender.rank(["p", "q", "r"], [["a", "b", "c"], ["a"], ["x", "y"]])
    assert [len(ranking.order) for ranking in rankings] == [3, 1, 2]


def test_one_candidate_is_the_best_without_a_comparison(blender: Blender) -> None:
    ranking = blender.rank("p", ["only"])
    assert (ranking.order, ranking.ranks, ranking.scores) == ((0,), (1,), (0.0,))
    assert (ranking.n_comparisons, ranking.flip_rate) == (0, None)
    assert blender.rank(LONG, [LONG]).truncated, "what the model could not read is said even when it need not read"


def test_identical_candidates_tie_and_are_never_compared(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ["same", "other", "same"])
    assert ranking.n_comparisons == 1
    assert ranking.scores[0] == ranking.scores[2]
    assert ranking.ranks[0] == ranking.ranks[2]
    assert ranking.comparisons[0][2] == 0.0
    assert blender.rank(PROMPT, ["same"] * 3).ranks == (1, 1, 1)
    comparison = blender.compare(PROMPT, "same", "same")
    assert (comparison.preferred, comparison.logit, comparison.probability) == ("tie", 0.0, 0.5)


def test_empty_texts_are_ranked(blender: Blender) -> None:
    ranking = blender.rank("", ["", "a", " "])
    assert ranking.n_comparisons == 3
    assert not ranking.truncated


def test_no_prompts_give_no_results(blender: Blender) -> None:
    """PEER_FAULTS: ValueError / IndexError from numpy."""
    assert blender.rank([], []) == []
    assert blender.compare([], [], []) == []
    assert blender.fuse([], []) == []
    assert blender.blend([], []) == []


def test_no_candidates_are_an_error_that_names_the_item(blender: Blender) -> None:
    with pytest.raises(InputError, match="item 1: there are no candidates"):
        blender.rank(["p", "q"], [["a"], []])


def test_what_is_cut_is_said(blender: Blender) -> None:
    ranking = blender.rank(LONG, ["short", LONG])
    assert ranking.truncated
    assert ranking.truncated.prompt > 0
    assert ranking.truncated.candidates[0] == 0
    assert ranking.truncated.candidates[1] > 0
    assert not blender.rank("p", ["a", "b"]).truncated


@pytest.mark.parametrize(
    "text", ["<|source|>", "<|candidate1|>", "[SEP]", "[CLS] [PAD]", "［SEP］", "＜｜candidate1｜＞"]
)
def test_special_tokens_are_text(blender: Blender, text: str) -> None:
    """PEER_FAULTS: RuntimeError, or a wrong number of results and no error."""
    ranking = blender.rank([text, "p"], [["a", text, f"a {text} b"], [text, "b"]])
    assert [len(r.order) for r in ranking] == [3, 2]
    assert all(math.isfinite(score) for r in ranking for score in r.scores)


def test_tie_threshold(blender: Blender) -> None:
    plain = blender.compare("p", "a", "b")
    distance = abs(plain.probability - 0.5)
    assert plain.preferred != "tie"
    assert blender.compare("p", "a", "b", tie_threshold=distance + 1e-6).preferred == "tie"
    assert blender.compare("p", "a", "b", tie_threshold=distance - 1e-6).preferred == plain.preferred


@pytest.mark.parametrize("threshold", [-0.1, 0.6, math.nan, None])
def test_a_tie_threshold_out_of_range_is_refused(blender: Blender, threshold: float) -> None:
    with pytest.raises(InputError, match="tie_threshold"):
        blender.compare("p", "a", "b", tie_threshold=threshold)


def test_many_comparisons_and_lists_that_do_not_fit(blender: Blender) -> None:
    results = blender.compare(["p", "q"], ["a", "b"], ["b", "b"])
    assert [r.preferred == "tie" for r in results] == [False, True]
    with pytest.raises(InputError, match=r"lengths are .*'prompts': 2, .*'candidates_b': 1"):
        blender.compare(["p", "q"], ["a", "b"], ["b"])


@pytest.mark.parametrize(
    "column", ["ab", {"text": "a", "model": "m"}, {"a", "b"}, None, 5], ids=["text", "mapping", "set", "None", "number"]
)
def test_a_column_that_is_no_list_is_never_taken_apart(blender: Blender, column: object) -> None:
    """Letters of a text, keys of a mapping and a set in whatever order were once candidates."""
    prompts, answers = ["p", "q"], ["a", "b"]
    with pytest.raises(InputTypeError, match="candidates_a must be a list"):
        blender.compare(prompts, column, answers)
    with pytest.raises(InputTypeError, match="candidates_b must be a list"):
        blender.compare(prompts, answers, column)
    with pytest.raises(InputTypeError, match="candidates must be a list"):
        blender.rank("p", column)
    if column is not None:
        with pytest.raises(InputTypeError, match="reference must be a list"):
            blender.reward(prompts, [["a"], ["b"]], reference=column)


def test_columns_may_be_generators(blender: Blender) -> None:
    prompts, first, second = ["p", "q"], ["a", "b"], ["b", "a b"]
    lazily = blender.compare(*(iter(column) for column in (prompts, first, second)))
    assert lazily == blender.compare(prompts, first, second)
    rewards = blender.reward(prompts, [first, second], reference=iter(["c", {"text": "d", "model": "m"}]))
    assert rewards == blender.reward(prompts, [first, second], reference=["c", "d"])


@pytest.mark.parametrize(("prompt", "candidates"), [("half \ud83d", ["a", "b"]), ("p", ["a", "b\ud83d"])])
def test_a_lone_surrogate_is_refused_with_its_item(blender: Blender, prompt: str, candidates: list[str]) -> None:
    """JSON can spell it, and a tokenizer can't read it."""
    with pytest.raises(InputError, match=r"item 1: contains a lone surrogate \('\\ud83d'\)"):
        blender.rank(["fine", prompt], [["a", "b"], candidates])


def test_answers_do_not_change_from_call_to_call(blender: Blender) -> None:
    first, second = (blender.blend(PROMPT, ANSWERS) for _ in range(2))
    assert first.to_dict() == second.to_dict()


def test_unknown_options_fail(blender: Blender) -> None:
    """PEER_FAULTS: `source_maxlength`, `no_such_option=1` and the README's own `mode=` were ignored."""
    with pytest.raises(TypeError, match="no_such_option"):
        blender.rank("p", ["a"], no_such_option=1)
    with pytest.raises(InputError, match="'best'; use one of max_logits"):
        blender.rank("p", ["a"], aggregation="best")
    with pytest.raises(InputError, match="no_such_option"):
        blender.fuse("p", ["a", "b"], generation={"no_such_option": 1})


def test_fusing_leaves_the_input_as_it_is_and_takes_tuples(blender: Blender) -> None:
    """PEER_FAULTS: `fuse` cut the caller's own lists in place, and failed on tuples."""
    candidates = [LONG, "b"]
    fusion = blender.fuse("p", candidates)
    assert candidates == [LONG, "b"]
    assert fusion.fused_from == (0, 1)
    assert fusion.truncated.candidates[0] > 0
    assert blender.fuse("p", tuple(candidates)) == fusion


def test_extractive_fusion_consists_of_segments_of_the_candidates(blender: Blender) -> None:
    for fusion in blender.fuse(
        [PROMPT, "p"], [ANSWERS[:3], ["One. Two!", "Three."]], generation={"max_new_tokens": 400}
    ):
        assert fusion.text
    known = {"One.", "Two!", "Three."}
    assert {passage.strip() for passage in split_segments(fusion.text)} <= known


def test_fusion_does_not_depend_on_its_neighbours(blender: Blender) -> None:
    prompts, candidates = [PROMPT, "p"], [ANSWERS[:3], ["One. Two!", "Three."]]
    together = blender.fuse(prompts, candidates)
    assert [blender.fuse(*pair) for pair in zip(prompts, candidates, strict=True)] == together


def test_too_many_candidates_to_fuse_name_the_item(blender: Blender) -> None:
    with pytest.raises(InputError, match="item 1: 101 candidates are more than the 100"):
        blender.fuse(["p", "q"], [["a"], [str(k) for k in range(101)]])


def test_blend_returns_the_fusion_only_if_the_ranker_prefers_it(blender: Blender) -> None:
    kept = returned = 0
    for start in range(0, 49, 7):
        prompt, answers = TEXTS[start], TEXTS[start + 1 : start + 7]
        blend = blender.blend(prompt, answers)
        assert blend.comparison == blender.compare(prompt, blend.fused, blend.best)
        if blend.comparison.preferred == "a":
            assert (blend.returned, blend.output) == ("fused", blend.fused)
            returned += 1
        else:
            assert (blend.returned, blend.output) == ("best", blend.best)
            kept += 1
        always = blender.blend(prompt, answers, fallback=False)
        assert (always.returned, always.output, always.fused) == ("fused", blend.fused, blend.fused)
    assert kept
    assert returned, "with random weights some fusions win; if none does this test shows nothing"


def test_blend_fuses_the_best_different_candidates(blender: Blender) -> None:
    blend = blender.blend(PROMPT, [ANSWERS[0], ANSWERS[1], ANSWERS[0], ANSWERS[2]], top_k=2)
    assert len(blend.fused_from) == 2
    assert len({blend.ranking.candidates[i] for i in blend.fused_from}) == 2
    assert list(blend.fused_from) == best_distinct(blend.ranking.candidates, blend.ranking.order, 2)
    assert blend.ranking.ranks[blend.fused_from[0]] == 1


@pytest.mark.parametrize("candidates", [["only"], ["same", "same"]])
def test_nothing_to_fuse_gives_the_best(blender: Blender, candidates: list[str]) -> None:
    blend = blender.blend("p", candidates)
    assert (blend.output, blend.returned, blend.fused, blend.fused_from) == (candidates[0], "best", None, ())


@pytest.mark.parametrize("top_k", [0, 1, 101])
def test_top_k_out_of_range_is_refused(blender: Blender, top_k: int) -> None:
    with pytest.raises(InputError, match=f"top_k={top_k}; this fuser takes from 2 to 100"):
        blender.blend("p", ["a", "b"], top_k=top_k)


def test_without_a_fuser_there_is_ranking_only() -> None:
    ranker_only = Blender(*build_ranker())
    assert ranker_only.rank("p", ["a", "b"]).n_comparisons == 1
    with pytest.raises(BlenderError, match="no fuser: load one"):
        ranker_only.blend("p", ["a", "b"])


def test_a_fuser_needs_its_processor(ranker: Any, fuser: Any) -> None:
    with pytest.raises(InputError, match="together with its processor"):
        Blender(*ranker, fuser[0])


def test_results_turn_into_json(blender: Blender) -> None:
    blend = blender.blend("p", ["a", {"text": "b", "model": "m"}])
    found = json.loads(json.dumps(blend.to_dict(), allow_nan=False))
    assert found["ranking"]["models"] == [None, "m"]
    assert found["ranking"]["comparisons"][0][0] is None
    assert found["output"] == blend.output
    assert found["fused_from"] == list(blend.fused_from)


def endless_items(n_before_error: int | None = None) -> Iterator[Item]:
    n = 0
    while n != n_before_error:
        yield make_item("p", [f"a{n}", "b"], where=f"item {n}")
        n += 1
    raise InputError("the source broke")


def test_streams_are_read_as_far_as_needed(blender: Blender) -> None:
    rankings = blender.iter_rank(endless_items(), window=3)
    assert [next(rankings).candidates[0] for _ in range(4)] == ["a0", "a1", "a2", "a3"]


def test_what_came_before_an_error_of_the_source_is_not_lost(blender: Blender) -> None:
    rankings = blender.iter_rank(endless_items(5), window=3)
    assert [next(rankings).candidates[0] for _ in range(5)] == ["a0", "a1", "a2", "a3", "a4"]
    with pytest.raises(InputError, match="the source broke"):
        next(rankings)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_the_window_changes_nothing(blender: Blender, window: int) -> None:
    items = [make_item(TEXTS[k], TEXTS[k + 1 : k + 4]) for k in (0, 7, 14, 21)]
    expected = blender.rank(list(TEXTS[0:22:7]), [list(TEXTS[k + 1 : k + 4]) for k in (0, 7, 14, 21)])
    found = list(blender.iter_rank(items, window=window))
    assert [r.order for r in found] == [r.order for r in expected]
    assert close([s for r in found for s in r.scores], [s for r in expected for s in r.scores])


def test_a_ranker_that_gives_nan_is_an_error() -> None:
    model, processor = build_ranker()
    with torch.no_grad():
        model.head.dense.weight.fill_(torch.nan)
    with pytest.raises(ModelOutputError, match="NaN"):
        Blender(model, processor).compare("p", "a", "b")


def test_the_library_is_silent(blender: Blender, capfd: pytest.CaptureFixture[str]) -> None:
    """PEER_FAULTS: prints on stdout."""
    blender.blend(PROMPT, ANSWERS)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked(blender: Blender, capfd: pytest.CaptureFixture[str]) -> None:
    blender.rank(["p", "q"], [["a", "b"]] * 2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err


def test_a_fuser_that_is_not_extractive_writes_freely(ranker: Any) -> None:
    free = Blender(*ranker, *build_fuser(extractive=False))
    fusion = free.fuse("p", ["One. Two!", "Three."], generation={"num_beams": 2, "max_new_tokens": 5})
    assert isinstance(fusion.text, str)


def test_candidates_of_wrong_type_are_named(blender: Blender) -> None:
    with pytest.raises(InputTypeError, match=r"item 1, candidate 1: .*None"):
        blender.rank(["p", "q"], [["a", "b"], ["a", None]])


def test_a_ranking_that_was_pickled_is_equal(blender: Blender) -> None:
    """Its NaN are other ones, which Python calls unequal."""
    ranking = blender.rank(PROMPT, ANSWERS, schedule="knockout")
    assert pickle.loads(pickle.dumps(ranking)) == ranking


def test_streams_take_mappings_as_the_pipeline_does(blender: Blender) -> None:
    records = [{"prompt": PROMPT, "candidates": ANSWERS}, {"prompt": "q", "candidates": [{"text": "a", "model": "m"}]}]
    rankings = list(blender.iter_rank(iter(records)))
    assert rankings == blender.rank([PROMPT, "q"], [record["candidates"] for record in records])
    with pytest.raises(InputTypeError, match=r"item 1: expected a mapping .*, not str"):
        list(blender.iter_rank([records[0], "a prompt"]))
