"""Blender: rank the candidates of a prompt, compare two of them, fuse the best."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from .aggregation import get_aggregation
from .checkpoints import DEFAULT_FUSER, DEFAULT_RANKER, HubOptions, load_fuser, load_ranker
from .errors import BlenderError, InputError
from .fusion import Fuser
from .inputs import Candidate, Item, is_single_prompt, make_items
from .modeling import GenFuser, GenFuserProcessor, PairRanker, PairRankerProcessor
from .ranking import compare_items, rank_items
from .results import Blend, Comparison, Fusion, Ranking
from .scorer import PairScorer

Result = TypeVar("Result")

# How many prompts are worked on together: enough to fill batches, few enough that results arrive as they are made.
DEFAULT_WINDOW = 16


class Blender:
    """Ranks, compares and fuses the answers of several language models (Jiang, Ren, Lin, ACL 2023).

    Every method takes one prompt and gives one result, or lists and gives a list. A prompt is a text or chat messages;
    a candidate is a text or `{"text", "model"}`. No result depends on what else is in the same call.

    Args:
        ranker: The ranker, in evaluation mode.
        ranker_processor: Its processor.
        fuser: The fuser, or None to rank only.
        fuser_processor: Its processor.
        max_batch_tokens: Most tokens of a batch of the ranker, padding included; None chooses by the device.
    """

    def __init__(
        self,
        ranker: PairRanker,
        ranker_processor: PairRankerProcessor,
        fuser: GenFuser | None = None,
        fuser_processor: GenFuserProcessor | None = None,
        *,
        max_batch_tokens: int | None = None,
    ) -> None:
        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens={max_batch_tokens}; use a positive number of tokens, or None")
        if (fuser is None) != (fuser_processor is None):
            raise InputError("give the fuser together with its processor, or neither")
        self.scorer = PairScorer(ranker, ranker_processor, max_batch_tokens=max_batch_tokens)
        self._fuser = None if fuser is None or fuser_processor is None else Fuser(fuser, fuser_processor)

    @classmethod
    def from_pretrained(
        cls,
        ranker: str | Path = DEFAULT_RANKER,
        fuser: str | Path | None = DEFAULT_FUSER,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        fuser_revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        max_batch_tokens: int | None = None,
    ) -> "Blender":
        """Load a ranker and a fuser.

        Args:
            ranker: "pair-ranker-mini" (bundled), a folder or a Hub id.
            fuser: "gen-fuser-mini" (bundled), a folder or a Hub id, T5 repositories such as `llm-blender/gen_fuser_3b`
                among them; None to rank only.
            device: Where both run; None takes a GPU where there is one.
            dtype: The precision of both; None is float32.
            revision: Branch, tag or commit of the ranker.
            fuser_revision: Branch, tag or commit of the fuser.
            token: Token for private repositories.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the Hub.
            trust_remote_code: Whether code from a repository may run; our own models never need it.
            max_batch_tokens: Most tokens of a batch of the ranker, padding included; None chooses by the device.

        Returns:
            The blender.

        Raises:
            CheckpointError: If a checkpoint can't be found or is not whole.
            InputError: If the device or the precision does not exist here.
        """
        hub = HubOptions(revision, token, cache_dir, local_files_only, trust_remote_code)
        loaded: tuple[Any, ...] = load_ranker(ranker, hub, device, dtype)
        if fuser is not None:
            loaded += load_fuser(fuser, replace(hub, revision=fuser_revision), device, dtype)
        return cls(*loaded, max_batch_tokens=max_batch_tokens)

    def rank(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        aggregation: str = "max_logits",
        progress: bool = False,
    ) -> Any:
        """Rank the candidates of each prompt.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt; lists may differ in length.
            instructions: What is to be done with the prompt, if that is stated apart.
            aggregation: How comparisons become scores: one of `blender_hf.aggregation.AGGREGATIONS`.
            progress: Whether to show a progress bar on stderr.

        Returns:
            A `Ranking`, or a list of them; an empty list for no prompts.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates, lists differ in length, or an option does not exist.
            ModelOutputError: If the ranker gives NaN.
        """
        items, single = make_items(prompts, candidates, instructions)
        results = self.iter_rank(_with_progress(items, progress), aggregation=aggregation)
        return _unwrap(results, single)

    def compare(
        self,
        prompts: Any,
        candidates_a: Any,
        candidates_b: Any,
        *,
        instructions: Any = None,
        tie_threshold: float = 0.0,
    ) -> Any:
        """Compare two candidates of each prompt, in both orders of presentation.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates_a: A candidate, or one for each prompt.
            candidates_b: The other candidate, or one for each prompt.
            instructions: What is to be done with the prompt, if that is stated apart.
            tie_threshold: How far, 0 to 0.5, the probability may be from 0.5 and still be a tie.

        Returns:
            A `Comparison`, or a list of them.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If lists differ in length or the threshold is out of range.
            ModelOutputError: If the ranker gives NaN.
        """
        if not 0 <= tie_threshold <= 0.5:
            raise InputError(f"tie_threshold={tie_threshold}; it is a distance from probability 0.5, from 0 to 0.5")
        items, single = make_items(prompts, _pairs(prompts, candidates_a, candidates_b), instructions)
        results = _windowed(items, lambda window: compare_items(window, self.scorer, tie_threshold))
        return _unwrap(results, single)

    def fuse(
        self, prompts: Any, candidates: Any, *, instructions: Any = None, generation: Mapping[str, Any] | None = None
    ) -> Any:
        """Write one answer from the candidates of each prompt.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, the best first, or a list of them for each prompt. All are used.
            instructions: What is to be done with the prompt, if that is stated apart.
            generation: Options of `generate`, such as `{"num_beams": 4, "max_new_tokens": 128}`, over the checkpoint's.

        Returns:
            A `Fusion`, or a list of them.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates or more than the fuser can take, or lists differ in length.
            BlenderError: If this blender has no fuser.
        """
        items, single = make_items(prompts, candidates, instructions)
        return _unwrap(self.iter_fuse(items, generation=generation), single)

    def blend(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        top_k: int = 3,
        fallback: bool = True,
        aggregation: str = "max_logits",
        generation: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Any:
        """Rank the candidates of each prompt, fuse the best of them, and keep the better of fusion and best candidate.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt.
            instructions: What is to be done with the prompt, if that is stated apart.
            top_k: How many of the best different candidates are fused.
            fallback: Return the best candidate where the ranker does not prefer the fused text to it. False returns
                every fused text.
            aggregation: How comparisons become scores.
            generation: Options of `generate` over the checkpoint's.
            progress: Whether to show a progress bar on stderr.

        Returns:
            A `Blend`, or a list of them; its `returned` says which of the two `output` is.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates, lists differ in length, or an option does not exist.
            BlenderError: If this blender has no fuser.
        """
        items, single = make_items(prompts, candidates, instructions)
        results = self.iter_blend(
            _with_progress(items, progress),
            top_k=top_k,
            fallback=fallback,
            aggregation=aggregation,
            generation=generation,
        )
        return _unwrap(results, single)

    def iter_rank(
        self, items: Iterable[Item], *, aggregation: str = "max_logits", window: int = DEFAULT_WINDOW
    ) -> Iterator[Ranking]:
        """Rank items from any iterable, lazily and in order, with constant memory.

        Args:
            items: The items; they may come from a generator of any length.
            aggregation: How comparisons become scores.
            window: How many items are worked on together.

        Returns:
            An iterator of one ranking an item.
        """
        get_aggregation(aggregation)
        return _windowed(items, lambda batch: rank_items(batch, self.scorer, aggregation), window)

    def iter_fuse(
        self,
        items: Iterable[Item],
        *,
        generation: Mapping[str, Any] | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> Iterator[Fusion]:
        """Fuse the candidates of items, the best first, lazily and in order."""
        fuser = self._require_fuser()
        return _windowed(items, lambda batch: fuser.fuse(batch, generation), window)

    def iter_blend(
        self,
        items: Iterable[Item],
        *,
        top_k: int = 3,
        fallback: bool = True,
        aggregation: str = "max_logits",
        generation: Mapping[str, Any] | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> Iterator[Blend]:
        """Blend items from any iterable, lazily and in order; the options are those of `blend`."""
        get_aggregation(aggregation)
        fuser = self._require_fuser()
        if not 2 <= top_k <= fuser.max_candidates:
            raise InputError(f"top_k={top_k}; this fuser takes from 2 to {fuser.max_candidates} candidates")

        def blend(batch: Sequence[Item]) -> list[Blend]:
            rankings = rank_items(batch, self.scorer, aggregation)
            fusions = self._fuse_best(batch, rankings, top_k, fuser, generation)
            return self._judge(batch, rankings, fusions, fallback)

        return _windowed(items, blend, window)

    def _fuse_best(
        self,
        items: Sequence[Item],
        rankings: Sequence[Ranking],
        top_k: int,
        fuser: Fuser,
        generation: Mapping[str, Any] | None,
    ) -> list[Fusion | None]:
        chosen = [best_different(ranking, top_k) for ranking in rankings]
        fusible = [index for index, indices in enumerate(chosen) if len(indices) > 1]
        inputs = [_subset(items[index], chosen[index]) for index in fusible]
        fused: list[Fusion | None] = [None] * len(items)
        for index, fusion in zip(fusible, fuser.fuse(inputs, generation), strict=True):
            fused[index] = Fusion(fusion.text, tuple(chosen[index]), fusion.truncated)
        return fused

    def _judge(
        self, items: Sequence[Item], rankings: Sequence[Ranking], fusions: Sequence[Fusion | None], fallback: bool
    ) -> list[Blend]:
        duels = [
            Item(item.prompt, (Candidate(fusion.text), Candidate(ranking.best)), item.instruction, item.where)
            for item, ranking, fusion in zip(items, rankings, fusions, strict=True)
            if fusion is not None
        ]
        comparisons = iter(compare_items(duels, self.scorer))
        return [
            _blend(ranking, fusion, None if fusion is None else next(comparisons), fallback)
            for ranking, fusion in zip(rankings, fusions, strict=True)
        ]

    def _require_fuser(self) -> Fuser:
        if self._fuser is None:
            raise BlenderError(
                "this blender has no fuser: load one with Blender.from_pretrained(fuser='gen-fuser-mini')"
            )
        return self._fuser


def best_different(ranking: Ranking, top_k: int) -> list[int]:
    """Return the indices of the best candidates, the best first, each text once."""
    different = {ranking.candidates[index]: index for index in reversed(ranking.order)}
    return [index for index in ranking.order if different[ranking.candidates[index]] == index][:top_k]


def _blend(ranking: Ranking, fusion: Fusion | None, comparison: Comparison | None, fallback: bool) -> Blend:
    if fusion is None or comparison is None:
        return Blend(ranking.best, "best", ranking, None, None)
    if fallback and (comparison.preferred != "a" or not fusion.text.strip()):
        return Blend(ranking.best, "best", ranking, fusion, comparison)
    return Blend(fusion.text, "fused", ranking, fusion, comparison)


def _subset(item: Item, indices: Sequence[int]) -> Item:
    return Item(item.prompt, tuple(item.candidates[i] for i in indices), item.instruction, item.where)


def _pairs(prompts: Any, candidates_a: Any, candidates_b: Any) -> Any:
    """Put two columns of candidates into one column of pairs, for `make_items` to check."""
    if is_single_prompt(prompts):
        return [candidates_a, candidates_b]
    for name, column in (("candidates_a", candidates_a), ("candidates_b", candidates_b)):
        if isinstance(column, str) or len(column) != len(prompts):
            raise InputError(f"{name} must be a list with one candidate for each of the {len(prompts)} prompts")
    return [list(pair) for pair in zip(candidates_a, candidates_b, strict=True)]


def _windowed(
    items: Iterable[Item], work: Callable[[Sequence[Item]], list[Result]], window: int = DEFAULT_WINDOW
) -> Iterator[Result]:
    if window < 1:
        raise InputError(f"window={window}; at least one item is worked on at a time")

    def results() -> Iterator[Result]:
        for batch, error in _batches(items, window):
            if batch:
                yield from work(batch)
            if error is not None:
                raise error

    return results()


def _batches(items: Iterable[Item], window: int) -> Iterator[tuple[list[Item], Exception | None]]:
    """Yield batches of items, and with the last the error that ended them: what came before it is still worked on."""
    source = iter(items)
    full = True
    while full:
        batch: list[Item] = []
        error = None
        try:
            batch.extend(islice(source, window))  # keeps what was read when reading fails
        except Exception as raised:
            error = raised
        full = len(batch) == window
        yield batch, error


def _with_progress(items: Sequence[Item], progress: bool) -> Iterable[Item]:
    return tqdm(items, unit="prompt", disable=not progress)


def _unwrap(results: Iterator[Result], single: bool) -> Result | list[Result]:
    return next(results) if single else list(results)
