"""What `Blender` needs of a ranker, and the ranker that a model or an object of the user's own is."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Item
from blender_hf.modeling import PairRanker, PairRankerProcessor

from .pairwise import AsyncPairwiseObject, AsyncPairwiseRanker, Pairwise, PairwiseModel, PairwiseObject, PairwiseRanker
from .pointwise import Pointwise, PointwiseRanker
from .results import Comparison, Ranking
from .reward_model import RewardModelScorer, is_reward_model
from .schedules import Schedule
from .scorer import PairScorer
from .separate import CandidateEncoder, Separate

# An object that ranks by itself, without a processor; `isinstance` takes it too.
OwnRanker = PointwiseRanker | PairwiseRanker | AsyncPairwiseRanker


class Ranker(Protocol):
    """Turns items into rankings and comparisons."""

    def prepare(self, items: Sequence[Item]) -> Any:
        """Do what can be done ahead of the model, in another thread; the result goes to `rank` or `compare`."""

    def rank(self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: Any = None) -> list[Ranking]:
        """Rank the candidates of every item."""

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Any = None) -> list[Comparison]:
        """Compare the two candidates of every item."""


def as_ranker(
    ranker: PairRanker | PreTrainedModel | OwnRanker,
    processor: PairRankerProcessor | PreTrainedTokenizerBase | None = None,
    *,
    max_batch_tokens: int | None = None,
    compile: bool = False,
    positive_label: int | str | None = None,
) -> Pairwise | Separate | Pointwise:
    """Return the ranker of a model with its processor, or of an object that ranks by itself.

    Of several methods, `scores` is taken before `alogits`, and that before `logits`.
    """
    if isinstance(ranker, OwnRanker):
        if processor is not None or max_batch_tokens is not None or compile or positive_label is not None:
            raise InputError(
                f"{type(ranker).__name__} scores by itself: give it without a processor, max_batch_tokens, compile and "
                "positive_label"
            )
        if isinstance(ranker, PointwiseRanker):
            return Pointwise(ranker)
        return AsyncPairwiseObject(ranker) if isinstance(ranker, AsyncPairwiseRanker) else PairwiseObject(ranker)
    if not hasattr(ranker, "config"):
        raise InputTypeError(
            "the ranker must be a model, or an object with a method scores(items), logits(presentations) or "
            f"alogits(presentations), not {type(ranker).__name__}"
        )
    if processor is None:
        raise InputError("give the ranker together with its processor, or with its tokenizer if it is a reward model")
    if is_reward_model(ranker.config):
        options: dict[str, Any] = {"max_batch_tokens": max_batch_tokens, "compile": compile}
        return Pointwise(RewardModelScorer(ranker, processor, positive_label=positive_label, **options))
    if positive_label is not None:
        raise InputError(f"positive_label={positive_label!r} is for a reward model, and this is a ranker of pairs")
    # Not `isinstance`: a ranker in ONNX Runtime is no `PairRanker`, but is called like one.
    model, reader = cast(PairRanker, ranker), cast(PairRankerProcessor, processor)
    if model.config.is_separate:
        return Separate(CandidateEncoder(model, reader, max_batch_tokens=max_batch_tokens, compile=compile))
    return PairwiseModel(PairScorer(model, reader, max_batch_tokens=max_batch_tokens, compile=compile))
