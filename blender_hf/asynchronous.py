"""The methods of `Blender` for `await`: requests that come at about the same time are worked on together."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .engine.concurrency import PerObject
from .engine.micro_batching import MicroBatcher
from .engine.results import Blend, Comparison, Fusion, Ranking
from .engine.rewards import duel_rewards, duels, get_scale, group_rewards, references_of
from .engine.schedules import Schedule, as_schedule
from .inputs import Item, check_tie_threshold, make_items, pairs_of, unwrapped

_batchers = PerObject(MicroBatcher)


class AsyncMethods:
    """What `Blender` offers to coroutines: `arank`, `ablend` and the others, each with the results of its namesake.

    Any number of requests may wait, from any number of event loops. Those of the same method with the same options are
    worked on together, in one thread beside the event loop; an error in one is raised to its caller alone, and one that
    is cancelled leaves the others as they are.
    """

    async def arank(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "full",
        top_k: int | None = None,
        orders: str = "both",
        aggregation: str = "max_logits",
    ) -> Any:
        """Rank the candidates of each prompt, as `rank` does."""
        items, single = make_items(prompts, candidates, instructions)
        found = await self._ranked(items, as_schedule(schedule, top_k, orders), aggregation)
        return unwrapped(found, single)

    async def abest_of_n(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "adaptive",
        orders: str = "both",
    ) -> Any:
        """Return the best candidate of each prompt, as `best_of_n` does."""
        items, single = make_items(prompts, candidates, instructions)
        rankings = await self._ranked(items, replace(as_schedule(schedule, 1, orders), seek="best"))
        return unwrapped([ranking.best for ranking in rankings], single)

    async def aworst_of_n(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "adaptive",
        orders: str = "both",
    ) -> Any:
        """Return the worst candidate of each prompt, as `worst_of_n` does."""
        items, single = make_items(prompts, candidates, instructions)
        rankings = await self._ranked(items, replace(as_schedule(schedule, 1, orders), seek="worst"))
        return unwrapped([ranking.worst for ranking in rankings], single)

    async def areward(
        self,
        prompts: Any,
        candidates: Any,
        *,
        reference: Any = None,
        rule: str | None = None,
        instructions: Any = None,
        scale: str = "logit",
    ) -> Any:
        """Compare each candidate with a reference answer, as `reward` does."""
        items, single = make_items(prompts, candidates, instructions)
        get_scale(scale)
        references = references_of(items, single, reference, rule)
        meetings = [duels(item, one) for item, one in zip(items, references, strict=True)]
        found = iter(await self._compared([meeting for group in meetings for meeting in group]))
        rewards = [duel_rewards([next(found) for _ in group], scale) for group in meetings]
        return unwrapped(rewards, single)

    async def agroup_reward(
        self, prompts: Any, candidates: Any, *, instructions: Any = None, scale: str = "logit"
    ) -> Any:
        """Compare each candidate with all others of its prompt, as `group_reward` does."""
        items, single = make_items(prompts, candidates, instructions)
        get_scale(scale)
        rankings = await self._ranked(items, Schedule())
        return unwrapped([group_rewards(ranking, scale) for ranking in rankings], single)

    async def acompare(
        self,
        prompts: Any,
        candidates_a: Any,
        candidates_b: Any,
        *,
        instructions: Any = None,
        tie_threshold: float = 0.0,
    ) -> Any:
        """Compare two candidates of each prompt, as `compare` does."""
        check_tie_threshold(tie_threshold)
        items, single = make_items(*pairs_of(prompts, candidates_a, candidates_b), instructions)
        return unwrapped(await self._compared(items, tie_threshold), single)

    async def afuse(
        self, prompts: Any, candidates: Any, *, instructions: Any = None, generation: Mapping[str, Any] | None = None
    ) -> Any:
        """Write one answer from the candidates of each prompt, as `fuse` does."""
        items, single = make_items(prompts, candidates, instructions)

        def fuse(batch: Sequence[Item]) -> Iterator[Fusion]:
            return self.iter_fuse(batch, generation=generation)

        return unwrapped(await self._together(("fuse", _fixed(generation)), items, fuse), single)

    async def ablend(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        top_k: int = 3,
        fallback: bool = True,
        schedule: str | Schedule = "full",
        aggregation: str = "max_logits",
        generation: Mapping[str, Any] | None = None,
    ) -> Any:
        """Rank the candidates of each prompt, fuse the best, and keep the better answer, as `blend` does."""
        items, single = make_items(prompts, candidates, instructions)
        options = {"top_k": top_k, "fallback": fallback, "schedule": schedule, "aggregation": aggregation}

        def blend(batch: Sequence[Item]) -> Iterator[Blend]:
            return self.iter_blend(batch, **options, generation=generation)

        kind = ("blend", *options.values(), _fixed(generation))
        return unwrapped(await self._together(kind, items, blend), single)

    async def _ranked(
        self, items: Sequence[Item], schedule: Schedule, aggregation: str = "max_logits"
    ) -> list[Ranking]:
        def rank(batch: Sequence[Item]) -> Iterator[Ranking]:
            return self.iter_rank(batch, schedule=schedule, aggregation=aggregation)

        return await self._together(("rank", schedule, aggregation), items, rank)

    async def _compared(self, items: Sequence[Item], tie_threshold: float = 0.0) -> list[Comparison]:
        def compare(batch: Sequence[Item]) -> Iterator[Comparison]:
            return self.iter_compare(batch, tie_threshold)

        return await self._together(("compare", tie_threshold), items, compare)

    async def _together(
        self, kind: Hashable, items: Sequence[Item], work: Callable[[Sequence[Item]], Iterable[Any]]
    ) -> list[Any]:
        if not items:
            return list(work(items))  # nothing to wait for, but options that don't exist are errors all the same
        return await asyncio.wrap_future(batcher_of(self).submit(kind, items, work))


def batcher_of(blender: AsyncMethods) -> MicroBatcher:
    """Return what collects the requests to a blender."""
    return _batchers.of(blender)


def _fixed(generation: Mapping[str, Any] | None) -> Hashable:
    """Return what is equal for equal options of `generate`; an object of a class is equal to itself alone."""
    if not isinstance(generation, Mapping | None):
        return _constant(generation)  # the fuser says what is wrong with it
    return tuple((name, _constant(value)) for name, value in sorted((generation or {}).items()))


def _constant(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_constant, value))
    return repr(value) if isinstance(value, str | int | float | None) else id(value)
