"""How near the ranks of a ranker are to others, over many prompts: the correlation table of the paper."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from blender_hf.engine.aggregation import ranks_of

from . import rankings

Correlation = Callable[[Sequence[float], Sequence[float]], float | None]
CORRELATIONS: dict[str, Correlation] = {
    "Pearson": rankings.pearson,
    "Spearman": rankings.spearman,
    "Kendall": rankings.kendall,
}
BY_MODEL, BY_PROMPT, FOOTRULE = "by model", "by prompt", "footrule"


@dataclass
class RankNotes:
    """The ranks of candidates by a ranker and by the judge, prompt by prompt."""

    models: list[tuple[str | None, ...]] = field(default_factory=list)
    ranks: list[tuple[int, ...]] = field(default_factory=list)
    gold: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, models: tuple[str | None, ...], scores: Sequence[float], gold: tuple[int, ...]) -> None:
        """Note a prompt: the models of its candidates, the scores of the ranker, and the ranks of the judge."""
        self.models.append(models)
        self.ranks.append(ranks_of(scores))
        self.gold.append(gold)


def correlations(notes: RankNotes) -> dict[str, float]:
    """Return the correlations of two sets of ranks.

    "Pearson, by model" and its like are what the paper reports: for each model the correlation of its ranks over the
    prompts, and the mean over the models. "by prompt" is the mean over the prompts of the correlation of the ranks of
    their candidates. "footrule" is the sum of the distances of the ranks of a prompt, mean over prompts; 0 is best.

    Args:
        notes: The ranks.

    Returns:
        Those that are defined: a correlation needs ranks that vary.
    """
    by_model: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for models, ranks, gold in zip(notes.models, notes.ranks, notes.gold, strict=True):
        for model, rank, other in zip(models, ranks, gold, strict=True):
            if model is not None:
                by_model[model][0].append(rank)
                by_model[model][1].append(other)
    groups = {BY_MODEL: list(by_model.values()), BY_PROMPT: list(zip(notes.ranks, notes.gold, strict=True))}
    found = {
        f"{name}, {title}": _mean([correlation(a, b) for a, b in columns])
        for title, columns in groups.items()
        for name, correlation in CORRELATIONS.items()
    }
    # Ranks are the other way round than scores, which a sum of distances does not see.
    found[FOOTRULE] = _mean([_footrule(a, b) for a, b in zip(notes.ranks, notes.gold, strict=True)])
    return {name: value for name, value in found.items() if value is not None}


def _footrule(ranks: Sequence[int], gold: Sequence[int]) -> float:
    return float(sum(abs(a - b) for a, b in zip(ranks, gold, strict=True)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
