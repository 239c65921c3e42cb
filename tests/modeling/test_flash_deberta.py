"""The kernel of flashdeberta: when it runs, and that it is given what it needs.

What its documentation says of it, restated in plain torch, and where the package is installed its own kernel, which
needs no GPU in Triton's interpreter: pip install flashdeberta triton; TRITON_INTERPRET=1 pytest THIS_FILE
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable

import pytest
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from blender_hf.modeling import fast_kernels

from .test_fast_deberta import MASKS, VARIANTS, build_pair, inputs, real_states

RELATIVE = [name for name in VARIANTS if not name.startswith(("absolute", "neither"))]


def stated_kernel(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    seq_lengths: torch.Tensor,
    pos_keys: torch.Tensor | None,
    pos_queries: torch.Tensor | None,
    causal: bool = False,
    sm_scale: float | None = None,
    position_buckets: int = 0,
    max_relative_distance: int = 0,
) -> torch.Tensor:
    """Exact disentangled attention with right padding, (batch, heads, length, size), as flashdeberta 0.0.8 states."""
    assert not causal
    assert seq_lengths.dtype == torch.int32
    length = queries.shape[2]
    span = position_buckets if position_buckets > 0 else max_relative_distance
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    if position_buckets > 0:
        distance = make_log_bucket_position(distance, position_buckets, max_relative_distance).long()
    slots = (distance + span).clamp(0, 2 * span - 1).expand(*queries.shape[:2], -1, -1)
    scores = queries @ keys.transpose(2, 3)
    for rows, table, places in ((queries, pos_keys, slots), (keys, pos_queries, slots.transpose(2, 3))):
        if table is not None:
            assert table.shape[0] == 1
            assert table.shape[2] == 2 * span
            term = (rows @ table.transpose(2, 3)).gather(3, places)
            scores = scores + (term if rows is queries else term.transpose(2, 3))
    padding = torch.arange(length) >= seq_lengths[:, None, None, None]
    return (scores * sm_scale).masked_fill(padding, float("-inf")).softmax(-1) @ values


@pytest.fixture(params=["as stated", "flashdeberta"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """Let the kernel run here, in float32 too: the interpreter does not round to TF32 as a GPU does."""
    found = stated_kernel
    if request.param == "flashdeberta":
        if importlib.util.find_spec("flashdeberta") is None:
            pytest.skip("flashdeberta is not installed")
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton runs on a processor if TRITON_INTERPRET=1 is set before Python starts")
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
        found = fast_kernels.flash_kernel()
    calls = []

    def counted(*arguments: object, **options: object) -> torch.Tensor:
        calls.append(arguments)
        return found(*arguments, **options)

    counted.calls = calls
    monkeypatch.setattr(fast_kernels, "flash_kernel", lambda: counted)
    monkeypatch.setattr(fast_kernels, "FLASH_DEVICE", "cpu")
    monkeypatch.setattr(fast_kernels, "FLASH_DTYPES", (torch.float32, torch.float16))
    return counted


@pytest.mark.parametrize("variant", RELATIVE)
def test_hidden_states_are_those_of_transformers(variant: str, kernel: Callable[..., torch.Tensor]) -> None:
    own, fast = build_pair(**VARIANTS[variant])
    batch = inputs(50, MASKS["padding"])
    with torch.no_grad():
        expected = real_states(own, batch)
        torch.testing.assert_close(real_states(fast, batch), expected, atol=1e-5, rtol=1e-5)
    untried = variant == "more buckets than positions"
    assert len(kernel.calls) == (0 if untried else own.config.num_hidden_layers)


def test_half_precision_is_as_near_as_that_of_transformers(kernel: Callable[..., torch.Tensor]) -> None:
    own, fast = build_pair()
    batch = inputs(50, [1.0, 0.3, 0.1])
    with torch.no_grad():
        exact = real_states(own, batch)
        own, fast = own.half(), fast.half()
        error = (real_states(fast, batch) - exact).abs().mean()
        assert error < 1.2 * (real_states(own, batch) - exact).abs().mean()
    assert kernel.calls


def test_a_row_of_padding_alone_leaves_its_neighbours_alone(kernel: Callable[..., torch.Tensor]) -> None:
    own, fast = build_pair()
    batch = inputs(20, MASKS["one"])
    ids = batch["input_ids"].repeat(2, 1)
    mask = torch.stack([torch.ones(20), torch.zeros(20)]).long()
    with torch.no_grad():
        found = fast(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        torch.testing.assert_close(found, own(**batch).last_hidden_state[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["padding on the left", "gradients", "no positions", "another precision"])
def test_what_the_kernel_is_not_for_runs_without_it(
    case: str, monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., torch.Tensor]
) -> None:
    own, fast = build_pair(**(VARIANTS["absolute"] if case == "no positions" else {}))
    batch = inputs(30, MASKS["padding"])
    if case == "padding on the left":
        batch = {name: tensor.flip(1) for name, tensor in batch.items()}
    if case == "another precision":
        monkeypatch.setattr(fast_kernels, "FLASH_DTYPES", (torch.float16,))
    with contextlib.nullcontext() if case == "gradients" else torch.no_grad():
        torch.testing.assert_close(real_states(fast, batch), real_states(own, batch), atol=1e-5, rtol=1e-5)
    assert not kernel.calls


def test_on_a_processor_the_package_is_not_even_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_for() -> None:
        raise AssertionError

    monkeypatch.setattr(fast_kernels, "flash_kernel", looked_for)
    assert fast_kernels.flash_lengths(torch.ones(2, 3)) is None


def test_a_package_that_cannot_be_loaded_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU there may be no Triton, and another release may have its kernel elsewhere."""
    fast_kernels.flash_kernel.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "flashdeberta.ops.flash_attention", None)
    assert fast_kernels.flash_kernel() is None
    fast_kernels.flash_kernel.cache_clear()
