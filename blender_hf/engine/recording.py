"""What a ranker says of each order of presentation, for those who want to see both."""

from collections.abc import Callable, Sequence

from .scorer import PairScorer, Presentation, Texts


class RecordingScorer(PairScorer):
    """A scorer that remembers its logits: a `Ranking` keeps the mean of both orders, this keeps each.

    It remembers everything that it is asked: make one for a batch, and throw it away.

    Args:
        scorer: The scorer that does the work.
    """

    def __init__(self, scorer: PairScorer) -> None:
        self.__dict__.update(vars(scorer))
        self.recorded: dict[Presentation, float] = {}

    def score(
        self,
        presentations: Sequence[Presentation],
        texts: Texts | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[float]:
        """Score presentations, and remember the logits."""
        logits = super().score(presentations, texts, on_batch)
        self.recorded |= zip(presentations, logits, strict=True)
        return logits
