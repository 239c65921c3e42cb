"""What `Blender` needs of a ranker, and the two kinds there are: of pairs, and of single candidates."""

from collections.abc import Sequence
from typing import Any, Protocol

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Item

from .pointwise import Pointwise, PointwiseRanker
from .ranking import compare_items, rank_items, tokenise_items
from .results import Comparison, Ranking
from .reward_models import RewardModelScorer, is_reward_model
from .schedules import Schedule
from .scorer import PairScorer, Texts


class Ranker(Protocol):
    """Turns items into rankings and comparisons."""

    def prepare(self, items: Sequence[Item]) -> Any:
        """Do what can be done ahead of the model, in a thread of its own; the result goes to the other two."""

    def rank(self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: Any = None) -> list[Ranking]:
        """Rank the candidates of every item."""

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Any = None) -> list[Comparison]:
        """Compare the two candidates of every item."""


class Pairwise:
    """Ranks by comparing pairs.

    Args:
        scorer: Scores the pairs.
    """

    def __init__(self, scorer: PairScorer) -> None:
        self.scorer = scorer

    def prepare(self, items: Sequence[Item]) -> Texts:
        """Tokenise all texts of the items."""
        return tokenise_items(items, self.scorer)

    def rank(
        self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: Texts | None = None
    ) -> list[Ranking]:
        """Rank the candidates of every item, as `rank_items` does."""
        return rank_items(items, self.scorer, schedule, aggregation, texts=prepared)

    def compare(
        self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Texts | None = None
    ) -> list[Comparison]:
        """Compare the two candidates of every item, as `compare_items` does."""
        return compare_items(items, self.scorer, tie_threshold, texts=prepared)


def as_scorer(
    ranker: Any, processor: Any, *, max_batch_tokens: int | None = None, compile: bool = False
) -> PairScorer | PointwiseRanker:
    """Return what scores: of a model and its processor, or an object that is a pointwise ranker as it is.

    Args:
        ranker: A `PairRanker`, a sequence classification model with one label, or a `PointwiseRanker`.
        processor: The processor of a `PairRanker`, the tokenizer of a reward model, or None.
        max_batch_tokens: Most tokens of a batch, padding included; None chooses by the device.
        compile: Whether the model is compiled.

    Raises:
        InputError: If the processor is missing, or something is given that such a ranker has no use for.
        InputTypeError: If this is no ranker.
    """
    if isinstance(ranker, PointwiseRanker):
        if processor is not None or max_batch_tokens is not None or compile:
            raise InputError(
                f"{type(ranker).__name__} scores by itself: give it without a processor, max_batch_tokens and compile"
            )
        return ranker
    if not hasattr(ranker, "config"):
        raise InputTypeError(
            f"the ranker must be a model, or an object with a method scores(items), not {type(ranker).__name__}"
        )
    if processor is None:
        raise InputError("give the ranker together with its processor, or with its tokenizer if it is a reward model")
    scorer = RewardModelScorer if is_reward_model(ranker.config) else PairScorer
    return scorer(ranker, processor, max_batch_tokens=max_batch_tokens, compile=compile)


def as_ranker(scorer: PairScorer | PointwiseRanker) -> Ranker:
    """Return the ranker of a scorer."""
    return Pairwise(scorer) if isinstance(scorer, PairScorer) else Pointwise(scorer)
