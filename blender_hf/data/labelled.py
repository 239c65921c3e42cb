"""Prompts with judged candidates: what every format of labelled data becomes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from blender_hf.engine.aggregation import max_logits
from blender_hf.errors import InputError
from blender_hf.inputs import Item

Pair = tuple[int, int]

UNKNOWN = "unknown"
# Minimum share of all pairs that must be judged for the judgments to count as a ranking.
MIN_JUDGED = 0.5


@dataclass(frozen=True)
class JudgedPair:
    """A judgment on two candidates of a prompt."""

    a: int  # index of one candidate
    b: int  # index of the other
    label: float  # the verdict: 1 if a is better, 0 if b is, 0.5 for a tie
    # for a tie, whether both are said to be good (True), bad (False), or nothing is said (None)
    tie_is_good: bool | None = None
    # the annotator's probability, or the share of the votes, 0 to 1, that a is better, if it is known
    soft_label: float | None = None

    @property
    def probability(self) -> float:
        """The soft label, or else the verdict: what a ranker is trained to say."""
        return self.label if self.soft_label is None else self.soft_label


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt with its candidates and what is known of their quality."""

    id: str  # the record's own id, or its number
    item: Item  # the prompt and the candidates
    pairs: tuple[JudgedPair, ...] = ()  # the judged pairs
    # by the name of a metric one finite score a candidate, higher is better; None where it is not given
    scores: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    source: str = UNKNOWN  # name of the collection
    lang: str = UNKNOWN  # code of the language, or "unknown"
    reference: str | None = None  # A good answer, if there is one
    license: str | None = None  # what the record says of its licence, if it says anything
    benchmark: str | None = None  # which of `benchmarks.BENCHMARKS` it is of; None if of none that is recognised

    @property
    def models(self) -> tuple[str | None, ...]:
        """The names of the models of the candidates."""
        return tuple(candidate.model for candidate in self.item.candidates)

    def complete_scores(self, metric: str) -> tuple[float, ...] | None:
        """Return the scores of a metric, or None where a candidate has none; NaN and infinity are none."""
        found = self.scores.get(metric, (None,))
        known = tuple(float(score) for score in found if score is not None and math.isfinite(score))
        return known if len(known) == len(found) else None


def without_reference(texts: Iterable[str], reference: str) -> list[str]:
    """Return the different texts, in their order, without empty ones and without those that are the reference.

    >>> without_reference(["4 ", "5", "5", " "], "4")
    ['5']
    """
    return [text for text in dict.fromkeys(texts) if text.strip() not in ("", reference.strip())]


def win_shares(prompt: LabelledPrompt) -> tuple[float | None, ...]:
    """Return for each candidate the share of its judged pairs that it wins, a tie counting one half.

    Several judgments of the same two candidates count as their mean, as one pair; None stands where there is no pair.
    """
    won: dict[int, list[float]] = defaultdict(list)
    for (i, j), labels in labels_by_pair(prompt).items():
        label = math.fsum(labels) / len(labels)
        won[i].append(label)
        won[j].append(1 - label)
    return tuple(math.fsum(won[i]) / len(won[i]) if won[i] else None for i in range(len(prompt.item.candidates)))


def labels_by_pair(prompt: LabelledPrompt) -> dict[Pair, list[float]]:
    """Return all labels of each two candidates i < j: 1 if i is better."""
    labels: dict[Pair, list[float]] = defaultdict(list)
    for pair in prompt.pairs:
        if pair.a < pair.b:
            labels[pair.a, pair.b].append(pair.label)
        else:
            labels[pair.b, pair.a].append(1 - pair.label)
    return labels


def gold_scores(prompt: LabelledPrompt, metric: str | None = None) -> tuple[float, ...] | None:
    """Return the gold scores of the candidates, higher is better, or None if one is unknown."""
    n = len(prompt.item.candidates)
    if n < 2:
        return None
    scores = prompt.complete_scores(metric or "score")
    if metric is not None or scores is not None:
        return scores
    labels = labels_by_pair(prompt)
    judged = {index for pair in labels for index in pair}
    if len(judged) < n or len(labels) < math.comb(n, 2) * MIN_JUDGED:
        return None
    verdicts = [[math.nan] * n for _ in range(n)]
    for (i, j), found in labels.items():
        verdicts[i][j] = 2 * math.fsum(found) / len(found) - 1
        verdicts[j][i] = -verdicts[i][j]
    # Digits beyond that are the noise of inference.
    return tuple(round(score, 9) for score in max_logits(verdicts))


def check_metric(prompts: Iterable[LabelledPrompt], metric: str) -> None:
    """Reject a metric that no prompt has scores of, with an `InputError` that lists those that exist."""
    known = sorted({name for prompt in prompts for name in prompt.scores})
    if metric not in known:
        raise InputError(f"no candidate has scores named {metric!r}; there are {', '.join(known) or 'none at all'}")
