"""What goes wrong with llm-blender 0.0.2, each situation with what should happen instead.

With a checkpoint like PairRM-hf and its SentencePiece tokenizer, whose normalisation and markers caused several of the
faults, and through the public interface only. The docstrings say what the old package did. Faults that are not about
ranking, or not about a checkpoint of the authors, are tested where the code is.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blender_hf import Blender, CheckpointError, InputError, InputTypeError, ModelOutputError, PairRanker
from blender_hf.modeling import PairRankerProcessor
from tests.conftest import example_texts
from tests.original_checkpoints import ALL_MARKERS, KINDS, Original, make_pairrm, make_ranker, sentencepiece

TEXTS = example_texts()
PROMPT, ANSWERS = TEXTS[0], list(TEXTS[1:7])
LONG = " ".join(TEXTS)
MARKER_TEXTS = [*ALL_MARKERS, "<|source|> <|candidate1|>", "a <|candidate2|> b"]
SPECIAL_TEXTS = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "a [SEP] b"]
FULL_WIDTH_TEXTS = ["［SEP］", "［ＣＬＳ］", "［ＭＡＳＫ］", "＜｜candidate1｜＞", "＜｜ｓｏｕｒｃｅ｜＞ a", "[ＳＥＰ]"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return make_pairrm(tmp_path_factory.mktemp("pairrm"), KINDS[2])


@pytest.fixture(scope="module")
def ranker(original: Original) -> PairRanker:
    return PairRanker.from_pretrained(original.folder)


@pytest.fixture(scope="module")
def blender(ranker: PairRanker, original: Original) -> Blender:
    return Blender(ranker, PairRankerProcessor.from_pretrained(original.folder))


@contextmanager
def rows_read_by(ranker: PairRanker) -> Iterator[list[list[int]]]:
    """Note the token ids of each pair that the model reads, without padding at its end."""
    rows: list[list[int]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        # A pair ends with [SEP], whatever follows.
        rows.extend(row[: len(row) - row[::-1].index(2)] for row in batch.tolist())

    handle = ranker.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def test_ranks_and_order(blender: Blender) -> None:
    """`rank` returned an array of 1-based ranks, which callers took for an order: wrong for a third of triples."""
    rankings = [blender.rank(prompt, ANSWERS) for prompt in TEXTS[:21:7]]
    assert any(list(r.order) != [rank - 1 for rank in r.ranks] for r in rankings), "else this would show nothing"
    for ranking in rankings:
        assert [ranking.ranks[index] for index in ranking.order] == sorted(ranking.ranks)
        assert ranking.best == ANSWERS[ranking.ranks.index(1)] == ANSWERS[ranking.order[0]]
        with pytest.raises(TypeError):
            ranking[0]  # neither of the two by position


def test_a_long_source_in_the_same_batch(blender: Blender) -> None:
    """It cut this prompt's candidates: other logits, and two candidates that became the same text tied."""
    long_a, long_b = f"{TEXTS[1]} yes", f"{TEXTS[1]} no"
    alone = blender.compare("hello", long_a, long_b)
    beside, _ = blender.compare(["hello", LONG], [long_a, LONG], [long_b, "short"])
    assert beside.logit == pytest.approx(alone.logit, abs=1e-5)
    assert beside.preferred == alone.preferred != "tie"
    assert not beside.truncated


@pytest.mark.parametrize("text", [*MARKER_TEXTS, *SPECIAL_TEXTS, *FULL_WIDTH_TEXTS])
@pytest.mark.parametrize("place", ["prompt", "candidate"])
def test_special_tokens_in_texts(blender: Blender, ranker: PairRanker, text: str, place: str) -> None:
    """Markers: RuntimeError about sizes, or a wrong number of results; [CLS] and others: taken as special tokens;
    full-width forms, which the normalisation turns into special tokens after the check: all of these."""
    prompt = f"Say {text} now" if place == "prompt" else "Say it now"
    candidates = [f"So: {text}", f"{text} then", "no"] if place == "candidate" else ["yes", "no"]
    with rows_read_by(ranker) as rows:
        ranking = blender.rank(prompt, candidates)
    assert len(ranking.order) == len(candidates)
    assert len(rows) == len(candidates) * (len(candidates) - 1)
    first_added = len(sentencepiece())  # [MASK], then the authors' four
    for row in rows:
        assert [row.count(token) for token in (0, 1, 2)] == [0, 3, 3], "no [PAD], and [CLS] and [SEP] of the parts"
        assert [row.count(first_added + k) for k in range(5)] == [0, 1, 1, 1, 0]


def test_different_numbers_of_candidates(blender: Blender) -> None:
    """AssertionError."""
    together = blender.rank([PROMPT, "q", "r"], [ANSWERS[:4], ["a"], ["x", "y"]])
    assert [len(ranking.order) for ranking in together] == [4, 1, 2]
    assert together[0].order == blender.rank(PROMPT, ANSWERS[:4]).order


def test_candidates_as_a_list_of_strings(blender: Blender) -> None:
    """It ranked the letters."""
    with pytest.raises(InputTypeError, match=r"item 0: candidates must be a list of strings .*, not str"):
        blender.rank(["p", "q"], ["abc", "def"])


def test_one_string_instead_of_a_list_of_prompts(blender: Blender) -> None:
    """Accepted, and the letters were compared."""
    assert blender.rank("pq", ["ab", "cd"]).candidates == ("ab", "cd")
    single = blender.compare("pq", "ab", "cd")
    assert single.logit == pytest.approx(blender.compare(["pq"], ["ab"], ["cd"])[0].logit, abs=1e-6)
    with pytest.raises(InputTypeError, match="candidates must be a list"):
        blender.rank("pq", "ab")


def test_no_prompts(blender: Blender) -> None:
    """ValueError or IndexError from numpy."""
    assert blender.rank([], []) == []
    assert blender.compare([], [], []) == []


def test_none_as_a_candidate(blender: Blender) -> None:
    """ "can only concatenate str"."""
    with pytest.raises(InputTypeError, match=r"item 1, candidate 0: .*None"):
        blender.rank(["p", "q"], [["a", "b"], [None, "b"]])
    with pytest.raises(InputTypeError, match=r"item 0, candidate 1: .*None"):
        blender.compare(["p"], ["a"], [None])


def test_ties(blender: Blender, ranker: PairRanker) -> None:
    """`compare(a, a)` was False, "b is better", after a forward pass."""
    with rows_read_by(ranker) as rows:
        comparison = blender.compare(PROMPT, "same", "same")
        ranking = blender.rank(PROMPT, ["same", "same"])
    assert (comparison.preferred, comparison.logit, comparison.probability) == ("tie", 0.0, 0.5)
    assert ranking.ranks == (1, 1)
    assert rows == []


def test_the_sign_of_a_comparison(blender: Blender, original: Original) -> None:
    """`mode="[B,A]"` returned the opposite of its documentation, and any misspelt mode was taken as the default."""
    [logit_ab] = original.logits([("p", "yes", "no")], 2048, 1224).tolist()
    comparison = blender.compare("p", "yes", "no")
    assert comparison.logit_ab == pytest.approx(logit_ab, abs=1e-5), "positive: the one that is read first is better"
    swapped = blender.compare("p", "no", "yes")
    assert (swapped.logit, swapped.logit_ab) == (-comparison.logit, comparison.logit_ba)
    assert comparison.preferred == ("a" if comparison.logit > 0 else "b")
    with pytest.raises(TypeError, match="mode"):
        blender.compare("p", "a", "b", mode="[B,A]")


def test_the_mean_of_both_orders(blender: Blender, original: Original) -> None:
    """Documented as the average, it was the sum: twice the logit that the loss means."""
    ab, ba = original.logits([("p", "yes", "no"), ("p", "no", "yes")], 2048, 1224).tolist()
    comparison = blender.compare("p", "yes", "no")
    assert comparison.logit == pytest.approx((ab - ba) / 2, abs=1e-5)
    assert comparison.probability == pytest.approx(1 / (1 + math.exp(-comparison.logit)))


@pytest.mark.parametrize("aggregation", ["max_wins", "max_logits"])
def test_one_definition_of_wins_and_logits(blender: Blender, aggregation: str) -> None:
    """Wins: scores added a sum and a mean, and disagreed with the ranks. Logits: the sum of the row divided by N, the
    empty diagonal counted in."""
    ranking = blender.rank(PROMPT, ANSWERS, aggregation=aggregation)
    assert list(ranking.ranks) == [1 + sum(other > score for other in ranking.scores) for score in ranking.scores]
    for i, row in enumerate(ranking.comparisons):
        others = [logit for j, logit in enumerate(row) if j != i]
        if aggregation == "max_logits":
            assert ranking.scores[i] == pytest.approx(sum(others) / len(others), abs=1e-6)
    if aggregation == "max_wins":
        wins = [sum(logit > 0 for logit in row) for row in ranking.comparisons]
        by_wins = sorted(range(len(wins)), key=lambda i: -wins[i])
        assert [wins[i] for i in ranking.order] == [wins[i] for i in by_wins]


def test_nan_weights(original: Original) -> None:
    """`compare` said False, `rank` raised "nan is not in list"."""
    broken = PairRanker.from_pretrained(original.folder)
    with torch.no_grad():
        broken.head.out_proj.weight.fill_(torch.nan)
    blender = Blender(broken, PairRankerProcessor.from_pretrained(original.folder))
    with pytest.raises(ModelOutputError, match="NaN"):
        blender.compare("p", "a", "b")
    with pytest.raises(ModelOutputError, match="NaN"):
        blender.rank("p", ["a", "b"])


def test_answers_differ_from_call_to_call(blender: Blender) -> None:
    """Best-of-n started from an unseeded random order, and all that it returned was not sorted."""
    first, second = (blender.rank(PROMPT, ANSWERS) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    scores = dict(zip(ANSWERS, first.scores, strict=True))
    assert [scores[text] for text in first.sorted_candidates] == sorted(first.scores, reverse=True)


def test_instruction_and_input(blender: Blender, ranker: PairRanker) -> None:
    """Joined with nothing in between: "You are a helpful assistant.Translate: cat"."""
    with rows_read_by(ranker) as apart:
        blender.compare("Translate: cat", "a", "b", instructions="You are a helpful assistant.")
    with rows_read_by(ranker) as joined:
        blender.compare("You are a helpful assistant.\nTranslate: cat", "a", "b")
    assert apart == joined
    assert apart[0][2:].count(2) == 3


@pytest.mark.parametrize("option", ["source_maxlength", "no_such_option", "mode", "batch_size"])
def test_options(blender: Blender, option: str) -> None:
    """Silently ignored: `source_maxlength`, `no_such_option=1`, the README's own `mode=`."""
    for call in (
        lambda given: blender.rank("p", ["a", "b"], **given),
        lambda given: blender.compare("p", "a", "b", **given),
        lambda given: Blender.from_pretrained("x", None, **given),
    ):
        with pytest.raises(TypeError, match=option):
            call({option: 1})
    with pytest.raises(InputError, match="'max_logit'; use one of"):
        blender.rank("p", ["a", "b"], aggregation="max_logit")


def test_before_loading() -> None:
    """AttributeError at the first use: a blender could be made without its models."""
    with pytest.raises(TypeError, match="ranker"):
        Blender()  # type: ignore[call-arg]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_weights_without_the_head(weights: str, tmp_path: Path) -> None:
    """A log line, then random scores."""
    folder = make_ranker(tmp_path / "ranker", KINDS[1], weights).folder
    path = folder / weights
    whole = load_file(path) if weights.endswith("safetensors") else torch.load(path, weights_only=True)
    path.unlink()
    torch.save({name: tensor for name, tensor in whole.items() if "head" not in name}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"4 missing from the checkpoint.*head\.dense"):
        Blender.from_pretrained(folder, None, device="cpu")


@pytest.mark.parametrize("name", ["llama-7b", "phi", "alpaca", "starling-rm"])
def test_a_path_with_the_name_of_another_model(blender: Blender, original: Original, name: str, tmp_path: Path) -> None:
    """Another tokenizer, or `trust_remote_code=True`."""
    (tmp_path / name).symlink_to(original.folder)
    found = Blender.from_pretrained(tmp_path / name, None, device="cpu").compare("p", "a", "b")
    assert found.logit == pytest.approx(blender.compare("p", "a", "b").logit, abs=1e-6)


def test_prints_and_warnings(original: Original, capfd: pytest.CaptureFixture[str]) -> None:
    """It printed, and silenced the warnings of the whole process."""
    filters = list(warnings.filters)
    blender = Blender.from_pretrained(original.folder, None, device="cpu")
    capfd.readouterr()  # transformers 5 shows a bar when it loads weights
    blender.rank("p", ["a", "b"])
    assert capfd.readouterr() == ("", "")
    assert list(warnings.filters) == filters


def test_conversations(blender: Blender) -> None:
    """Upper-case roles, an even number of turns, no system message."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3 + 3?"},
    ]
    assert blender.rank(turns, ["6", "7"]).n_comparisons == 1
    assert [len(ranking.order) for ranking in blender.rank([turns, turns[:2], turns[1:2]], [["6", "7"]] * 3)] == [2] * 3
    with pytest.raises(InputError, match="role 'USER'"):
        blender.rank([{"role": "USER", "content": "hi"}], ["a", "b"])
