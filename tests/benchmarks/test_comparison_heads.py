"""The heads of benchmarks/comparison_heads.py: antisymmetric, blind to padding, and able to learn what they are for."""

import pytest
import torch

from benchmarks.comparison_heads import HEADS, ComparisonHead, Dev, Encoder, States, Targets, cyclic_share, trained
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.inputs import make_item
from tests.conftest import build_ranker, example_texts

pytestmark = pytest.mark.once


def some_states(n_prompts: int = 4, n_candidates: int = 3) -> States:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, n_prompts, n_candidates, 8, generator=generator)
    return States(drawn[0], drawn[1], torch.ones(n_prompts, n_candidates, dtype=torch.bool))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_antisymmetric_and_blind_to_padding(name: str) -> None:
    torch.manual_seed(0)
    head, states = ComparisonHead(HEADS[name], 8).eval(), some_states()
    with torch.inference_mode():
        logits = head(states)
        assert logits.abs().max() > 0.01
        assert torch.equal(logits, -logits.transpose(1, 2))
        padded = [torch.nn.functional.pad(part, (0, 0, 0, 2), value=9.0) for part in (states.source, states.candidate)]
        wider = head(States(*padded, torch.nn.functional.pad(states.present, (0, 2))))
        assert torch.allclose(wider[:, :3, :3], logits, atol=1e-5)


@pytest.mark.parametrize(("name", "share"), [("score", 0.0), ("skew form alone, 8", 1.0)])
def test_only_a_skew_form_learns_a_circle(name: str, share: float) -> None:
    states = some_states(n_prompts=1)
    states = States(*(part.repeat(40, 1, 1) for part in (states.source, states.candidate)), torch.ones(40, 3).bool())
    circle = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]).repeat(40, 1, 1)
    head = trained(HEADS[name], states, Targets(circle, (circle != 0.5).float()), seed=0)
    with torch.inference_mode():
        assert cyclic_share(head(states), states.present) == share


@pytest.mark.parametrize("shared", [False, True])
def test_a_prompt_that_is_shared_does_not_see_its_candidates(shared: bool) -> None:
    prompt, *candidates = (text[:40] for text in example_texts()[:3])
    ranker, processor = build_ranker(pooling="mean")
    labelled = LabelledPrompt("p", make_item(prompt, candidates), (JudgedPair(1, 0, 1.0),), source="x")
    states = Encoder(processor, ranker, shared).read([labelled])
    assert torch.allclose(states.source[0, 0], states.source[0, 1], atol=1e-5) == shared
    assert not torch.allclose(states.candidate[0, 0], states.candidate[0, 1], atol=1e-2)
    logits = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    assert Dev([labelled], 10, 0).accuracies(logits)[0] == 1.0
    assert Dev([labelled], 10, 0).accuracies(-logits)[0] == 0.0
