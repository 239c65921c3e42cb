"""DeBERTa's fast attention against transformers' own: the same weights, the same results, the same gradients."""

import copy
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DebertaV2Config, DebertaV2Model, set_seed
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from blender_hf.modeling import fast_deberta, fast_kernels
from blender_hf.modeling.fast_deberta import FastSelfAttention, use_fast_attention
from tests.conftest import SMALL, build_ranker, example_texts

V3 = {
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
VARIANTS = {
    "v3": {},
    "xlarge-v2": {"conv_kernel_size": 3, "conv_act": "gelu"},
    "own position projections": {"share_att_key": False},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 24},
    "no buckets, own projections, table not normed": {
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "none",
    },
    "buckets that stretch": {"position_buckets": 32, "max_relative_positions": 20},
    "more buckets than positions": {"position_buckets": 64, "max_relative_positions": 20},
    "c2p": {"pos_att_type": "c2p"},
    "p2c": {"pos_att_type": ["p2c"], "share_att_key": False},
    "neither": {"pos_att_type": []},
    "absolute": {"relative_attention": False, "position_biased_input": True},
    "absolute, scaled as if relative": {"relative_attention": False, "pos_att_type": "p2c|c2p"},
}
MASKS = {"padding": [1.0, 0.6, 0.1], "one": [1.0]}


def build_pair(**options: object) -> tuple[DebertaV2Model, DebertaV2Model]:
    """Return a model with transformers' attention and one with ours, whose weights let every term of a score count."""
    set_seed(0)
    own = DebertaV2Model(DebertaV2Config(vocab_size=50, **{**SMALL, **V3, **options})).eval()
    with torch.no_grad():
        for name, weight in own.named_parameters():
            if "_proj" in name or "rel_embeddings" in name:
                weight.normal_(std=0.3 if weight.dim() == 2 else 1.0)
    fast = copy.deepcopy(own)
    use_fast_attention(fast)
    return own, fast


def inputs(length: int, shares: list[float]) -> dict[str, torch.Tensor]:
    """Return a batch whose sequences have these shares of real tokens."""
    lengths = torch.tensor([max(1, int(share * length)) for share in shares])
    ids = torch.randint(5, 50, (len(shares), length), generator=torch.Generator().manual_seed(length))
    return {"input_ids": ids, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def real_states(model: DebertaV2Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).last_hidden_state[batch["attention_mask"].bool()]


class Recorder(TorchDispatchMode):
    """Keeps every tensor that an operation gives."""

    def __init__(self, made: list[torch.Tensor]) -> None:
        super().__init__()
        self.made = made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.made.append(out)
        return out


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make several blocks of heads and of rows, the last ones not full, at the lengths of these tests."""
    monkeypatch.setattr(fast_kernels, "CACHED_BYTES", 4 * 1000)


@pytest.mark.parametrize("length", [1, 13, 50, 127])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_are_those_of_transformers(variant: str, length: int) -> None:
    """Lengths below and beyond the buckets and the positions that the table has."""
    own, fast = build_pair(**VARIANTS[variant])
    batch = inputs(length, MASKS["padding"])
    with torch.no_grad():
        expected = real_states(own, batch)
        torch.testing.assert_close(real_states(fast, batch), expected, atol=1e-5, rtol=1e-5)


def test_longer_than_all_positions() -> None:
    own, fast = build_pair()
    batch = inputs(300, MASKS["one"])
    with torch.no_grad():
        torch.testing.assert_close(real_states(fast, batch), real_states(own, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["c2p", "p2c"])
def test_each_position_term_counts_here(kind: str) -> None:
    """Without its effect on the result, the tests above would pass with a wrong term."""
    own, fast = build_pair()
    for layer in fast.encoder.layer:
        layer.attention.self.pos_att_type = [kind]
    batch = inputs(50, MASKS["one"])
    with torch.no_grad():
        assert (real_states(fast, batch) - real_states(own, batch)).abs().max() > 0.1


@pytest.mark.parametrize("length", [2, 100, 129, 511, 700, 2048])
def test_the_buckets_are_those_of_transformers(length: int) -> None:
    """With the settings of DeBERTa-v3, where rounding of a logarithm decides at the borders of a bucket."""
    options = {"position_buckets": 256, "max_position_embeddings": 512, "num_hidden_layers": 1}
    encoder = build_pair(**options)[1].encoder
    state = torch.empty(1, length, 1)
    index, used = encoder.get_rel_pos(state)
    index = index[0]
    expected = (build_relative_position(state, state, 256, 512)[0] + 256).clamp(0, 511)
    assert torch.equal(index.flip(1) + used.start, expected)
    assert used.stop == expected.max() + 1


@pytest.mark.parametrize("variant", ["v3", "own position projections", "absolute"])
def test_gradients_are_those_of_transformers(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_kernels, "LARGE_BYTES", 4 * 1000)
    own, fast = build_pair(**VARIANTS[variant])
    batch = inputs(50, MASKS["padding"])
    for model in (own, fast):
        states = real_states(model, batch)
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    for (name, weight), other in zip(own.named_parameters(), fast.parameters(), strict=True):
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        found = torch.zeros_like(other) if other.grad is None else other.grad
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4, msg=name)


def test_training_drops_attention_and_checkpoints_give_the_same_gradients() -> None:
    _, fast = build_pair(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    batch = inputs(30, MASKS["padding"])
    gradients = []
    with torch.no_grad():
        calm = real_states(fast, batch)
    for checkpoint in (False, True):
        model = copy.deepcopy(fast).train()
        if checkpoint:
            # In transformers 4 the default, reentrant, fails with a normed table, whichever attention runs.
            model.gradient_checkpointing_enable({"use_reentrant": False})
        set_seed(1)
        states = real_states(model, batch)
        assert (states - calm).abs().max() > 0.01
        states.square().sum().backward()
        gradients.append(model.encoder.rel_embeddings.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_as_near_as_that_of_transformers(dtype: torch.dtype) -> None:
    own, fast = build_pair()
    batch = inputs(50, [1.0, 0.3, 0.0])
    exact = real_states(own, batch)
    own, fast = own.to(dtype), fast.to(dtype)
    with torch.no_grad():
        assert fast(**batch).last_hidden_state.isfinite().all()
        error = (real_states(fast, batch) - exact).abs().mean()
        assert error < 1.2 * (real_states(own, batch) - exact).abs().mean()


def test_no_half_precision_score_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast = build_pair()
    attend, made = fast_deberta.attend_in_blocks, []

    def recorded(*arguments: object) -> torch.Tensor:
        with Recorder(made):
            return attend(*arguments)

    monkeypatch.setattr(fast_deberta, "attend_in_blocks", recorded)
    with torch.no_grad():
        fast.to(torch.bfloat16)(**inputs(20, MASKS["padding"]))
    assert {tensor.dtype for tensor in made if tensor.is_floating_point()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_padding_alone_is_finite(dtype: torch.dtype) -> None:
    """Were its scores minus infinity, their softmax would be NaN; they are lowest where the weights are large."""
    _, fast = build_pair()
    ids = torch.arange(5, 21)[:, None]
    with torch.no_grad():
        for layer in fast.encoder.layer:
            layer.attention.self.query_proj.weight.mul_(100)
        states = fast.to(dtype)(input_ids=ids, attention_mask=torch.zeros_like(ids)).last_hidden_state
    assert states.isfinite().all()


def test_neighbours_and_padding_change_nothing() -> None:
    _, fast = build_pair()
    batch = inputs(60, [1.0, 0.7, 0.4])
    with torch.no_grad():
        together = fast(**batch).last_hidden_state
        for row, ids, mask in zip(together, *batch.values(), strict=True):
            length = int(mask.sum())
            alone = fast(input_ids=ids[None, :length]).last_hidden_state[0]
            torch.testing.assert_close(row[:length], alone, atol=1e-5, rtol=1e-5)


def test_what_transformers_still_does() -> None:
    """Attentions that are asked for, and masks of (query, key)."""
    own, fast = build_pair()
    batch = inputs(20, MASKS["one"])
    batch["attention_mask"] = batch["attention_mask"][:, None] * torch.ones(20, 20).tril().long()
    states = own.embeddings(batch["input_ids"])
    with torch.no_grad():
        expected = own.encoder(states, batch["attention_mask"]).last_hidden_state
        found = fast.encoder(states, batch["attention_mask"]).last_hidden_state
        torch.testing.assert_close(found, expected)
        batch = inputs(20, MASKS["one"])
        own_out, fast_out = (model(**batch, output_attentions=True) for model in (own, fast))
    torch.testing.assert_close(fast_out.last_hidden_state, own_out.last_hidden_state)
    torch.testing.assert_close(fast_out.attentions, own_out.attentions)


def test_no_tensor_has_all_scores() -> None:
    """Nothing of batch x heads x length x length, and nothing of length x length."""
    _, fast = build_pair()
    made: list[torch.Tensor] = []
    with torch.no_grad(), Recorder(made):
        fast(**inputs(256, [1.0, 0.5]))
    # The widest states of the encoder itself: (2, 256, 64) in float32.
    assert max(tensor.untyped_storage().nbytes() for tensor in made) <= 4 * 2 * 256 * 64


def test_the_ranker_attends_fast_with_the_same_weights(tmp_path: Path) -> None:
    model, processor = build_ranker("deberta-v2")
    attention = [module for module in model.modules() if isinstance(module, FastSelfAttention)]
    assert len(attention) == model.config.backbone_config.num_hidden_layers
    plain = DebertaV2Model(model.config.backbone_config).eval()
    assert plain.state_dict().keys() == model.backbone.state_dict().keys()
    plain.load_state_dict(model.backbone.state_dict())
    texts = example_texts()
    batch = processor(list(texts[:2]), list(texts[2:4]), list(texts[4:6]))
    with torch.no_grad():
        fast = model(**batch).logits
        model.backbone = plain
        torch.testing.assert_close(fast, model(**batch).logits, atol=1e-5, rtol=0)


def test_another_backbone_is_left_alone() -> None:
    model, _ = build_ranker("bert")
    assert not [module for module in model.modules() if isinstance(module, FastSelfAttention)]
