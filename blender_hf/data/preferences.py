"""Labelled pairs of candidates, for training a ranker and for measuring one."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PreferencePair:
    """A judged pair.

    Args:
        prompt: Text of the prompt; the turns of a conversation stand as `USER: ...` lines.
        candidate_a: One answer.
        candidate_b: The other.
        label: Probability, in [0, 1], that a is the better one; 0.5 is a tie.
        source: Name of the collection that the pair is from.
        task_labels: The same for each of several quality functions; empty if there is only one.
    """

    prompt: str
    candidate_a: str
    candidate_b: str
    label: float
    source: str
    task_labels: tuple[float, ...] = ()

    @property
    def targets(self) -> tuple[float, ...]:
        """One label a task."""
        return self.task_labels or (self.label,)

    def n_characters(self) -> int:
        """Return the length of its three texts together."""
        return len(self.prompt) + len(self.candidate_a) + len(self.candidate_b)

    def swapped(self) -> "PreferencePair":
        """Return the same judgment with the candidates in the other order."""
        swapped = tuple(1 - label for label in self.task_labels)
        return PreferencePair(self.prompt, self.candidate_b, self.candidate_a, 1 - self.label, self.source, swapped)


def soft_label(pair: dict[str, Any]) -> float:
    """Return the probability that a is better: the judge's own, or the share of the votes, or the verdict."""
    if "pref_b" in pair:
        return 1 - pair["pref_b"]
    votes = pair.get("votes") or [pair["label"]]
    return sum((vote + 1) / 2 for vote in votes) / len(votes)
