"""Ranking by encodings: one reading a candidate, all pairs compared, and nothing that depends on the batch."""

import asyncio
import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from blender_hf import Blender, ModelOutputError, PairRanker, PairRankerConfig, Schedule
from blender_hf.engine.separate import Separate
from blender_hf.modeling import PairRankerProcessor
from tests.conftest import build_separate_ranker, example_texts, ranker_processor
from tests.stacks.families import config_of

PROMPT = example_texts()[0]
TEXTS = [text[:80] for text in example_texts()[1:6]]
KINDS = {"shared": ("bert", {"shared_prompt": True}), "rows": ("deberta-v2", {}), "causal": ("llama", {})}


def ranker_of(kind: str, **config: object) -> tuple[PairRanker, PairRankerProcessor]:
    family, settings = KINDS[kind]
    return build_separate_ranker(config_of(family, len(ranker_processor().tokenizer)), **settings, **config)


def blender_of(kind: str, **config: object) -> Blender:
    return Blender(*ranker_of(kind, **config))


def count_readings(blender: Blender, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of candidates of each batch that the model reads."""
    model: Any = blender.ranker.model
    counts: list[int] = []
    encode: Callable[..., torch.Tensor] = model.head.encode

    def counted(source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        counts.append(len(candidate))
        return encode(source, candidate)

    monkeypatch.setattr(model.head, "encode", counted)
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_are_compared_from_one_encoding_a_candidate(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = ranker_of(kind)
    pairs = torch.tensor([[i, j] for i in range(5) for j in range(5)])
    with torch.no_grad():
        wanted = model(**processor([PROMPT] * 5, TEXTS), pairs=pairs).logits.view(5, 5)
    blender = Blender(model, processor)
    counts = count_readings(blender, monkeypatch)
    ranking = blender.rank(PROMPT, TEXTS)
    assert sum(counts) == ranking.n_encodings == 5
    assert (ranking.n_comparisons, ranking.n_possible, ranking.flip_rate, ranking.schedule) == (10, 10, 0.0, "full")
    for i in range(5):
        for j in range(5):
            if i == j:
                assert math.isnan(ranking.logits[i][j])
            else:
                assert ranking.logits[i][j] == pytest.approx(wanted[i, j].item(), abs=1e-5)
                assert ranking.logits[i][j] == -ranking.logits[j][i]


@pytest.mark.parametrize("kind", KINDS)
def test_neither_order_nor_batch_changes_a_bit(kind: str) -> None:
    ranking = blender_of(kind).rank(PROMPT, TEXTS)
    turned = blender_of(kind).rank(PROMPT, TEXTS[::-1])
    assert turned.scores[::-1] == ranking.scores
    for tokens in (40, 100_000):
        model, processor = ranker_of(kind)
        several = Blender(model, processor, max_batch_tokens=tokens).rank(
            [PROMPT, "hello!", PROMPT + "?"], [TEXTS, ["a", "b"], TEXTS[:2]]
        )
        assert several[0].scores == pytest.approx(ranking.scores, abs=1e-5)
        assert several[2].scores != several[0].scores[:2]


@pytest.mark.parametrize("schedule", ["adaptive", "bubble", Schedule("knockout", top_k=1, orders="one")])
def test_a_schedule_changes_nothing(schedule: Any) -> None:
    blender = blender_of("shared")
    assert blender.rank(PROMPT, TEXTS, schedule=schedule) == blender.rank(PROMPT, TEXTS)


def test_one_more_candidate_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    blender = blender_of("shared")
    counts = count_readings(blender, monkeypatch)
    few = blender.rank(PROMPT, TEXTS[:4])
    assert sum(counts) == 4
    more = blender.rank(PROMPT, TEXTS)
    assert sum(counts) == 5
    for row, known in zip(more.comparisons, few.comparisons, strict=False):
        assert row[:4] == pytest.approx(known, abs=1e-5, nan_ok=True)
    comparison = blender.compare(PROMPT, "A fused text.", TEXTS[0])
    assert sum(counts) == 6
    assert comparison.logit == blender.compare(PROMPT, "A fused text.", TEXTS[0]).logit
    assert sum(counts) == 6
    assert blender.rank("Another prompt", TEXTS[:2]).n_encodings == 2
    assert sum(counts) == 8


def test_encodings_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blender_hf.engine.separate.MAX_KEPT", 3)
    blender = blender_of("shared")
    wanted = blender_of("shared").rank(PROMPT, TEXTS).scores
    for _ in range(2):
        assert blender.rank(PROMPT, TEXTS).scores == pytest.approx(wanted, abs=1e-5)
    kept: Any = blender.ranker
    assert len(kept.scorer._kept) == 3


def train(model: PairRanker) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sum((weight**2).sum() for weight in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()


def average(model: PairRanker) -> None:
    for weight in model.parameters():
        weight.data.mul_(0.5)  # as averages of weights are written, which torch does not count


def pool_by_the_last(model: PairRanker) -> None:
    model.config.pooling = "last"


def disable_adapters(model: PairRanker) -> None:
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(False)


@pytest.mark.parametrize("change", [train, average, pool_by_the_last, disable_adapters])
def test_encodings_of_another_state_of_the_model_are_forgotten(change: Callable[[PairRanker], None]) -> None:
    model, processor = ranker_of("shared")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["query", "dense"], init_lora_weights=False), model)
    blender = Blender(model, processor)
    before = blender.rank(PROMPT, TEXTS).scores
    change(model)
    after = blender.rank(PROMPT, TEXTS).scores
    assert after != pytest.approx(before, abs=1e-3)
    assert after == Blender(model, processor).rank(PROMPT, TEXTS).scores


def test_adapters_of_the_head_are_used() -> None:
    model, processor = ranker_of("shared")
    before = Blender(model, processor).rank(PROMPT, TEXTS).scores
    adapters = LoraConfig(r=2, target_modules=["head.dense", "out_proj", "preference"], init_lora_weights=False)
    adapted = get_peft_model(model, adapters)
    after = Blender(adapted, processor).rank(PROMPT, TEXTS).scores
    assert after != pytest.approx(before, abs=1e-3)
    assert Blender(adapted.merge_and_unload(), processor).rank(PROMPT, TEXTS).scores == pytest.approx(after, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_long_and_short_prompts_are_read_together_up_to_the_last_position(family: str) -> None:
    """Padding behind the candidate of a long prompt has no position."""
    config = config_of(family, len(ranker_processor().tokenizer))
    n_positions = PairRankerConfig(backbone_config=config, pooling="last").n_positions
    assert n_positions is not None
    model, processor = build_separate_ranker(config, shared_prompt=True)
    lengths = {"max_source_length": n_positions - 16, "max_candidate_length": n_positions - 16}
    processor.set_truncation(max_pair_length=n_positions, **lengths)
    long = " ".join(example_texts())
    prompts, candidates = [long, "hello!"], [["a", "b c"], [long, "x"]]
    blender = Blender(model, processor)
    blender.scorer.max_padding = 10_000  # type: ignore[union-attr] # as on a GPU
    for together, prompt, texts in zip(blender.rank(prompts, candidates), prompts, candidates, strict=True):
        alone = Blender(model, processor).rank(prompt, texts)
        assert together.scores == pytest.approx(alone.scores, abs=1e-4)
    assert together.truncated.candidates[0] > 0


def test_every_method_of_a_blender_uses_encodings() -> None:
    blender = blender_of("causal", preference_dim=0)
    ranking = blender.rank(PROMPT, TEXTS)
    comparison = blender.compare(PROMPT, TEXTS[0], TEXTS[1])
    assert isinstance(blender.ranker, Separate)
    assert comparison.logit == ranking.comparisons[0][1]
    assert comparison.logit_ab == -comparison.logit_ba
    assert blender.best_of_n(PROMPT, TEXTS) == ranking.best
    assert blender.reward(PROMPT, TEXTS, reference=TEXTS[2]) == pytest.approx(
        [0.0 if i == 2 else ranking.comparisons[i][2] for i in range(5)]
    )
    assert sum(blender.group_reward(PROMPT, TEXTS)) == pytest.approx(0, abs=1e-5)
    assert list(blender.iter_rank([{"prompt": PROMPT, "candidates": TEXTS}] * 2)) == [ranking] * 2
    assert ranking.n_cycles == 0

    async def together() -> list[Any]:
        return await asyncio.gather(*(blender.arank(PROMPT, TEXTS) for _ in range(3)))

    assert asyncio.run(together()) == [ranking] * 3


def test_what_is_the_same_ties_and_what_is_cut_is_reported() -> None:
    blender = blender_of("shared")
    ranking = blender.rank("p " * 200, ["a", "b " * 300, "a", "ａ"])
    assert ranking.comparisons[0][2] == 0
    assert ranking.n_encodings == 2
    assert ranking.truncated.prompt > 0
    assert [cut > 0 for cut in ranking.truncated.candidates] == [False, True, False, False]
    assert ranking.unread is not None
    assert ranking.unread.indistinguishable == ((0, 2, 3),)
    assert blender.rank("p", ["alone"]).n_encodings == 1
    assert list(blender.iter_rank([])) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_is_too_large_for_the_memory_is_halved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = blender_of(kind).rank(PROMPT, TEXTS).scores
    blender = blender_of(kind)
    head: Any = blender.ranker.model.head
    encode = head.encode

    def small(source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        if len(candidate) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return encode(source, candidate)

    monkeypatch.setattr(head, "encode", small)
    assert blender.rank(PROMPT, TEXTS).scores == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights_are_an_error(kind: str) -> None:
    model, processor = ranker_of(kind)
    with torch.no_grad():
        model.head.out_proj.bias.fill_(math.nan)
    with pytest.raises(ModelOutputError, match="NaN or an infinite"):
        Blender(model, processor).rank(PROMPT, TEXTS)


def test_it_can_be_pickled_and_compiled() -> None:
    blender = blender_of("rows")
    ranking = blender.rank(PROMPT, TEXTS)
    assert pickle.loads(pickle.dumps(blender)).rank(PROMPT, TEXTS) == ranking
    model, processor = ranker_of("shared")
    compiled: Any = Blender(model, processor, compile=True)
    compiled.ranker.scorer._call = torch.compile(model, dynamic=True, backend="eager")
    wanted = Blender(model, processor).rank(PROMPT, TEXTS).scores
    assert compiled.rank(PROMPT, TEXTS).scores == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_tells_close_candidates_apart(kind: str) -> None:
    """A score of 30 has steps of an eighth in bfloat16, in which close candidates would tie."""
    model, processor = ranker_of(kind, preference_dim=0)
    with torch.no_grad():
        model.head.out_proj.bias.fill_(30.0)
    wanted = Blender(model, processor).rank(PROMPT, TEXTS)
    found = Blender(copy.deepcopy(model).to(torch.bfloat16), processor).rank(PROMPT, TEXTS)
    assert len(set(found.scores)) == len(TEXTS)
    assert found.scores == pytest.approx(wanted.scores, abs=0.1 * max(map(abs, wanted.scores)) + 0.05)
