"""The preference for the candidate that says more: what it counts, and what it adds to the logit."""

from pathlib import Path

import pytest
import torch

from blender_hf import Blender, PairRanker, PairRankerConfig, PairRankerProcessor
from blender_hf.errors import InputError
from blender_hf.integrations.trl import pairwise_reward
from blender_hf.modeling.modeling_pair_ranker import lead_in_distinct_tokens
from tests.conftest import backbone_config, build_ranker, example_texts

TEXTS = example_texts()
PROMPTS = ["Who?", TEXTS[0][:40], "2 + 2?"]
FIRST = ["It was the hen. " * 3, TEXTS[1][:60], "4"]
SECOND = ["It was the hen.", TEXTS[2][:30], ""]
WEIGHT = 1.5
KINDS = [("bert", False), ("bert", True), ("deberta-v2", False)]


def test_repetitions_and_what_is_outside_do_not_count() -> None:
    plain = [7, 5, 8, 3, 3, 4, 9, 3, 0, 0, 0, 0]
    with_a_start = [1, 7, 5, 1, 8, 3, 3, 4, 1, 9, 3, 0]  # as a tokenizer begins every text
    turned = [7, 5, 8, 3, 9, 3, 3, 4, 0, 0, 0, 0]
    ids = torch.tensor([plain, with_a_start, turned])
    lead = (3 - 2) / (3 + 2)  # a marker, 3 and 4; a marker and 3
    assert lead_in_distinct_tokens(ids, ids > 0, (7, 8, 9)).tolist() == pytest.approx([lead, lead, -lead])


def lead_by_hand(processor: PairRankerProcessor) -> torch.Tensor:
    """Count anew, from the texts: a candidate has a marker and an end besides, and none of these is cut."""
    first, second = ([2 + len(set(ids)) for ids in processor.encode_texts(texts)] for texts in (FIRST, SECOND))
    return torch.tensor([(a - b) / (a + b) for a, b in zip(first, second, strict=True)])


@pytest.mark.parametrize(("kind", "symmetric"), KINDS)
def test_the_logit_is_the_plain_one_and_the_weighted_lead(kind: str, symmetric: bool) -> None:
    model, processor = build_ranker(kind, symmetric=symmetric)
    lead = lead_by_hand(processor)
    assert lead[0] == 0 < lead[2], "repeating itself gains an answer nothing, saying more does"
    with torch.no_grad():
        plain = model(**processor(PROMPTS, FIRST, SECOND)).logits
        model.config.distinct_token_weight = WEIGHT
        weighted = model(**processor(PROMPTS, FIRST, SECOND)).logits
        swapped = processor(PROMPTS, SECOND, FIRST)
        swapped = lead_in_distinct_tokens(swapped["input_ids"], swapped["attention_mask"] > 0, model.config.markers)
        texts = zip(PROMPTS, FIRST, SECOND, strict=True)
        alone = torch.cat([model(processor([p], [a], [b])["input_ids"]).logits for p, a, b in texts])
    torch.testing.assert_close(weighted - plain, WEIGHT * lead, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(swapped, -lead)
    torch.testing.assert_close(weighted, alone, atol=1e-5, rtol=1e-5)


def test_a_symmetric_ranker_stays_so() -> None:
    blender = Blender(*build_ranker(symmetric=True, distinct_token_weight=WEIGHT))
    comparison = blender.compare(PROMPTS[1], FIRST[1], SECOND[1])
    assert comparison.logit_ab == -comparison.logit_ba != 0


def test_it_is_trained_with(tmp_path: Path) -> None:
    """The term is no weight: the loss is that of the whole logit, and a checkpoint without it still loads."""
    model, processor = build_ranker(distinct_token_weight=WEIGHT)
    output = model(**processor(PROMPTS, FIRST, SECOND), labels=torch.ones(3))
    expected = torch.nn.functional.softplus(-output.logits).mean()
    torch.testing.assert_close(output.loss, expected)
    model.save_pretrained(tmp_path)
    assert PairRanker.from_pretrained(tmp_path).config.distinct_token_weight == WEIGHT
    assert PairRanker.from_pretrained(tmp_path, distinct_token_weight=0.0).config.distinct_token_weight == 0


def test_it_is_left_out_by_an_argument(tmp_path: Path, checkpoints: Path) -> None:
    model, processor = build_ranker(distinct_token_weight=WEIGHT)
    model.save_pretrained(tmp_path, processor=processor)
    stated, neutral = (Blender.from_pretrained(tmp_path, None, device="cpu", length_neutral=on) for on in (False, True))
    model.config.distinct_token_weight = 0.0
    rankers = (stated, neutral, Blender(model, processor))
    logits = [ranker.compare(PROMPTS[1], FIRST[1], SECOND[1]).logit for ranker in rankers]
    assert logits[0] != logits[1] == pytest.approx(logits[2], abs=1e-6)
    rewards = pairwise_reward(tmp_path, device="cpu", length_neutral=True)([PROMPTS[1]] * 2, [FIRST[1], SECOND[1]])
    assert rewards == pytest.approx([logits[1], -logits[1]], abs=1e-6)
    with pytest.raises(InputError, match="has none"):
        Blender.from_pretrained(checkpoints / "ranker", None, device="cpu", length_neutral=True)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="it is a number, 0 for none"):
        PairRankerConfig(backbone_config=backbone_config("bert", 100), distinct_token_weight=weight)
