"""From rankings to one answer: the best candidates are fused, and the fusion is judged against the best one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blender_hf.inputs import Candidate, Item
from blender_hf.modeling.ranking_math import best_distinct, keeps_fusion

from .fusion import ItemFuser
from .rankers import Ranker
from .results import Blend, Comparison, Fusion, Ranking


def blend_items(
    items: Sequence[Item],
    rankings: Sequence[Ranking],
    ranker: Ranker,
    fuser: ItemFuser,
    top_k: int,
    fallback: bool,
    generation: Mapping[str, Any] | None,
) -> list[Blend]:
    """Fuse the best candidates of every item, and keep the better of fusion and best candidate.

    Args:
        items: The prompts with their candidates.
        rankings: Their rankings.
        ranker: Compares a fused text with the best candidate.
        fuser: Writes the fused texts.
        top_k: How many of the best different candidates are fused.
        fallback: Return the best candidate where the ranker does not prefer the fused text to it.
        generation: Options of `generate` over those of the checkpoint.

    Returns:
        One blend an item.
    """
    fusions = _fuse_best(items, rankings, fuser.attempt if fallback else fuser.fuse, top_k, generation)
    duels = [
        replace(item, candidates=(Candidate(fusion.text), Candidate(ranking.best)))
        for item, ranking, fusion in zip(items, rankings, fusions, strict=True)
        if fusion is not None
    ]
    comparisons = iter(ranker.compare(duels))
    return [
        _blend(ranking, fusion, None if fusion is None else next(comparisons), fallback)
        for ranking, fusion in zip(rankings, fusions, strict=True)
    ]


def _fuse_best(
    items: Sequence[Item],
    rankings: Sequence[Ranking],
    fuse: Callable[..., Sequence[Fusion | None]],
    top_k: int,
    generation: Mapping[str, Any] | None,
) -> list[Fusion | None]:
    """Return a fusion for each item, None where there are not two different candidates, or the attempt failed."""
    chosen = [best_distinct(ranking.candidates, ranking.order, top_k) for ranking in rankings]
    fusible = [index for index, indices in enumerate(chosen) if len(indices) > 1]
    inputs = [subset(items[index], chosen[index]) for index in fusible]
    fused: list[Fusion | None] = [None] * len(items)
    for index, fusion in zip(fusible, fuse(inputs, generation), strict=True):
        fused[index] = fusion and Fusion(fusion.text, tuple(chosen[index]), fusion.truncated)
    return fused


def _blend(ranking: Ranking, fusion: Fusion | None, comparison: Comparison | None, fallback: bool) -> Blend:
    if fusion is None or comparison is None:
        return Blend(ranking.best, "best", ranking, None, None)
    if fallback and not keeps_fusion(fusion.text, comparison.preferred):
        return Blend(ranking.best, "best", ranking, fusion, comparison)
    return Blend(fusion.text, "fused", ranking, fusion, comparison)


def subset(item: Item, indices: Sequence[int]) -> Item:
    """Return an item with these of its candidates alone, in this order."""
    return replace(item, candidates=tuple(item.candidates[i] for i in indices))
