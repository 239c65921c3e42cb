"""The ranked prompts of a batch as a list that can be searched, filtered and put in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blender_hf.data.records import Record
from blender_hf.engine.results import Ranking
from blender_hf.errors import chosen

from .prompts import title_of
from .settings import RankingSettings

ANY_MODEL = "Any model"


@dataclass(frozen=True)
class RankedPrompt:
    """A prompt of a batch with the ranking of its candidates."""

    record: Record
    ranking: Ranking

    @property
    def best_model(self) -> str | None:
        """Name of the model whose answer is the best; None if the record does not say."""
        return self.ranking.models[self.ranking.order[0]]

    @property
    def margin(self) -> float:
        """Probability that the best answer is better than the second; 1 for an only answer."""
        first, *others = self.ranking.order
        return self.ranking.probability(first, others[0]) if others else 1.0

    @property
    def label(self) -> str:
        """The beginning of the prompt, and below it which answer is the best."""
        first, *others = self.ranking.order
        best = self.best_model or f"Candidate {first + 1}"
        against = f", {self.margin:.0%} against the second" if others else ""
        return f"{title_of(self.record.item.source)}\n{best}{against}"

    def has(self, words: Sequence[str]) -> bool:
        """Return whether all of these words, in lower case, are in the prompt, the answers and the models' names."""
        models = (model for model in self.ranking.models if model)
        text = "\n".join((self.record.item.source, *self.ranking.candidates, *models)).casefold()
        return all(word in text for word in words)


@dataclass(frozen=True)
class RankedBatch:
    """The prompts of a batch, and how they were ranked.

    Args:
        prompts: The ranked prompts, in the order of the file.
        settings: How they were ranked.
        ranker: By which ranker, one that the page offers.
    """

    prompts: tuple[RankedPrompt, ...]
    settings: RankingSettings
    ranker: str

    @property
    def winners(self) -> list[str]:
        """The models with a best answer, those with most of them first, behind `ANY_MODEL`."""
        found = [prompt.best_model for prompt in self.prompts if prompt.best_model]
        return [ANY_MODEL, *sorted(set(found), key=lambda model: (-found.count(model), model))]

    def find(self, search: str = "", winner: str = ANY_MODEL, order: str = "As in the file") -> list[int]:
        """Return the indices of prompts.

        Args:
            search: Words that the prompt with its answers must have, all of them, in any case.
            winner: The model whose answer must be the best, or `ANY_MODEL`.
            order: Name of one of `ORDERS`.
        """
        words = search.casefold().split()
        found = [
            index
            for index, prompt in enumerate(self.prompts)
            if winner in (ANY_MODEL, prompt.best_model) and prompt.has(words)
        ]
        key = chosen(ORDERS, order, "order")
        return sorted(found, key=lambda index: key(self.prompts[index]))

    def choices(self, indices: Sequence[int]) -> list[tuple[str, int]]:
        """Return the labels of prompts with their indices."""
        return [(f"{index + 1}. {self.prompts[index].label}", index) for index in indices]


ORDERS: dict[str, Callable[[RankedPrompt], float]] = {
    "As in the file": lambda prompt: 0.0,
    "Clearest winner first": lambda prompt: -prompt.margin,
    "Closest call first": lambda prompt: prompt.margin,
}
