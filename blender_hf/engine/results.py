"""Results that can't be misread: every field has a name, a unit and one direction."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

Preferred = Literal["a", "b", "tie"]
Returned = Literal["fused", "best"]


class _Result:
    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists and numbers that JSON can hold; NaN becomes None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Truncation(_Result):
    """How many tokens were cut from the texts because they were longer than the model reads.

    It is true when anything was cut.

    Args:
        prompt: Tokens cut from the prompt.
        candidates: Tokens cut from each candidate, in the order of the candidates.
    """

    prompt: int
    candidates: tuple[int, ...]

    def __bool__(self) -> bool:
        return self.prompt > 0 or any(self.candidates)


@dataclass(frozen=True)
class Ranking(_Result):
    """The candidates of one prompt in order.

    Args:
        candidates: The texts, in the order in which they were given.
        models: The names of their models, None where unknown.
        order: Indices of the candidates, the best first. Among equals the one given first comes first.
        ranks: For each candidate its rank, 1 is the best. Equal scores share a rank, and the next is skipped (1, 1, 3).
        scores: For each candidate its score, higher is better. For "max_logits", the mean logit against the others.
        comparisons: (candidates, candidates). Entry [i][j] is the logit of i against j, positive if i is better, the
            mean of both orders of presentation: its sigmoid, over the checkpoint's temperature, is the probability that
            i is better. NaN where not compared; [i][j] = -[j][i]. Identical texts tie with 0 without a comparison.
        n_comparisons: How many pairs the model compared; `n_possible` is how many there are.
        flip_rate: Share, 0 to 1, of the compared pairs in which another candidate wins when the order of presentation
            is swapped; None if nothing was compared, or in one order only.
        n_cycles: How many triples i > j > k > i there are: 0 if the comparisons are transitive.
        truncated: What was cut from the texts.
        schedule: Name of the schedule that chose the comparisons.
    """

    candidates: tuple[str, ...]
    models: tuple[str | None, ...]
    order: tuple[int, ...]
    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    comparisons: tuple[tuple[float, ...], ...]
    n_comparisons: int
    flip_rate: float | None
    n_cycles: int
    truncated: Truncation
    schedule: str

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Tuples that hold the same NaN are equal, and those that hold another are not: a copy shall be equal.
        rows = (tuple(math.nan if math.isnan(logit) else logit for logit in row) for row in state["comparisons"])
        vars(self).update(state, comparisons=tuple(rows))

    @property
    def n_possible(self) -> int:
        """How many pairs of different candidates there are."""
        return math.comb(len(set(self.candidates)), 2)

    @property
    def best(self) -> str:
        """Text of the best candidate."""
        return self.candidates[self.order[0]]

    @property
    def worst(self) -> str:
        """Text of the worst candidate."""
        return self.candidates[self.order[-1]]

    @property
    def sorted_candidates(self) -> tuple[str, ...]:
        """Texts of the candidates, the best first."""
        return tuple(self.candidates[index] for index in self.order)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists and numbers, with the best candidate's text."""
        return {**super().to_dict(), "best": self.best}


@dataclass(frozen=True)
class Comparison(_Result):
    """Two candidates of one prompt against each other.

    Args:
        preferred: "a", "b" or "tie".
        logit: Positive if a is better: (logit_ab - logit_ba) / 2, the mean of both orders of presentation.
        probability: Probability, 0 to 1, that a is better.
        logit_ab: What the model says with a read first; positive favours a.
        logit_ba: What the model says with b read first; positive favours b.
        truncated: What was cut; its candidates are a and b.
    """

    preferred: Preferred
    logit: float
    probability: float
    logit_ab: float
    logit_ba: float
    truncated: Truncation

    @property
    def flipped(self) -> bool:
        """Whether another candidate wins when the order of presentation is swapped."""
        return self.logit_ab * self.logit_ba > 0


@dataclass(frozen=True)
class Fusion(_Result):
    """One answer that was written from several candidates.

    Args:
        text: The fused answer.
        fused_from: Indices of the candidates that the fuser read, the best first.
        truncated: What was cut; its candidates are those of `fused_from`, in that order.
    """

    text: str
    fused_from: tuple[int, ...]
    truncated: Truncation


@dataclass(frozen=True)
class Blend(_Result):
    """The way from candidates to one answer: ranked, fused, and the fused answer judged.

    Args:
        output: The answer that is returned: the fused text, or the best candidate.
        returned: Which of the two `output` is.
        ranking: The ranking of the candidates.
        fusion: What the fuser wrote; None if there was nothing to fuse (fewer than two different candidates).
        comparison: The fused text (a) against the best candidate (b); None without a fusion.
    """

    output: str
    returned: Returned
    ranking: Ranking
    fusion: Fusion | None
    comparison: Comparison | None

    @property
    def best(self) -> str:
        """Text of the best candidate."""
        return self.ranking.best

    @property
    def fused(self) -> str | None:
        """The fused text, whether it was returned or not."""
        return None if self.fusion is None else self.fusion.text

    @property
    def fused_from(self) -> tuple[int, ...]:
        """Indices of the candidates that were fused, the best first."""
        return () if self.fusion is None else self.fusion.fused_from

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists and numbers that JSON can hold."""
        short = {"best": self.best, "fused": self.fused, "fused_from": list(self.fused_from)}
        return {**super().to_dict(), **short}


def _plain(value: Any) -> Any:
    if isinstance(value, _Result):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
