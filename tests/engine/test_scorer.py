"""The engine: what a pair is scored as depends on that pair alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_hf import Blender, ModelOutputError
from blender_hf.engine.scorer import PairScorer, Presentation, pack_by_tokens
from tests.conftest import build_ranker, example_texts

TEXTS = (*example_texts()[:12], "", "hi!", "［SEP］ <|candidate2|>")
MODEL, PROCESSOR = build_ranker()
TEXT = st.sampled_from(TEXTS)
PRESENTATION = st.builds(Presentation, TEXT, TEXT, TEXT)


def alone(presentation: Presentation) -> float:
    if presentation.first == presentation.second:
        return 0.0  # a tie, whatever the model likes about a place
    texts = ([presentation.source], [presentation.first], [presentation.second])
    with torch.no_grad():
        return MODEL(**PROCESSOR(*texts)).logits.item()


@settings(max_examples=25, deadline=None)
@given(st.lists(PRESENTATION, min_size=1, max_size=8), st.integers(1, 600))
def test_neighbours_order_and_batch_size_change_nothing(pairs: list[Presentation], max_batch_tokens: int) -> None:
    scored = PairScorer(MODEL, PROCESSOR, max_batch_tokens=max_batch_tokens).score(pairs)
    assert scored == pytest.approx([alone(pair) for pair in pairs], abs=1e-5)


def test_exact_repeats_are_scored_once() -> None:
    seen: list[int] = []
    pair = Presentation("p", "a", "b")
    scored = PairScorer(MODEL, PROCESSOR).score([pair, Presentation("p", "b", "a"), pair], on_batch=seen.append)
    assert sum(seen) == 2
    assert scored[0] == scored[2]


@pytest.mark.parametrize("symmetric", [False, True])
def test_candidates_that_are_the_same_tokens_tie_and_cost_nothing(symmetric: bool) -> None:
    """Once rounding, or the model's taste for a place, made one of them the better one."""
    model, processor = build_ranker(symmetric=symmetric, pooling="mean")
    seen: list[int] = []
    cut_alike = [f"{TEXTS[0]} {TEXTS[1]} {end}" for end in ("one", "two")]
    alike = [cut_alike, ["Yes", "Ｙes"], ["fin", "ﬁn"]]  # normalised by the tokenizer
    pairs = [Presentation("p", *texts) for pair in alike for texts in (pair, pair[::-1])]
    different = Presentation("p", "a", TEXTS[0])
    scored = PairScorer(model, processor).score([*pairs, different], on_batch=seen.append)
    assert scored[:-1] == [0.0] * len(pairs)
    assert scored[-1] != 0.0
    assert seen == [1]


@pytest.mark.parametrize(("symmetric", "orders"), [(False, "both"), (True, "both"), (True, "one")])
def test_candidates_that_are_the_same_tokens_share_a_rank(symmetric: bool, orders: str) -> None:
    blender = Blender(*build_ranker(symmetric=symmetric, pooling="mean"))
    ranking = blender.rank("Is it true?", ["Yes, it is.", "No.", "Ｙes, it is.", "Yes, it iｓ."], orders=orders)
    assert ranking.scores[0] == ranking.scores[2] == ranking.scores[3] != ranking.scores[1]
    assert ranking.ranks[0] == ranking.ranks[2] == ranking.ranks[3]


def test_a_batch_that_is_too_large_for_the_device_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's memory can't be had here, so the model is made to run out of it above two rows."""
    pairs = [Presentation("p", "a", text) for text in TEXTS[:5]]
    scorer = PairScorer(MODEL, PROCESSOR)
    expected = scorer.score(pairs)
    sizes: list[int] = []

    def small_model(**inputs: torch.Tensor) -> object:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return MODEL(**inputs)

    monkeypatch.setattr(scorer, "_call", small_model)
    assert scorer.score(pairs) == pytest.approx(expected, abs=1e-5)
    assert max(sizes) > 2
    monkeypatch.setattr(scorer, "_call", lambda **inputs: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score(pairs[:1])


def test_a_compiled_model_gives_the_same() -> None:
    compiled = PairScorer(MODEL, PROCESSOR, compile=True)
    compiled._call = torch.compile(MODEL, dynamic=True, backend="eager")  # the tracing alone, which needs no compiler
    pairs = [Presentation("p", "a", text) for text in TEXTS[:4]]
    assert compiled.score(pairs) == pytest.approx(PairScorer(MODEL, PROCESSOR).score(pairs), abs=1e-5)


def test_nothing_is_nothing() -> None:
    assert PairScorer(MODEL, PROCESSOR).score([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200), st.integers(0, 100))
def test_batches_hold_everything_once_within_the_budget(lengths: list[int], budget: int, max_padding: int) -> None:
    batches = list(pack_by_tokens(lengths, budget, max_padding))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert sum(longest - lengths[i] for i in batch) <= max_padding


def test_nan_is_an_error() -> None:
    """PEER_FAULTS: with NaN weights `compare` said False."""
    broken, processor = build_ranker()
    with torch.no_grad():
        broken.head.dense.weight.fill_(torch.nan)
    with pytest.raises(ModelOutputError, match="NaN"):
        PairScorer(broken, processor).score([Presentation("p", "a", "b")])
