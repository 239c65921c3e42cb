"""Products by oneDNN against PyTorch's own, and where they must not be used."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import set_seed

from blender_hf.modeling import GenFuser, PairRanker, fast_kernels
from blender_hf.modeling.fast_kernels import (
    FastLinear,
    heads_product,
    multiplies_heads,
    use_fast_products,
    use_plain_products,
)
from tests.conftest import build_fuser, build_ranker
from tests.modeling.test_fast_deberta import MASKS, VARIANTS, build_pair, inputs, real_states

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this PyTorch has no oneDNN",
)
OPERATOR = "mkldnn::_linear_pointwise"


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use it on every processor, whether it gains there or not, and for products of any size."""
    monkeypatch.setattr(fast_kernels, "gains", lambda dtype: dtype in (torch.float32, torch.bfloat16))
    monkeypatch.setattr(fast_kernels, "MIN_PRODUCT", 1)


def calls(act: Callable[[], object]) -> int:
    """Count the calls of the operator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        act()
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(OPERATOR))


def fast_layer(inputs: int = 24, outputs: int = 40, bias: bool = True) -> FastLinear:
    set_seed(0)
    layer = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
    use_fast_products(layer)
    return layer[0]


@pytest.mark.parametrize("shape", [(8,), (30,), (3, 5), (2, 3, 4), (2, 1), (0,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_give_what_pytorch_gives(shape: tuple[int, ...], bias: bool) -> None:
    layer = fast_layer(bias=bias)
    states = torch.randn(*shape, 24)
    with torch.no_grad():
        expected = functional.linear(states, layer.weight, layer.bias)
        torch.testing.assert_close(layer(states), expected, atol=1e-5, rtol=1e-5)
        assert calls(lambda: layer(states)) == (states[..., 0].numel() >= 8)


def test_states_with_gaps() -> None:
    """Every second token, and places of an inner dimension: nothing that a batch must have been copied for."""
    layer, states = fast_layer(), torch.randn(4, 20, 24)
    with torch.no_grad():
        for given in (states[:, ::2], states.transpose(0, 1)):
            torch.testing.assert_close(layer(given), layer(given.contiguous()), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 in oneDNN here")
def test_bfloat16_is_as_near_to_the_truth_as_pytorch() -> None:
    layer, states = fast_layer().to(torch.bfloat16), torch.randn(512, 24, dtype=torch.bfloat16)
    with torch.no_grad():
        truth = functional.linear(states.double(), layer.weight.double(), layer.bias.double())
        errors = [(out.double() - truth).abs().max() for out in (layer(states), nn.Linear.forward(layer, states))]
        assert calls(lambda: layer(states)) == 1
        assert calls(lambda: layer(states[1:])) == 0
    assert errors[0] <= errors[1] * 1.01


def test_float32_is_not_rounded() -> None:
    """oneDNN multiplies float32 in fewer bits if it is told so: in TF32, this error would be near 1e-3."""
    layer, states = fast_layer(1536, 64), torch.randn(64, 1536)
    with torch.no_grad():
        truth = functional.linear(states.double(), layer.weight.double(), layer.bias.double())
        assert (layer(states).double() - truth).abs().max() < 1e-5


def test_gradients_are_those_of_pytorch() -> None:
    """The operator has none: it would cut the graph in silence."""
    layer, states = fast_layer(), torch.randn(16, 24, requires_grad=True)
    assert calls(lambda: layer(states).sum().backward()) == 0
    assert layer.weight.grad is not None
    assert states.grad is not None


def test_autocast_is_obeyed() -> None:
    layer, states = fast_layer(), torch.randn(16, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16


def test_the_public_switch_of_onednn_is_obeyed() -> None:
    layer, states = fast_layer(), torch.randn(16, 24)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert calls(lambda: layer(states)) == 0


@pytest.mark.parametrize("trace", ["torch.jit.trace", "torch.export"])
def test_graphs_have_the_ordinary_operator(trace: str) -> None:
    layer, states = fast_layer(), torch.randn(16, 24)
    with torch.no_grad():
        if trace == "torch.export":
            graph = str(torch.export.export(layer, (states,)).graph)
        else:
            graph = str(torch.jit.trace(layer, states).inlined_graph)
    assert "linear" in graph
    assert "mkldnn" not in graph


def test_weights_with_gaps_are_left_to_pytorch() -> None:
    """With them the operator takes a thousand times as long; it copies states by itself."""
    layer, states = fast_layer(), torch.randn(16, 24)
    layer.weight = nn.Parameter(torch.randn(40, 48)[:, ::2])
    with torch.no_grad():
        assert calls(lambda: layer(states)) == 0
        gaps = torch.randn(2, 30, 48)[..., ::2]
        expected = states[None].expand(2, -1, -1) @ gaps.transpose(1, 2)
        torch.testing.assert_close(heads_product(states[None].expand(2, -1, -1), gaps), expected, atol=1e-5, rtol=1e-5)


class Marked(torch.Tensor):
    """A subclass, as tensors are that quantise or shard."""


def test_only_plain_tensors_are_given_to_the_operator() -> None:
    layer = fast_layer()
    with torch.no_grad():
        assert calls(lambda: layer(torch.randn(16, 24).as_subclass(Marked))) == 0
        layer.weight = nn.Parameter(layer.weight.as_subclass(Marked))
        assert calls(lambda: layer(torch.randn(16, 24))) == 0


def test_only_linear_layers_proper_are_changed() -> None:
    class Other(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 2), Other(2, 2), nn.LayerNorm(2))
    weights = {name: id(weight) for name, weight in model.named_parameters()}
    use_fast_products(model)
    assert [type(layer) for layer in model] == [FastLinear, Other, nn.LayerNorm]
    assert weights == {name: id(weight) for name, weight in model.named_parameters()}


def test_layers_can_be_copied_and_pickled() -> None:
    layer, states = fast_layer(), torch.randn(16, 24)
    with torch.no_grad():
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert type(other) is FastLinear
            assert torch.equal(other(states), layer(states))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("size", [1, 8, 64])
def test_products_of_heads(heads: int, size: int) -> None:
    left, right = torch.randn(heads, 20, size), torch.randn(heads, 30, size)
    added = torch.randn(heads, 30, 20).transpose(1, 2)
    with torch.no_grad():
        expected = left @ right.transpose(1, 2)
        torch.testing.assert_close(heads_product(left, right), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(heads_product(left, right, added), expected + added, atol=1e-5, rtol=1e-5)
        for part in (added[:, :, :1], added[:, :1]):
            torch.testing.assert_close(heads_product(left, right, part), expected + part, atol=1e-5, rtol=1e-5)
        turned = right.transpose(1, 2).contiguous().transpose(1, 2)
        torch.testing.assert_close(heads_product(left, turned), expected, atol=1e-5, rtol=1e-5)


def test_what_is_added_is_written_out() -> None:
    """The operator takes something that it has to expand, and then takes fifty times as long."""
    left, right = torch.randn(2, 20, 8), torch.randn(2, 30, 8)
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profiler:
        heads_product(left, right, torch.randn(2, 20, 1))
    found = [event.input_shapes[1] for event in profiler.events() if event.name.startswith(OPERATOR)]
    assert found == [[20, 30]] * 2


def test_heads_are_multiplied_one_by_one_in_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = torch.randn(2, 20, 8), torch.randn(2, 30, 8)
    assert not multiplies_heads(left, right)  # a gradient may be wanted
    with torch.no_grad():
        assert multiplies_heads(left, right)
        assert not multiplies_heads(left.bfloat16(), right.bfloat16())
        monkeypatch.setattr(fast_kernels, "MIN_PRODUCT", 20 * 30 * 8 + 1)
        assert not multiplies_heads(left, right)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_deberta_says_what_transformers_says(variant: str, mask: str) -> None:
    own, fast = build_pair(**VARIANTS[variant])
    use_fast_products(fast)
    batch = inputs(100, MASKS[mask])
    with torch.no_grad():
        torch.testing.assert_close(real_states(fast, batch), real_states(own, batch), atol=1e-5, rtol=1e-5)
        assert calls(lambda: fast(**batch)) > 6 * len(fast.encoder.layer)  # the attention too


@pytest.mark.parametrize("kind", [PairRanker, GenFuser])
def test_both_models_use_it_and_save_the_same_names(kind: type, tmp_path: Path) -> None:
    model = (build_ranker() if kind is PairRanker else build_fuser())[0]
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linear} == {FastLinear}
    model.save_pretrained(tmp_path)
    again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(type(module) is FastLinear for module in again.modules() if isinstance(module, nn.Linear))


def test_layers_can_be_given_back_their_class() -> None:
    """PyTorch's quantisation looks for the exact class, and would leave all of them as they are."""
    model, _ = build_ranker()
    fast = [name for name, module in model.named_modules() if type(module) is FastLinear]
    use_plain_products(model)
    assert [name for name, module in model.named_modules() if type(module) is nn.Linear] == fast != []
