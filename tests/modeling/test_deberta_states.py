"""A few states of a DeBERTa against the same states of transformers' own, and how much is computed for them."""

from unittest import mock

import pytest
import torch
from torch import nn
from transformers import DebertaV2Model

from blender_hf import Blender
from blender_hf.modeling import fast_deberta, fast_kernels
from blender_hf.modeling.fast_deberta import states_at, supports_states_at, uses_states_at
from tests.conftest import build_ranker, example_texts

from .test_fast_deberta import VARIANTS, build_pair, inputs

LAID_OUT = {
    "padding": [1.0, 0.6, 0.1],
    "equal lengths side by side": [1.0, 0.6, 0.6, 0.3, 1.0],
    "none": [1.0, 1.0],
    "one": [1.0],
}
WITHOUT_CONVOLUTION = [name for name in VARIANTS if name != "xlarge-v2"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make several blocks of heads and of rows at the lengths of these tests."""
    monkeypatch.setattr(fast_kernels, "CACHED_BYTES", 4 * 1000)


def asked(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the first, a middle and the last token of each sequence."""
    lengths = batch["attention_mask"].sum(dim=1)
    return torch.stack([torch.zeros_like(lengths), lengths // 2, lengths - 1], dim=1)


def expected(own: DebertaV2Model, batch: dict[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    states = own(**batch).last_hidden_state
    return states[torch.arange(len(states))[:, None], places]


def padded(*arguments: object) -> torch.Tensor:
    """Compute as on an accelerator."""
    with mock.patch.object(fast_deberta, "_packs", return_value=False):
        return states_at(*arguments)


@pytest.mark.parametrize("read", [states_at, padded], ids=["packed", "padded"])
@pytest.mark.parametrize("lengths", LAID_OUT)
@pytest.mark.parametrize("variant", WITHOUT_CONVOLUTION)
@torch.no_grad()
def test_states_are_those_of_transformers(variant: str, lengths: str, read: object) -> None:
    own, fast = build_pair(**VARIANTS[variant])
    batch = inputs(60, LAID_OUT[lengths])
    places = asked(batch)
    found = read(fast, places, *batch.values())
    torch.testing.assert_close(found, expected(own, batch, places), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_segments_and_absolute_positions_are_read() -> None:
    own, fast = build_pair(type_vocab_size=2, position_biased_input=True)
    batch = inputs(40, LAID_OUT["padding"])
    batch["token_type_ids"] = (torch.arange(40) > 5).long().expand(3, -1)
    places = asked(batch)
    found = states_at(fast, places, batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    torch.testing.assert_close(found, expected(own, batch, places), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", [[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0]], ids=["on the left", "in the middle"])
@torch.no_grad()
def test_padding_anywhere_is_only_padding(mask: list[int]) -> None:
    own, fast = build_pair()
    ids = inputs(6, [1.0, 1.0])["input_ids"]
    batch = {"input_ids": ids, "attention_mask": torch.tensor([mask, [1] * 6])}
    places = torch.tensor([[3, 4], [0, 5]])
    found = states_at(fast, places, *batch.values())
    torch.testing.assert_close(found, expected(own, batch, places), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_sequence_of_padding_alone_harms_no_other() -> None:
    own, fast = build_pair()
    batch = inputs(12, [1.0, 0.5])
    batch["attention_mask"][1] = 0
    places = torch.zeros(2, 1, dtype=torch.long)
    found = states_at(fast, places, *batch.values())
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], expected(own, batch, places)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
@torch.no_grad()
def test_only_what_is_read_is_computed(packed: bool) -> None:
    """Through the linear layers go the real tokens, and through the last layer's the places that are asked for."""
    _, fast = build_pair(num_hidden_layers=3)
    batch = inputs(50, LAID_OUT["padding"])
    rows: dict[int, int] = {}
    for index, layer in enumerate(fast.encoder.layer):
        layer.intermediate.register_forward_pre_hook(
            lambda _, args, index=index: rows.update({index: args[0].shape[:-1].numel()})
        )
    places = asked(batch)
    (states_at if packed else padded)(fast, places, *batch.values())
    each = int(batch["attention_mask"].sum()) if packed else batch["input_ids"].numel()
    assert rows == {0: each, 1: each, 2: places.numel()}


@torch.no_grad()
def test_half_precision_is_as_near_as_the_whole_encoder() -> None:
    own, fast = build_pair()
    batch = inputs(50, LAID_OUT["padding"])
    places = asked(batch)
    exact = expected(own, batch, places)
    narrow = states_at(fast.bfloat16(), places, *batch.values())
    error = (narrow - exact).abs().mean()
    assert narrow.dtype == torch.bfloat16
    assert error < 1.2 * (expected(own.bfloat16(), batch, places) - exact).abs().mean()


def test_where_it_runs() -> None:
    _, fast = build_pair()
    assert not uses_states_at(fast)  # gradients are wanted
    with torch.inference_mode():
        assert uses_states_at(fast)
    assert not supports_states_at(build_pair(conv_kernel_size=3, conv_act="gelu")[1])
    assert not supports_states_at(nn.Linear(2, 2))
    assert not supports_states_at(build_ranker("bert")[0].backbone)


def test_the_ranker_says_the_same_with_gradients_and_without() -> None:
    model, processor = build_ranker("deberta-v2")
    model.double()
    texts = example_texts()
    batch = processor(list(texts[:3]), list(texts[3:6]), list(texts[6:9]))
    tracked = model(**batch).logits
    assert tracked.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(model(**batch).logits, tracked.detach(), atol=1e-9, rtol=1e-9)


def test_rankings_do_not_depend_on_how_much_fits_a_batch() -> None:
    model, processor = build_ranker("deberta-v2")
    assert model.skips_padding
    model.double()
    texts = list(example_texts())
    prompt, candidates = texts[0], texts[1:6]
    whole = Blender(model, processor, max_batch_tokens=4096).rank(prompt, candidates).scores
    single = Blender(model, processor, max_batch_tokens=1).rank(prompt, candidates).scores
    torch.testing.assert_close(whole, single, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("kind", "options"), [("bert", {}), ("deberta-v2", {"pooling": "mean"})])
def test_others_are_packed_with_little_padding(kind: str, options: dict[str, str]) -> None:
    model, processor = build_ranker(kind, **options)
    assert not model.skips_padding
    assert Blender(model, processor).scorer.max_padding < Blender(model, processor).scorer.max_batch_tokens
