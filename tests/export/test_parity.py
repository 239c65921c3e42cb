"""The proof of parity accepts the same model and nothing else."""

from typing import Any

import pytest
import torch

from blender_hf.errors import ModelOutputError
from blender_hf.export.parity import check_fuser, check_ranker, ranker_inputs
from blender_hf.modeling import PairRankerOutput
from tests.conftest import build_fuser, build_ranker
from tests.export.conftest import separate_ranker
from tests.generation.tiny_models import build_causal_fuser


def test_the_same_ranker_passes() -> None:
    model, _ = build_ranker()
    parity = check_ranker(model, model, 1e-6)
    assert (parity.difference, parity.n_logits, parity.longest) == (0, 20, 96)


def test_another_ranker_fails() -> None:
    with pytest.raises(ModelOutputError, match=r"not the model in torch: largest difference of a logit"):
        check_ranker(build_ranker()[0], build_ranker(seed=1)[0], 1e-3)


def test_encodings_are_compared_and_the_logits_of_all_pairs_of_them() -> None:
    model, _ = separate_ranker()
    parity = check_ranker(model, model, 1e-6)
    assert (parity.difference, parity.n_logits, parity.longest) == (0, 190, 80)
    with pytest.raises(ModelOutputError, match="largest difference of a number of an encoding"):
        check_ranker(model, separate_ranker(seed=1)[0], 1e-3)


def test_logits_of_encodings_that_are_each_close_enough_may_be_too_far_off() -> None:
    """Two differences that are each accepted add up."""
    model, _ = separate_ranker(preference_dim=0)

    def exported(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        encodings = model(input_ids, attention_mask).encodings
        return PairRankerOutput(encodings=encodings + 0.1 * (-1) ** input_ids[:, -1:, None])

    with pytest.raises(ModelOutputError, match="largest difference of a logit"):
        check_ranker(model, exported, 0.11)


@pytest.mark.parametrize("place", ["long", "batch"])
def test_a_ranker_that_is_wrong_only_there_fails(place: str) -> None:
    """A graph whose length or batch size was frozen is right where it was traced."""
    model, _ = build_ranker()

    def exported(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        logits = model(input_ids, attention_mask).logits
        batch, length = input_ids.shape
        wrong = length > 90 if place == "long" else batch > 1
        return PairRankerOutput(logits=logits + wrong)

    with pytest.raises(ModelOutputError):
        check_ranker(model, exported, 1e-2)


def test_nan_fails() -> None:
    model, _ = build_ranker()
    with pytest.raises(ModelOutputError, match="nan"):
        check_ranker(
            model, lambda input_ids, **_: PairRankerOutput(logits=torch.full(input_ids.shape[:1], torch.nan)), 9
        )


def test_inputs_have_markers_and_padding() -> None:
    model, _ = build_ranker()
    config = model.config
    for inputs in ranker_inputs(config):
        for marker in (config.source_token_id, config.candidate1_token_id, config.candidate2_token_id):
            assert ((inputs["input_ids"] == marker).sum(dim=1) == 1).all()
    assert not inputs["attention_mask"].all()


@pytest.mark.slow
def test_fusers_are_told_apart() -> None:
    model, _ = build_fuser(max_source_length=64)
    assert check_fuser(model, model, 1e-6, 64).difference == 0
    with pytest.raises(ModelOutputError):
        check_fuser(model, build_fuser(seed=1, max_source_length=64)[0], 1e-3, 64)
    causal, _ = build_causal_fuser(context=80)
    found = check_fuser(causal, causal, 1e-6, 64)
    assert (found.difference, found.longest) == (0, 56), "the tokens that it writes have positions too"
    with pytest.raises(ModelOutputError):
        check_fuser(causal, build_causal_fuser(context=80, seed=1)[0], 1e-3, 64)
