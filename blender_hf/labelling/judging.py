"""The ranker of a job, loaded where it works: rankings with both orders of presentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blender_hf.blender import DEFAULT_WINDOW, Blender
from blender_hf.engine.aggregation import get_aggregation
from blender_hf.engine.rankers import as_ranker
from blender_hf.engine.recording import RecordingScorer
from blender_hf.engine.results import Ranking
from blender_hf.engine.schedules import Schedule
from blender_hf.engine.scorer import PairScorer
from blender_hf.engine.windows import windowed
from blender_hf.inputs import Item
from blender_hf.loading.checkpoints import DEFAULT_RANKER

from .outcomes import Judged, presented_matrix


@dataclass(frozen=True)
class JudgeSettings:
    """Which ranker, and how it ranks.

    Args:
        loading: Arguments of `Blender.from_pretrained` for the ranker.
        schedule: Which pairs are compared.
        aggregation: How comparisons become scores.
        window: How many prompts are worked on together.

    Raises:
        InputError: If there is no such aggregation.
    """

    loading: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    aggregation: str = "max_logits"
    window: int = DEFAULT_WINDOW

    def __post_init__(self) -> None:
        get_aggregation(self.aggregation)

    @property
    def ranker(self) -> str:
        """Name or folder of the ranker."""
        return str(self.loading.get("ranker", DEFAULT_RANKER))

    def load(self) -> "Judge":
        """Load the ranker.

        Raises:
            CheckpointError: If it can't be found or is not whole.
        """
        return Judge(Blender.from_pretrained(**self.loading, fuser=None), self)


class Judge:
    """Ranks items, and remembers both orders of presentation.

    Args:
        blender: The ranker.
        settings: How it ranks.
    """

    def __init__(self, blender: Blender, settings: JudgeSettings) -> None:
        self.scorer = blender.scorer
        self.settings = settings

    def judge(self, items: Sequence[Item]) -> list[Judged]:
        """Rank the candidates of every item; results depend on these items alone."""
        pairwise = isinstance(self.scorer, PairScorer)
        scorer = RecordingScorer(self.scorer) if pairwise else self.scorer
        ranker = as_ranker(scorer)

        def rank(batch: Sequence[Item], prepared: Any) -> list[Ranking]:
            return ranker.rank(batch, self.settings.schedule, self.settings.aggregation, prepared)

        rankings = list(windowed(items, ranker.prepare, rank, self.settings.window))
        if not pairwise:
            return [Judged(ranking, ranker.temperature) for ranking in rankings]
        by_source: dict[str, dict[tuple[str, str], float]] = {}
        for presentation, logit in scorer.recorded.items():
            by_source.setdefault(presentation.source, {})[presentation.first, presentation.second] = logit
        return [
            Judged(ranking, ranker.temperature, presented_matrix(ranking, by_source.get(item.source, {})))
            for item, ranking in zip(items, rankings, strict=True)
        ]
