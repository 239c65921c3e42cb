"""The arithmetic of benchmarks/distinct_tokens.py, and that it takes apart what the ranker puts together."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.distinct_tokens import Group, group_of, table_of
from blender_hf import Blender
from blender_hf.data.preferences import PreferencePair
from tests.conftest import build_ranker, example_texts

pytestmark = pytest.mark.once

PAIRS = [
    PreferencePair.of("p", "one two three", "one", 1.0, "x"),
    PreferencePair.of("p", "one two three", "one", 0.0, "x"),
    PreferencePair.of("p", "one", "one two", 0.0, "y"),
]


def test_a_weight_turns_what_it_can_turn() -> None:
    group = Group(PAIRS, logits=[-1.0, -1.0, 0.5], leads=[0.5, 0.5, -0.2])
    assert [group.accuracy(weight) for weight in (0.0, 2.5, 4.0)] == [1 / 3, 1 / 2, 2 / 3]
    assert group.without_length(4.0) == (1 + 0) / 2
    options = Namespace(
        weights=[0.0, 4.0], columns=["x"], data=[Path("dev.jsonl.gz")], max_pairs_per_source=3, negatives=1, seed=0
    )
    text = table_of([{"x": group, "y": group}, {"z": group}], {"loop": group}, options).markdown()
    assert "| 4 | 0.667 | 0.500 | 0.667 | 0.667 | 0.667 |" in text


def test_the_term_is_taken_out_of_the_logits() -> None:
    texts = example_texts()
    pairs = [PreferencePair.of(texts[0][:60], texts[1][:90], texts[2][:30], 1.0, "x")]
    plain = group_of(pairs, Blender(*build_ranker()))
    weighted = group_of(pairs, Blender(*build_ranker(distinct_token_weight=3.0)))
    assert weighted.leads == plain.leads != [0.0]
    assert weighted.logits == pytest.approx(plain.logits, abs=1e-5)
