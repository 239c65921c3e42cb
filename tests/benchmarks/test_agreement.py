"""The agreement of two ways to read the same candidates."""

import pytest

from benchmarks.agreement import agreement
from blender_hf import Blender
from tests.conftest import build_ranker, build_separate_ranker
from tests.stacks.families import config_of

pytestmark = pytest.mark.once

TEXTS = ["a", "b c", "d", "Hello there, it is me."]


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse() -> None:
    model, processor = build_ranker()
    ranking = Blender(model, processor).rank("p", TEXTS)
    assert agreement(ranking, ranking) == {"same best": 1.0, "Kendall tau": 1.0, "same winner of a pair": 1.0}
    separate, reader = build_separate_ranker(config_of("bert", len(processor.tokenizer)), preference_dim=0)
    one = Blender(separate, reader).rank("p", TEXTS)
    for weight in (separate.head.out_proj.weight, separate.head.out_proj.bias):
        weight.data.neg_()
    other = Blender(separate, reader).rank("p", TEXTS)
    assert agreement(one, other)["Kendall tau"] == pytest.approx(-1.0)
    assert agreement(one, other)["same winner of a pair"] == 0.0
