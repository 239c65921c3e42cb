"""Writes one answer from several candidates, and keeps it if the ranker prefers it to the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from blender_hf.errors import GenerationError, InputError, InputTypeError
from blender_hf.inputs import Candidate, Item
from blender_hf.modeling import CausalGenFuser, FusionEncoding, FusionProcessor, GenFuser
from blender_hf.modeling.fusion_generation import ONE_TEXT, one_text_options
from blender_hf.modeling.ranking_math import best_distinct, keeps_fusion
from blender_hf.modeling.tokenization import n_positions

from .concurrency import lock_of, lock_to_run
from .model_state import check_vocabulary, evaluating, make_ready
from .rankers import Ranker
from .results import Blend, Comparison, Fusion, Ranking, Truncation, Unread
from .unread import UnreadWarning

BATCH_SIZE = 8


@runtime_checkable
class ItemFuser(Protocol):
    """Writes one answer from several: a `Fuser`, or a `ChatFuser`."""

    @property
    def max_candidates(self) -> int:
        """How many candidates one fusion can read."""
        ...

    def fuse(self, items: Sequence[Item], generation: Mapping[str, Any] | None = None) -> list[Fusion]:
        """Write one answer for each item from all of its candidates, which stand the best first."""
        ...

    def attempt(
        self, items: Sequence[Item], generation: Mapping[str, Any] | None = None
    ) -> Sequence[Fusion | GenerationError]:
        """Do as `fuse`, but return the error of an item for which no answer was written in its place."""
        ...


def as_fuser(fuser: Any, processor: FusionProcessor | None) -> ItemFuser | None:
    """Return the fuser of a model with its processor, or an object that is one already; None for None."""
    if isinstance(fuser, ItemFuser) and processor is None:
        return fuser
    if (fuser is None) != (processor is None):
        raise InputError("give the fuser together with its processor, or neither")
    return None if fuser is None or processor is None else Fuser(fuser, processor)


class Fuser:
    """A fuser with its processor.

    Args:
        model: The fuser, on its device; it is put into evaluation mode, and runs in it even while it is trained.
        processor: Its processor.
    """

    def __init__(self, model: GenFuser | CausalGenFuser, processor: FusionProcessor) -> None:
        make_ready(model)
        check_vocabulary(model, processor.tokenizer)
        self.model = model
        self.processor = processor
        self._warning = UnreadWarning("fuser")

    @property
    def max_candidates(self) -> int:
        """How many candidates one fusion can read."""
        return self.processor.max_candidates

    def fuse(self, items: Sequence[Item], generation: Mapping[str, Any] | None = None) -> list[Fusion]:
        """Write one answer for each item from all of its candidates, ordered best first."""
        generation = _checked(generation)
        limit = self._max_source_length(generation)
        encodings = [self._encode(item, limit) for item in items]
        unread = [Unread(encoding.unknown_prompt, encoding.unknown_candidates) for encoding in encodings]
        for item, found in zip(items, unread, strict=True):
            self._warning.check(item.where, found)
        by_length = sorted(range(len(items)), key=lambda index: len(encodings[index].input_ids))
        written: dict[int, tuple[str, bool]] = {}
        for start in range(0, len(items), BATCH_SIZE):
            batch = by_length[start : start + BATCH_SIZE]
            written |= zip(batch, self._generate([encodings[i] for i in batch], generation), strict=True)
        return [
            Fusion(
                written[index][0],
                tuple(range(len(encoding.truncated_candidates))),
                Truncation(encoding.truncated_prompt, encoding.truncated_candidates),
                unread[index],
                unfinished=written[index][1],
            )
            for index, encoding in enumerate(encodings)
        ]

    def attempt(self, items: Sequence[Item], generation: Mapping[str, Any] | None = None) -> list[Fusion]:
        """Do as `fuse`: an error of this fuser concerns all items."""
        return self.fuse(items, generation)

    def _max_source_length(self, generation: Mapping[str, Any]) -> int | None:
        """Return how many tokens an input may have, where the positions of a model are for its answer too."""
        config = self.model.config
        positions = None if config.is_encoder_decoder else n_positions(config)
        new = self.model.max_new_tokens(generation)
        if positions is None or new is None:
            return None
        if new >= positions:
            raise InputError(
                f"max_new_tokens={new} leaves nothing of the {positions} tokens that this fuser reads and writes "
                "together; lower it"
            )
        return min(self.processor.max_source_length, positions - new)

    def _encode(self, item: Item, limit: int | None = None) -> FusionEncoding:
        try:
            with lock_of(self.processor.tokenizer):
                return self.processor.encode(item.prompt, item.texts, item.instruction, max_source_length=limit)
        except ValueError as error:
            raise InputError(f"{item.where}: {error}") from None

    @torch.inference_mode()
    def _generate(self, encodings: Sequence[FusionEncoding], generation: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """Return for each input its answer, and whether that ends because no more tokens were allowed."""
        inputs = self.processor.pad([encoding.input_ids for encoding in encodings]).to(self.model.device)
        segments = [encoding.segments for encoding in encodings] if self.model.config.extractive else None
        try:
            with lock_to_run(self.model), evaluating(self.model):
                written = self.model.generate(**inputs, segments=segments, **{**generation, **ONE_TEXT})
        except (ValueError, TypeError) as error:
            raise InputError(f"the fuser can't generate with {dict(generation)}: {error}") from error
        rows = self.processor.new_tokens(inputs, written)
        ends, most = set(self.model.end_ids(generation)), self.model.max_new_tokens(generation)
        with lock_of(self.processor.tokenizer):
            texts = [self.processor.decode_text(ids) for ids in rows]
        unfinished = [most is not None and len(ids) >= most and ends.isdisjoint(ids) for ids in rows]
        return list(zip(texts, unfinished, strict=True))


def blend_items(
    items: Sequence[Item],
    rankings: Sequence[Ranking],
    ranker: Ranker,
    fuser: ItemFuser,
    *,
    top_k: int,
    fallback: bool,
    generation: Mapping[str, Any] | None,
) -> list[Blend]:
    """Fuse the `top_k` best different candidates of every item, and keep the better of fusion and best candidate.

    With `fallback`, the best candidate is returned where the ranker does not prefer the fused text to it.
    """
    chosen = [best_distinct(ranking.candidates, ranking.order, top_k) for ranking in rankings]
    fusible = [index for index, indices in enumerate(chosen) if len(indices) > 1]
    fuse = fuser.attempt if fallback else fuser.fuse
    fused = fuse([subset(items[index], chosen[index]) for index in fusible], generation)
    written = dict(zip(fusible, fused, strict=True))
    fusions = {
        index: replace(fusion, fused_from=tuple(chosen[index]))
        for index, fusion in written.items()
        if isinstance(fusion, Fusion)
    }
    errors = {index: str(error) for index, error in written.items() if isinstance(error, GenerationError)}
    compared = ranker.compare([duel(items[index], fusion, rankings[index]) for index, fusion in fusions.items()])
    comparisons = dict(zip(fusions, compared, strict=True))
    return [
        _blend(ranking, fusions.get(index), comparisons.get(index), fallback, errors.get(index))
        for index, ranking in enumerate(rankings)
    ]


def duel(item: Item, fusion: Fusion, ranking: Ranking) -> Item:
    """Return an item in which the fused text (a) meets the best candidate (b)."""
    return replace(item, candidates=(Candidate(fusion.text), Candidate(ranking.best)))


def subset(item: Item, indices: Sequence[int]) -> Item:
    """Return an item with these of its candidates, in this order."""
    return replace(item, candidates=tuple(item.candidates[i] for i in indices))


def _blend(
    ranking: Ranking, fusion: Fusion | None, comparison: Comparison | None, fallback: bool, error: str | None
) -> Blend:
    if fusion is None or comparison is None:
        return Blend(ranking.best, "best", ranking, None, None, error)
    if fallback and not keeps_fusion(fusion.text, comparison.preferred):
        return Blend(ranking.best, "best", ranking, fusion, comparison)
    return Blend(fusion.text, "fused", ranking, fusion, comparison)


def _checked(generation: Mapping[str, Any] | None) -> Mapping[str, Any]:
    try:
        return one_text_options(generation)
    except TypeError as error:
        raise InputTypeError(str(error)) from None
    except ValueError as error:
        raise InputError(str(error)) from None
