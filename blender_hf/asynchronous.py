"""The methods of `Blender` for `await`: requests that come at about the same time are worked on together."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, Unpack, overload

from huggingface_hub.utils import tqdm

from .engine.concurrency import MicroBatcher, PerObject
from .engine.results import Blend, Comparison, Fusion, Ranking
from .engine.schedules import Schedule
from .errors import InputError
from .inputs import CandidateInput, CandidateLists, Candidates, Item, Prompt, Prompts
from .logs import OWN

_batchers = PerObject(MicroBatcher)


@dataclass(frozen=True)
class Call:
    """A checked call of a method, to be run at once or together with others."""

    kind: Hashable  # calls of the same kind may be worked on together
    items: Sequence[Item]
    single: bool  # whether the caller gave one prompt, and gets its result alone
    work: Callable[[Iterable[Item]], Iterable[Any]]  # turns items into results, one an item
    finish: Callable[[list[Any]], list[Any]] = list  # turns all results into one answer for each prompt

    def run(self, progress: bool = False) -> Any:
        """Run it here."""
        found = list(self.work(tqdm(self.items, unit="prompt", disable=not progress, name=OWN)))
        return self._answer(found)

    async def submit(self, batcher: MicroBatcher, progress: bool = False) -> Any:
        """Run it in the batcher's thread."""
        if progress:
            raise InputError("progress=True is for the methods without await; leave it out")
        if not self.items:
            return self.run()  # there is nothing to wait for, but unknown options are errors all the same
        return self._answer(await asyncio.wrap_future(batcher.submit(self.kind, self.items, self.work)))

    def _answer(self, results: list[Any]) -> Any:
        answers = self.finish(results)
        return answers[0] if self.single else answers


class _Options(TypedDict, total=False):
    instructions: str | Sequence[str | None] | None


class BestOptions(_Options, total=False):
    """Options of `best_of_n` and `worst_of_n`."""

    schedule: str | Schedule
    orders: str


class RankOptions(BestOptions, total=False):
    """Options of `rank`."""

    top_k: int | None
    aggregation: str


class GroupRewardOptions(_Options, total=False):
    """Options of `group_reward`."""

    scale: str


class RewardOptions(GroupRewardOptions, total=False):
    """Options of `reward`."""

    reference: CandidateInput | Sequence[CandidateInput] | None
    rule: str | None


class CompareOptions(_Options, total=False):
    """Options of `compare`."""

    tie_threshold: float


class FuseOptions(_Options, total=False):
    """Options of `fuse`."""

    generation: Mapping[str, Any] | None


class BlendOptions(FuseOptions, total=False):
    """Options of `blend`."""

    top_k: int
    fallback: bool
    schedule: str | Schedule
    aggregation: str


class AsyncMethods:
    """What `Blender` offers to coroutines: `arank`, `ablend` and the others, each with the results of its namesake.

    Any number of requests may wait, from any number of event loops. Those of the same method with the same options are
    worked on together, in one thread beside the event loop; an error in one is raised to its caller alone, and one that
    is cancelled leaves the others as they are.
    """

    # What becomes of a checked call.
    _perform: Callable[..., Any] = staticmethod(Call.run)

    @overload
    async def arank(self, prompts: Prompt, candidates: Candidates, **options: Unpack[RankOptions]) -> Ranking: ...
    @overload
    async def arank(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[RankOptions]
    ) -> list[Ranking]: ...
    async def arank(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Rank the candidates of each prompt, as `rank` does."""
        return await self._submitted("rank", prompts, candidates, **options)

    @overload
    async def abest_of_n(self, prompts: Prompt, candidates: Candidates, **options: Unpack[BestOptions]) -> str: ...
    @overload
    async def abest_of_n(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[BestOptions]
    ) -> list[str]: ...
    async def abest_of_n(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Return the best candidate of each prompt, as `best_of_n` does."""
        return await self._submitted("best_of_n", prompts, candidates, **options)

    @overload
    async def aworst_of_n(self, prompts: Prompt, candidates: Candidates, **options: Unpack[BestOptions]) -> str: ...
    @overload
    async def aworst_of_n(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[BestOptions]
    ) -> list[str]: ...
    async def aworst_of_n(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Return the worst candidate of each prompt, as `worst_of_n` does."""
        return await self._submitted("worst_of_n", prompts, candidates, **options)

    @overload
    async def areward(
        self, prompts: Prompt, candidates: Candidates, **options: Unpack[RewardOptions]
    ) -> list[float]: ...
    @overload
    async def areward(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[RewardOptions]
    ) -> list[list[float]]: ...
    async def areward(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Compare each candidate with a reference answer, as `reward` does."""
        return await self._submitted("reward", prompts, candidates, **options)

    @overload
    async def agroup_reward(
        self, prompts: Prompt, candidates: Candidates, **options: Unpack[GroupRewardOptions]
    ) -> list[float]: ...
    @overload
    async def agroup_reward(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[GroupRewardOptions]
    ) -> list[list[float]]: ...
    async def agroup_reward(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Compare each candidate with all others of its prompt, as `group_reward` does."""
        return await self._submitted("group_reward", prompts, candidates, **options)

    @overload
    async def acompare(
        self,
        prompts: Prompt,
        candidates_a: CandidateInput,
        candidates_b: CandidateInput,
        **options: Unpack[CompareOptions],
    ) -> Comparison: ...
    @overload
    async def acompare(
        self,
        prompts: Prompts,
        candidates_a: Candidates,
        candidates_b: Candidates,
        **options: Unpack[CompareOptions],
    ) -> list[Comparison]: ...
    async def acompare(self, prompts: Any, candidates_a: Any, candidates_b: Any, **options: Any) -> Any:
        """Compare two candidates of each prompt, as `compare` does."""
        return await self._submitted("compare", prompts, candidates_a, candidates_b, **options)

    @overload
    async def afuse(self, prompts: Prompt, candidates: Candidates, **options: Unpack[FuseOptions]) -> Fusion: ...
    @overload
    async def afuse(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[FuseOptions]
    ) -> list[Fusion]: ...
    async def afuse(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Write one answer from the candidates of each prompt, as `fuse` does."""
        return await self._submitted("fuse", prompts, candidates, **options)

    @overload
    async def ablend(self, prompts: Prompt, candidates: Candidates, **options: Unpack[BlendOptions]) -> Blend: ...
    @overload
    async def ablend(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[BlendOptions]
    ) -> list[Blend]: ...
    async def ablend(self, prompts: Any, candidates: Any, **options: Any) -> Any:
        """Rank the candidates of each prompt, fuse the best, and keep the better answer, as `blend` does."""
        return await self._submitted("blend", prompts, candidates, **options)

    async def _submitted(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of a copy that submits calls instead of running them."""
        submitting = copy(self)
        submitting._perform = partial(Call.submit, batcher=batcher_of(self))
        return await getattr(submitting, method)(*args, **options)


def batcher_of(blender: AsyncMethods) -> MicroBatcher:
    """Return what collects the requests to a blender."""
    return _batchers.of(blender)


def hashable(generation: Mapping[str, Any] | None) -> Hashable:
    """Return what is equal for equal options of `generate`; an object of a class is equal only to itself."""
    if not isinstance(generation, Mapping | None):
        return _constant(generation)  # the fuser says what is wrong with it
    return tuple((name, _constant(value)) for name, value in sorted((generation or {}).items()))


def _constant(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_constant, value))
    return repr(value) if isinstance(value, str | int | float | None) else id(value)
