"""What an editor knows of the public methods: `make lint` checks it with mypy, and nothing runs it."""

from collections.abc import Sequence
from typing import Any, assert_type

from blender_hf import Blend, Blender, Comparison, Fusion, Item, Ranking, Truncation, make_item

CHAT = [{"role": "user", "content": "2 + 2?"}]


def one_prompt_has_one_result(blender: Blender) -> None:
    assert_type(blender.rank("q", ["a", "b"]), Ranking)
    assert_type(blender.rank(CHAT, ["a", {"text": "b", "model": "m"}], schedule="knockout", progress=True), Ranking)
    assert_type(blender.best_of_n("q", ["a", "b"]), str)
    assert_type(blender.worst_of_n("q", ("a", "b"), orders="one"), str)
    assert_type(blender.reward("q", ["a", "b"], rule="first"), list[float])
    assert_type(blender.group_reward("q", ["a", "b"], scale="probability"), list[float])
    assert_type(blender.compare("q", "a", "b", tie_threshold=0.1), Comparison)
    assert_type(blender.compare("q", {"role": "assistant", "content": "a"}, CHAT), Comparison)
    assert_type(blender.fuse("q", ["a", "b"], generation={"num_beams": 2}), Fusion)
    assert_type(blender.blend("q", ["a", "b"], top_k=2), Blend)


def many_prompts_have_a_list(blender: Blender, names: Sequence[str], items: list[Item]) -> None:
    assert_type(blender.rank(["q"], [["a", "b"]]), list[Ranking])
    assert_type(blender.rank([CHAT, "q"], [["a", "b"], ["a"]], instructions=["Reply.", None]), list[Ranking])
    assert_type(blender.best_of_n(["q"], [["a", "b"]]), list[str])
    assert_type(blender.worst_of_n(("q",), [("a", "b")]), list[str])
    assert_type(blender.reward(["q"], [["a", "b"]], reference=["c"]), list[list[float]])
    assert_type(blender.group_reward(["q"], [["a", "b"]]), list[list[float]])
    assert_type(blender.compare(["q"], ["a"], ["b"]), list[Comparison])
    assert_type(blender.fuse(["q"], [["a", "b"]]), list[Fusion])
    assert_type(blender.blend(["q"], [["a", "b"]], fallback=False), list[Blend])
    assert_type([ranking.best for ranking in blender.iter_rank(items)], list[str])


async def awaited_methods_have_the_same(blender: Blender) -> None:
    assert_type(await blender.arank("q", ["a", "b"]), Ranking)
    assert_type(await blender.arank(["q"], [["a", "b"]], top_k=1), list[Ranking])
    assert_type(await blender.abest_of_n(CHAT, ["a", "b"]), str)
    assert_type(await blender.aworst_of_n(["q"], [["a", "b"]]), list[str])
    assert_type(await blender.areward("q", ["a", "b"], reference="c"), list[float])
    assert_type(await blender.agroup_reward(["q"], [["a", "b"]]), list[list[float]])
    assert_type(await blender.acompare("q", "a", "b"), Comparison)
    assert_type(await blender.acompare(["q"], ["a"], ["b"]), list[Comparison])
    assert_type(await blender.afuse("q", ["a", "b"]), Fusion)
    assert_type(await blender.ablend(["q"], [["a", "b"]]), list[Blend])


def results_have_types(ranking: Ranking, comparison: Comparison) -> None:
    assert_type(ranking.logits, tuple[tuple[float, ...], ...])
    assert_type(ranking.inferred, tuple[tuple[float, ...], ...])
    assert_type(ranking.probability(0, 1), float)
    assert_type(ranking.flipped(0, 1), bool | None)
    assert_type(ranking.truncated, Truncation)
    assert_type(ranking.to_dict(), dict[str, Any])
    assert_type(comparison.probability, float)
    assert_type(make_item("q", ["a"]), Item)
