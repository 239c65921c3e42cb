"""A symmetric ranker: swapping the candidates negates the logit, and everything around it makes use of that."""

from pathlib import Path

import pytest
import torch

from blender_hf import Blender, PairRanker, PairRankerConfig
from blender_hf.engine.scorer import PairScorer, Presentation
from tests.conftest import backbone_config, build_ranker, example_texts

TEXTS = example_texts()
PROMPTS = [TEXTS[0], "hello!", "", "2 + 2?"]
FIRST = [TEXTS[1][:200], "hi!", "a", "4"]
SECOND = [TEXTS[2][:60], "f**k off!", "", "four, I think"]
KINDS = ("bert", "roberta")
POOLINGS = ("marker", "mean")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_swapping_negates_the_logit(kind: str, pooling: str) -> None:
    model, processor = build_ranker(kind, symmetric=True, pooling=pooling)
    with torch.no_grad():
        logits = model(**processor(PROMPTS, FIRST, SECOND)).logits
        swapped = model(**processor(PROMPTS, SECOND, FIRST)).logits
    torch.testing.assert_close(logits, -swapped, atol=1e-5, rtol=1e-5)
    assert logits.abs().max() > 1e-3


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, pooling: str) -> None:
    model, processor = build_ranker(kind, symmetric=True, pooling=pooling)
    texts = list(zip(PROMPTS, FIRST, SECOND, strict=True))
    with torch.no_grad():
        together = model(**processor(PROMPTS, FIRST, SECOND)).logits
        alone = torch.cat([model(**processor([p], [a], [b])).logits for p, a, b in texts])
        unmasked = torch.cat([model(processor([p], [a], [b])["input_ids"]).logits for p, a, b in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, unmasked, atol=1e-5, rtol=1e-5)


def test_the_candidates_see_each_other_as_far_as_the_bias_lets_them() -> None:
    biases = (0.0, -2.0, -1e4)
    logits = []
    for bias in biases:
        model, processor = build_ranker(symmetric=True, pooling="mean", cross_candidate_bias=bias)
        with torch.no_grad():
            logits.append(model(**processor(PROMPTS[:1], FIRST[:1], SECOND[:1])).logits.item())
    assert len({round(logit, 5) for logit in logits}) == len(biases)


def test_a_pair_is_scored_once_for_both_orders() -> None:
    model, processor = build_ranker(symmetric=True)
    seen: list[int] = []
    pairs = [Presentation("p", "a", "b"), Presentation("p", "b", "a"), Presentation("p", "a", "c")]
    scored = PairScorer(model, processor).score(pairs, on_batch=seen.append)
    assert sum(seen) == 2
    assert scored[0] == -scored[1] != 0


def test_no_winner_depends_on_the_order_of_presentation() -> None:
    ranking = Blender(*build_ranker(symmetric=True)).rank("p", [*FIRST, *SECOND])
    assert ranking.flip_rate == 0
    comparison = Blender(*build_ranker(symmetric=True)).compare("p", "a", "b")
    assert comparison.logit_ab == -comparison.logit_ba == comparison.logit


def test_it_is_saved_and_exported_with_free_axes(tmp_path: Path) -> None:
    model, processor = build_ranker(symmetric=True, pooling="mean", distinct_token_weight=1.5)
    model.save_pretrained(tmp_path)
    loaded = PairRanker.from_pretrained(tmp_path)
    axes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("length", min=8, max=96)}
    shapes = {"input_ids": axes, "attention_mask": axes}
    example = dict(processor(PROMPTS[:2], FIRST[:2], SECOND[:2]))
    program = torch.export.export(loaded, (), example, dynamic_shapes=shapes, strict=False)
    other = dict(processor(PROMPTS, SECOND, FIRST))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**other)["logits"], model(**other).logits, atol=1e-5, rtol=1e-5)


def test_an_encoder_of_relative_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="works with bert, roberta"):
        PairRankerConfig(backbone_config=backbone_config("deberta-v2", 100), symmetric=True)


def test_an_attention_that_takes_no_bias_is_refused() -> None:
    """flex_attention, given such a mask, ends the process."""
    model, processor = build_ranker("bert", symmetric=True)
    model.backbone.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="attn_implementation='flex_attention' can't; use 'sdpa'"):
        model(**processor(["2 + 2?"], ["4"], ["5"]))
