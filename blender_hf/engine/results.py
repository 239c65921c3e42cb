"""Results that can't be misread: every field has a name, a unit and one direction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, Literal

from blender_hf.errors import chosen
from blender_hf.inputs import Item
from blender_hf.modeling.ranking_math import (
    Preferred,
    count_cycles,
    is_flip,
    mean_logit,
    order_of,
    preferred_of,
    probability_of,
    ranks_of,
)

from .aggregation import AGGREGATIONS, complete

Returned = Literal["fused", "best"]
Matrix = tuple[tuple[float, ...], ...]

# The schedule of rankings whose candidates were scored one by one.
POINTWISE = "pointwise"


class _Result:
    KEYS: ClassVar[tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists and numbers that JSON can hold; NaN becomes None."""
        return {key: _plain(getattr(self, key)) for key in self.KEYS}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={getattr(self, key)!r}' for key in self.KEYS)})"


@dataclass(frozen=True, repr=False)
class Truncation(_Result):
    """Tokens cut from the texts because they were too long for the model; true if there are any.

    Args:
        prompt: Tokens cut from the prompt.
        candidates: Tokens cut from each candidate, in the order of the candidates.
    """

    KEYS = ("prompt", "candidates")

    prompt: int
    candidates: tuple[int, ...]

    def __bool__(self) -> bool:
        return self.prompt > 0 or any(self.candidates)


@dataclass(frozen=True, repr=False)
class Unread(_Result):
    """What a model could not read of texts that it was given; true if there is anything.

    Case, accents, line breaks and the like, which some tokenizers drop from every text, are not counted.

    Args:
        prompt: Unknown tokens of the prompt, cut ones included: each stands for a word or for characters, such as those
            of another script or an emoji, that the tokenizer does not know.
        candidates: Unknown tokens of each candidate, in the order of the candidates.
        indistinguishable: Groups of indices of candidates whose texts differ, but are the same tokens to the model, so
            that they tie whatever they say.
    """

    KEYS = ("prompt", "candidates", "indistinguishable")

    prompt: int
    candidates: tuple[int, ...]
    indistinguishable: tuple[tuple[int, ...], ...] = ()

    def __bool__(self) -> bool:
        return self.prompt > 0 or any(self.candidates) or bool(self.indistinguishable)

    def described(self) -> str:
        """Return it in words; empty if there is nothing."""
        named = {"the prompt": self.prompt} | {f"candidate {k}": count for k, count in enumerate(self.candidates)}
        counts = ", ".join(f"{count} of {name}" for name, count in named.items() if count)
        same = "; ".join(" and ".join(f"{k}" for k in group) for group in self.indistinguishable)
        parts = (f"unknown tokens: {counts}" if counts else "", f"the same tokens: candidates {same}" if same else "")
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, repr=False)
class Ranking(_Result):
    """The candidates of one prompt in order, with every logit of the model.

    Args:
        candidates: The texts, in the order in which they were given.
        models: The names of their models, None where unknown.
        order: Indices of the candidates, the best first. Among equals the one given first comes first.
        ranks: For each candidate its rank, 1 is the best. Equal scores share a rank, and the next is skipped (1, 1, 3).
        scores: For each candidate its score, higher is better. For "max_logits", the mean logit against the others.
        logits: (candidates, candidates). Entry [i][j] is the logit with i presented first, positive if i wins. NaN on
            the diagonal and for presentations that were not scored; identical texts tie with 0. Of a pointwise ranker,
            the differences of its scores.
        temperature: Divides a logit before its sigmoid is taken as a probability.
        truncated: What was cut from the texts.
        schedule: Name of the schedule that chose the comparisons; "pointwise" if candidates were scored one by one,
            "full" if they were encoded one by one, since all pairs are compared then.
        unread: What the model could not read of the texts; None if an object that scores by itself does not say.
        n_encodings: How many texts the model read: the presentations of pairs that are read together, or the different
            candidates that are read by themselves. None if an object that scores by itself does not say.
    """

    KEYS = (
        *("candidates", "models", "order", "ranks", "scores", "comparisons", "n_comparisons", "n_encodings"),
        *("flip_rate", "n_cycles", "truncated", "unread", "schedule", "best"),
    )

    candidates: tuple[str, ...]
    models: tuple[str | None, ...]
    order: tuple[int, ...]
    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    logits: Matrix
    temperature: float
    truncated: Truncation
    schedule: str
    unread: Unread | None = None
    n_encodings: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Tuples are equal if they hold the same NaN object, so a copy gets the one that all rankings hold.
        rows = (tuple(math.nan if math.isnan(logit) else logit for logit in row) for row in state["logits"])
        vars(self).update(state, logits=tuple(rows))

    @cached_property
    def comparisons(self) -> Matrix:
        """(candidates, candidates). Entry [i][j] is the logit of i against j, positive if i is better.

        It is the mean of both presentation orders, or the logit of the only one that was scored; [i][j] = -[j][i]. NaN
        where i and j were not compared, and on the diagonal.
        """
        return mean_logits(self.logits)

    @cached_property
    def inferred(self) -> Matrix:
        """`comparisons`, with those that were not made inferred from the others; NaN only on the diagonal."""
        return infer(self.candidates, self.comparisons)

    @property
    def n_comparisons(self) -> int:
        """How many pairs the model compared, of `n_possible`; 0 for a pointwise ranker."""
        return len(self._compared)

    @property
    def n_possible(self) -> int:
        """How many pairs of different candidates there are."""
        return math.comb(len(set(self.candidates)), 2)

    @property
    def flip_rate(self) -> float | None:
        """Share, 0 to 1, of the compared pairs whose winner changes when the presentation order is swapped.

        None if nothing was compared, or in one order only.
        """
        flips = [self.flipped(*pair) for pair in self._compared]
        return None if None in flips or not flips else sum(map(bool, flips)) / len(flips)

    @property
    def n_cycles(self) -> int:
        """How many triples i > j > k > i there are: 0 if the comparisons are transitive."""
        return count_cycles(self.comparisons)

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

    def probability(self, i: int, j: int) -> float:
        """Return the probability, 0 to 1, that candidate i is better than j, inferred if they were not compared."""
        return 0.5 if i == j else probability_of(self.inferred[i][j], self.temperature)

    def win_probability(self, i: int) -> float:
        """Return the mean probability that candidate i is better than each other one; 0.5 for a single candidate."""
        others = [j for j in range(len(self.candidates)) if j != i]
        return math.fsum(self.probability(i, j) for j in others) / len(others) if others else 0.5

    def flipped(self, i: int, j: int) -> bool | None:
        """Return whether the winner of i and j changes with the presentation order; None if only one was scored."""
        if i == j:
            return False
        both = self.logits[i][j], self.logits[j][i]
        return None if any(map(math.isnan, both)) else is_flip(*both)

    @cached_property
    def _compared(self) -> list[tuple[int, int]]:
        """The pairs of different texts that the model compared."""
        if self.schedule == POINTWISE:
            return []
        different = sorted(map(self.candidates.index, set(self.candidates)))
        return [(i, j) for i, j in combinations(different, 2) if not math.isnan(self.comparisons[i][j])]


def make_ranking(
    item: Item,
    logits: Matrix,
    aggregation: str,
    *,
    temperature: float,
    truncated: Truncation,
    schedule: str,
    unread: Unread | None = None,
    scores: tuple[float, ...] | None = None,
    n_encodings: int | None = None,
) -> Ranking:
    """Return the ranking of an item's candidates by their aggregated logits, or by given scores."""
    if scores is None:
        scores = chosen(AGGREGATIONS, aggregation, "aggregation")(infer(item.texts, mean_logits(logits)))
    return Ranking(
        candidates=item.texts,
        models=tuple(candidate.model for candidate in item.candidates),
        order=order_of(scores),
        ranks=ranks_of(scores),
        scores=scores,
        logits=logits,
        temperature=temperature,
        truncated=truncated,
        schedule=schedule,
        unread=unread,
        n_encodings=n_encodings,
    )


@dataclass(frozen=True, repr=False)
class Comparison(_Result):
    """Two candidates of one prompt against each other.

    Args:
        logit_ab: The logit with a presented first; positive favours a.
        logit_ba: The logit with b presented first; positive favours b.
        truncated: What was cut; its candidates are a and b.
        temperature: Divides a logit before its sigmoid is taken as a probability.
        tie_threshold: How far from 0.5 the probability of a tie may be.
        unread: What the model could not read of the texts, as in a `Ranking`; its candidates are a and b.
    """

    KEYS = ("preferred", "logit", "probability", "logit_ab", "logit_ba", "truncated", "unread")

    logit_ab: float
    logit_ba: float
    truncated: Truncation
    temperature: float = 1.0
    tie_threshold: float = 0.0
    unread: Unread | None = None

    @property
    def logit(self) -> float:
        """Positive if a is better: (logit_ab - logit_ba) / 2, the mean of both presentation orders."""
        return mean_logit(self.logit_ab, self.logit_ba)

    @property
    def probability(self) -> float:
        """Probability, 0 to 1, that a is better."""
        return probability_of(self.logit, self.temperature)

    @property
    def preferred(self) -> Preferred:
        """Which one is better; "tie" if neither is."""
        return preferred_of(self.probability, self.tie_threshold)

    @property
    def flipped(self) -> bool:
        """Whether the winner changes when the presentation order is swapped."""
        return is_flip(self.logit_ab, self.logit_ba)


@dataclass(frozen=True, repr=False)
class Fusion(_Result):
    """One answer that was written from several candidates.

    Args:
        text: The fused answer.
        fused_from: Indices of the candidates that the fuser read, the best first.
        truncated: What was cut; its candidates are those of `fused_from`, in that order.
        unread: What the fuser could not read of them, likewise; None for a chat model, which does not say.
        unfinished: Whether the text ends where it does only because the fuser might write no more tokens.
    """

    KEYS = ("text", "fused_from", "truncated", "unread", "unfinished")

    text: str
    fused_from: tuple[int, ...]
    truncated: Truncation
    unread: Unread | None = None
    unfinished: bool = False


@dataclass(frozen=True, repr=False)
class Blend(_Result):
    """The candidates ranked, the best fused, and the fused answer compared with the best.

    Args:
        output: The answer that is returned: the fused text, or the best candidate.
        returned: Which of the two `output` is.
        ranking: The ranking of the candidates.
        fusion: What the fuser wrote; None if there was nothing to fuse (fewer than two different candidates), or if the
            fuser failed.
        comparison: The fused text (a) against the best candidate (b); None without a fusion.
        fusion_error: Why the fuser failed; None if it did not, or was not asked.
    """

    KEYS = ("output", "returned", "ranking", "fusion", "comparison", "best", "fused", "fused_from", "fusion_error")

    output: str
    returned: Returned
    ranking: Ranking
    fusion: Fusion | None
    comparison: Comparison | None
    fusion_error: str | None = None

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


def mean_logits(logits: Matrix) -> Matrix:
    """Return the mean of both presentation orders for each pair; where one was not scored, the other."""

    def mean(ab: float, ba: float) -> float:
        if math.isnan(ab):
            return math.nan if math.isnan(ba) else -ba
        return ab if math.isnan(ba) else mean_logit(ab, ba)

    return tuple(tuple(mean(ab, logits[j][i]) for j, ab in enumerate(row)) for i, row in enumerate(logits))


def infer(texts: Sequence[str], comparisons: Matrix) -> Matrix:
    """Return `complete` comparisons of candidates; how often a text occurs changes nothing."""
    # In an order of the texts alone, so that permuting candidates permutes the result to the last bit.
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    first = [texts.index(text) for text in places]
    filled = complete([[comparisons[i][j] for j in first] for i in first])

    def entry(i: int, j: int) -> float:
        return 0.0 if i != j and texts[i] == texts[j] else filled[places[texts[i]]][places[texts[j]]]

    return tuple(tuple(entry(i, j) for j in range(len(texts))) for i in range(len(texts)))


def _plain(value: Any) -> Any:
    if isinstance(value, _Result):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
