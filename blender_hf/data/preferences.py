"""Labelled pairs of candidates, for training a ranker and for measuring one."""

from dataclasses import dataclass, replace
from typing import Any

from blender_hf.inputs import CandidateInput, Item, Prompt, make_item

from .labelled import UNKNOWN


@dataclass(frozen=True)
class PreferencePair:
    """A judged pair of answers to a prompt.

    Args:
        item: The prompt, with two candidates: a and b.
        label: Probability, in [0, 1], that a is the better one; 0.5 is a tie.
        source: Name of the collection that the pair is from.
        task_labels: The same for each of several quality functions; empty if there is only one.
    """

    item: Item
    label: float
    source: str = UNKNOWN
    task_labels: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        candidate_a: CandidateInput,
        candidate_b: CandidateInput,
        label: float,
        source: str = UNKNOWN,
        task_labels: tuple[float, ...] = (),
    ) -> "PreferencePair":
        """Make a pair from a prompt, a string or chat messages, and two answers.

        >>> PreferencePair.of("2 + 2?", "4", "Bananas.", label=1.0).swapped().label
        0.0

        Raises:
            InputTypeError: If something has the wrong type.
            InputError: If a chat message can't be used.
        """
        return cls(make_item(prompt, [candidate_a, candidate_b], where="a pair"), label, source, task_labels)

    @property
    def prompt(self) -> str:
        """The text of the prompt, its instruction included; the turns of a conversation are `USER: ...` lines."""
        return self.item.source

    @property
    def candidate_a(self) -> str:
        """The text of the one answer."""
        return self.item.texts[0]

    @property
    def candidate_b(self) -> str:
        """The text of the other answer."""
        return self.item.texts[1]

    @property
    def targets(self) -> tuple[float, ...]:
        """One label a task."""
        return self.task_labels or (self.label,)

    def n_characters(self) -> int:
        """Return the total length of its three texts."""
        return len(self.prompt) + len(self.candidate_a) + len(self.candidate_b)

    def swapped(self) -> "PreferencePair":
        """Return the same judgment with the candidates in the other order."""
        item = replace(self.item, candidates=self.item.candidates[::-1])
        return PreferencePair(item, 1 - self.label, self.source, tuple(1 - label for label in self.task_labels))


def soft_label(pair: dict[str, Any]) -> float:
    """Return the probability that a is better: the judge's own, or the share of the votes, or the verdict."""
    if "pref_b" in pair:
        return 1 - pair["pref_b"]
    votes = pair.get("votes") or [pair["label"]]
    return sum((vote + 1) / 2 for vote in votes) / len(votes)
