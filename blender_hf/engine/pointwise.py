"""Rankers that score each candidate by itself, such as reward models: their differences are the comparisons.

A difference of two scores is the logit of a Bradley-Terry model, which reward models are trained as: its sigmoid is the
probability that the first candidate is the better one (Ouyang et al. 2022, equation 1).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from blender_hf.errors import InputError, InputTypeError, ModelOutputError, chosen
from blender_hf.inputs import Item

from .aggregation import AGGREGATIONS
from .concurrency import lock_of
from .results import POINTWISE, Comparison, Ranking, Truncation, Unread, make_ranking
from .schedules import Schedule
from .unread import UnreadWarning

# The default aggregation: for a pointwise ranker, the scores that it gave.
OWN_SCORES = "max_logits"
# Reward models are trained on plain differences.
TEMPERATURE = 1.0


@runtime_checkable
class PointwiseRanker(Protocol):
    """Scores candidates one by one; any object with this method is a ranker for `Blender`.

    It gets whole items, so it may look at the other candidates, as minimum Bayes risk does.
    """

    def scores(self, items: Sequence[Item]) -> Sequence[Sequence[float]]:
        """Score the candidates of each item.

        Args:
            items: Prompts with their candidates; `item.source` is the text of the prompt with its instruction,
                `item.texts` are the candidates.

        Returns:
            For each item a finite number for each candidate, higher is better. The same candidate of the same prompt
            must always get the same.
        """
        ...


@runtime_checkable
class ReportsReading(PointwiseRanker, Protocol):
    """A pointwise ranker that also reports what was cut of the texts, and what it could not read; None if unknown."""

    def scores_and_readings(
        self, items: Sequence[Item]
    ) -> Sequence[tuple[Sequence[float], Truncation | None, Unread | None]]:
        """Score the candidates of each item, as `scores`, and say what was cut from each item."""
        ...


class Pointwise:
    """Ranks and compares by the scores of single candidates.

    Args:
        scorer: Scores the candidates.
    """

    def __init__(self, scorer: PointwiseRanker) -> None:
        self.scorer = scorer
        self._warning = UnreadWarning("ranker")

    @property
    def model(self) -> Any:
        """The loaded model; the scorer itself if it has none."""
        return getattr(self.scorer, "model", self.scorer)

    def prepare(self, items: Sequence[Item]) -> None:
        """Prepare nothing: a pointwise ranker gets the items as they are."""

    def rank(
        self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: object = None
    ) -> list[Ranking]:
        """Rank the candidates of every item; all comparisons are known, whatever the schedule."""
        chosen(AGGREGATIONS, aggregation, "aggregation")  # a misspelt name fails before the long work
        return [
            _ranking(item, scores, truncated, unread, aggregation)
            for item, (scores, truncated, unread) in zip(items, self._judge(items), strict=True)
        ]

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: object = None) -> list[Comparison]:
        """Compare the two candidates of every item; there is no presentation order."""
        return [
            Comparison(a - b, b - a, truncated, TEMPERATURE, tie_threshold, unread)
            for (a, b), truncated, unread in self._judge(items)
        ]

    def _judge(self, items: Sequence[Item]) -> list[tuple[tuple[float, ...], Truncation, Unread | None]]:
        with lock_of(self):  # a user's object is not always thread-safe
            found = self._scored(items)
        if len(found) != len(items):
            raise InputError(f"the ranker scored {len(found)} items of {len(items)}; it must score each")
        for item, (_, _, unread) in zip(items, found, strict=True):
            self._warning.check(item.where, unread)
        return [
            (_checked(item, scores), cut or Truncation(0, (0,) * len(item.texts)), unread)
            for item, (scores, cut, unread) in zip(items, found, strict=True)
        ]

    def _scored(self, items: Sequence[Item]) -> Sequence[tuple[Sequence[float], Truncation | None, Unread | None]]:
        if isinstance(self.scorer, ReportsReading):
            return self.scorer.scores_and_readings(items)
        found = self.scorer.scores(items)
        if not isinstance(found, Iterable):
            raise InputTypeError(f"the ranker gave {found!r} for {len(items)} items; it must give scores for each")
        return [(scores, None, None) for scores in found]


def _checked(item: Item, scores: Sequence[float]) -> tuple[float, ...]:
    try:
        found = tuple(float(score) for score in scores)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"{item.where}: the ranker gave {scores!r}; it must give a number for each candidate"
        ) from None
    if len(found) != len(item.candidates):
        raise InputError(
            f"{item.where}: the ranker gave {len(found)} scores for {len(item.candidates)} candidates; "
            "it must give one for each"
        )
    if not all(map(math.isfinite, found)):
        raise ModelOutputError(f"{item.where}: the ranker gave a score that is NaN or infinite: {found}")
    return found


def _ranking(
    item: Item, own: tuple[float, ...], truncated: Truncation, unread: Unread | None, aggregation: str
) -> Ranking:
    logits = tuple(tuple(math.nan if i == j else a - b for j, b in enumerate(own)) for i, a in enumerate(own))
    scores = own if aggregation == OWN_SCORES else None
    return make_ranking(
        item,
        logits,
        aggregation,
        temperature=TEMPERATURE,
        truncated=truncated,
        schedule=POINTWISE,
        unread=unread,
        scores=scores,
        n_encodings=None if unread is None else len(set(item.texts)),
    )
