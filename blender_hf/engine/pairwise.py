"""Rankers that compare pairs: models, and objects with the method of a protocol, in both presentation orders."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from blender_hf.errors import InputError, InputTypeError, ModelOutputError, chosen
from blender_hf.inputs import Item
from blender_hf.modeling import PairRanker

from .aggregation import AGGREGATIONS
from .concurrency import lock_of, together, wait_for
from .contests import Contest
from .results import Comparison, Ranking, Truncation, Unread
from .schedules import Schedule
from .scorer import PairScorer, Presentation, Texts, presented
from .unread import UnreadWarning, unread_of


@runtime_checkable
class PairwiseRanker(Protocol):
    """Compares candidates two at a time; any object with this method is a ranker for `Blender`.

    Schedules decide which pairs it gets, in both presentation orders unless `orders="one"`; pairs of equal texts tie
    without it. An object may state a `logit_temperature`, above 0, which divides a logit before its sigmoid is taken as
    a probability; without one it is 1.
    """

    def logits(self, presentations: Sequence[Presentation]) -> Sequence[float]:
        """Compare the two candidates of each presentation.

        Args:
            presentations: Pairs in one presentation order: `source` is the text of the prompt with its instruction,
                `first` and `second` are the candidates, `messages` is the conversation of the prompt.

        Returns:
            A finite number for each presentation, in their order: positive if the candidate presented first is better,
            0 for a tie. The same presentation must always get the same.
        """
        ...


@runtime_checkable
class AsyncPairwiseRanker(Protocol):
    """A `PairwiseRanker` that waits for a network.

    It is called in an event loop of this package's own, for many items at the same time, so that none waits for the
    comparisons of another. If one call fails, the others are cancelled.
    """

    async def alogits(self, presentations: Sequence[Presentation]) -> Sequence[float]:
        """Compare the two candidates of each presentation; see `PairwiseRanker.logits`."""
        ...


class Pairwise(ABC):
    """Ranks by comparing pairs."""

    scorer: Any

    @property
    @abstractmethod
    def model(self) -> Any:
        """What compares."""

    @property
    @abstractmethod
    def temperature(self) -> float:
        """Divides a logit before its sigmoid is taken as a probability."""

    @property
    def symmetric(self) -> bool:
        """Whether one reading of a pair counts for both orders of presentation."""
        return False

    def prepare(self, items: Sequence[Item]) -> Any:
        """Do what can be done ahead of the model, in another thread: nothing for an object that ranks by itself."""
        return None

    @abstractmethod
    def score(self, presentations: Sequence[Presentation], prepared: Any) -> list[float]:
        """Return the logit of each presentation."""

    def play(self, contests: Sequence[Contest], prepared: Any) -> None:
        """Score the comparisons of contests until all are over, those of a round together."""
        while presentations := [p for contest in contests for p in contest.pending]:
            logits = iter(self.score(presentations, prepared))
            for contest in contests:
                contest.receive([next(logits) for _ in contest.pending])

    def reading(self, item: Item, prepared: Any) -> tuple[Truncation, Unread | None]:
        """Return what was cut and not read of an item; an object that ranks by itself does not say."""
        return Truncation(0, (0,) * len(item.texts)), None

    def rank(self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: Any = None) -> list[Ranking]:
        """Rank the candidates of every item."""
        chosen(AGGREGATIONS, aggregation, "aggregation")  # a misspelt name fails before the long work
        prepared = self.prepare(items) if prepared is None else prepared
        contests = [Contest(item, schedule) for item in items]
        self.play(contests, prepared)
        temperature, symmetric = self.temperature, self.symmetric
        return [
            contest.ranking(aggregation, temperature, *self.reading(contest.item, prepared), symmetric)
            for contest in contests
        ]

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Any = None) -> list[Comparison]:
        """Compare the two candidates of every item in both orders; identical texts tie without a comparison."""
        prepared = self.prepare(items) if prepared is None else prepared
        presentations = [
            presented(item, *order)
            for item in items
            if len(set(item.texts)) > 1
            for order in (item.texts, item.texts[::-1])
        ]
        logits = iter(self.score(presentations, prepared) if presentations else ())
        found = [(next(logits), next(logits)) if len(set(item.texts)) > 1 else (0.0, 0.0) for item in items]
        temperature = self.temperature
        readings = [self.reading(item, prepared) for item in items]
        return [
            Comparison(ab, ba, truncated, temperature, tie_threshold, unread)
            for (ab, ba), (truncated, unread) in zip(found, readings, strict=True)
        ]


class PairwiseModel(Pairwise):
    """Ranks with a `PairRanker` that reads pairs.

    Args:
        scorer: Scores the pairs.
    """

    scorer: PairScorer

    def __init__(self, scorer: PairScorer) -> None:
        self.scorer = scorer
        self._warning = UnreadWarning("ranker")

    @property
    def model(self) -> PairRanker:
        """The loaded model."""
        return self.scorer.model

    @property
    def temperature(self) -> float:
        """That of its configuration."""
        return self.model.config.logit_temperature

    @property
    def symmetric(self) -> bool:
        """As in its configuration."""
        return self.model.config.symmetric

    def prepare(self, items: Sequence[Item]) -> Texts:
        """Tokenize all texts of the items, each once."""
        return self.scorer.tokenise(text for item in items for text in (item.source, *item.texts))

    def score(self, presentations: Sequence[Presentation], prepared: Texts) -> list[float]:
        """Return the logit of each presentation of texts that were tokenized."""
        return self.scorer.score(presentations, prepared)

    def reading(self, item: Item, prepared: Texts) -> tuple[Truncation, Unread]:
        """Return what was cut and not read of an item; a candidate's budget depends only on the prompt."""
        cuts = [self.scorer.encode(Presentation(item.source, text, text), prepared) for text in item.texts]
        ids = [prepared[text] for text in (item.source, *item.texts)]
        unread = unread_of(item, ids, (tuple(cut.input_ids) for cut in cuts), self.scorer.unknown_id)
        self._warning.check(item.where, unread)
        return Truncation(cuts[0].truncated_source, tuple(cut.truncated_first for cut in cuts)), unread


class _OwnRanker(Pairwise):
    """Ranks with an object of the user's own."""

    @property
    def model(self) -> Any:
        """The loaded model; the object itself if it has none."""
        return getattr(self.scorer, "model", self.scorer)

    @property
    def temperature(self) -> float:
        """What the object states, or 1."""
        stated = getattr(self.scorer, "logit_temperature", 1.0)
        if not isinstance(stated, int | float) or not 0 < stated < math.inf:
            raise InputError(f"the ranker's logit_temperature is {stated!r}; it must be a number above 0")
        return float(stated)


class PairwiseObject(_OwnRanker):
    """Ranks with an object that is a `PairwiseRanker`.

    Args:
        scorer: Compares the pairs.
    """

    def __init__(self, scorer: PairwiseRanker) -> None:
        self.scorer = scorer

    def score(self, presentations: Sequence[Presentation], prepared: None = None) -> list[float]:
        """Return the logit of each presentation."""
        with lock_of(self):  # a user's object is not always thread-safe
            return _checked(presentations, self.scorer.logits(presentations))


class AsyncPairwiseObject(_OwnRanker):
    """Ranks with an object that is an `AsyncPairwiseRanker`; no item waits for the comparisons of another.

    Args:
        scorer: Compares the pairs.
    """

    def __init__(self, scorer: AsyncPairwiseRanker) -> None:
        self.scorer = scorer

    def score(self, presentations: Sequence[Presentation], prepared: None = None) -> list[float]:
        """Return the logit of each presentation."""
        return wait_for(self._logits(presentations))

    def play(self, contests: Sequence[Contest], prepared: None = None) -> None:
        """Score the comparisons of all contests, each as fast as it goes."""
        wait_for(together([self._play(contest) for contest in contests]))

    async def _play(self, contest: Contest) -> None:
        while contest.pending:
            contest.receive(await self._logits(contest.pending))

    async def _logits(self, presentations: Sequence[Presentation]) -> list[float]:
        return _checked(presentations, await self.scorer.alogits(presentations))


def _checked(presentations: Sequence[Presentation], found: Any) -> list[float]:
    """Return what an object gave as logits, or raise an error that says what is wrong with it."""
    try:
        logits = [float(logit) for logit in found]
    except (TypeError, ValueError):
        raise InputTypeError(
            f"the ranker gave {found!r} for {len(presentations)} presentations; it must give a number for each"
        ) from None
    if len(logits) != len(presentations):
        raise InputError(
            f"the ranker gave {len(logits)} logits for {len(presentations)} presentations; it must give one for each"
        )
    if not all(map(math.isfinite, logits)):
        raise ModelOutputError("the ranker gave a logit that is NaN or infinite")
    return logits
