"""Schedules: which pairs of candidates are compared next, given what is known.

A schedule is a generator over the candidates 0 to n - 1 of one prompt. It yields rounds, lists of pairs (i, j), and is
sent their logits, positive where i is the better one. The rounds of all prompts are scored together, so few rounds
make large batches. Nothing here is random: the order in which the candidates are numbered is the caller's.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from numbers import Integral, Real

import numpy as np

from blender_hf.errors import InputError, InputTypeError, chosen

Pair = tuple[int, int]
Rounds = Generator[list[Pair], Sequence[float], None]

# Standard deviation of pair-specific noise, relative to that of the scores. Above what benchmarks/schedules.py measures
# on real candidates, so that other rankers may contradict themselves more.
INTRANSITIVITY = 0.35
# How often a candidate is compared in a round of "adaptive": more makes fewer rounds, and some comparisons in vain.
MAX_MEETINGS = 3


@dataclass(frozen=True)
class Schedule:
    """How the comparisons of a prompt are chosen.

    Args:
        name: One of `SCHEDULES`.
        top_k: How many of the best matter; None is the schedule's own: all for "full" and "adaptive", else the best.
            "adaptive" makes sure which is the best and which are the K best; "knockout" and "bubble" play for each
            place.
        orders: "both" presents each pair in both orders and takes the mean; "one" in one, chosen by a seeded hash of
            the texts, which is half the work, and leaves the model's position bias in the logits.
        confidence: For "adaptive", the probability, above 0 and below 1, at which comparing stops.
        seed: Seed of the hash that orders the candidates: who meets whom first, and which is presented first. At least
            0.
        seek: Whether `top_k` counts from the "best" or from the "worst".

    Raises:
        InputError: If an option does not exist or is out of range.
    """

    name: str = "full"
    top_k: int | None = None
    orders: str = "both"
    confidence: float = 0.95
    seed: int = 0
    seek: str = "best"

    def __post_init__(self) -> None:
        chosen(SCHEDULES, self.name, "schedule")
        chosen(dict.fromkeys(("both", "one")), self.orders, "orders")
        chosen(dict.fromkeys(("best", "worst")), self.seek, "seek")
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**64:
            raise InputError(f"seed={self.seed!r}; use a whole number of 0 or more")
        if self.top_k is not None and (not _is_whole(self.top_k) or self.top_k < 1):
            raise InputError(f"top_k={self.top_k!r}; ask for 1 or more of the best candidates, or None")
        if not isinstance(self.confidence, Real) or not 0 < self.confidence < 1:
            raise InputError(f"confidence={self.confidence!r}; it is a probability above 0 and below 1")

    def rounds(self, n: int) -> Rounds:
        """Start the schedule for n candidates."""
        return SCHEDULES[self.name](n, self)

    def max_comparisons(self, n: int) -> int:
        """Return how many pairs of n different candidates are compared at most, each in one or both orders."""
        pairs, places = n * (n - 1) // 2, min(self.top_k or 1, n)
        rounds = math.ceil(math.log2(n)) if n > 1 else 0
        if self.name == "knockout":
            return min(pairs, n - 1 + (places - 1) * (places - 1 + rounds)) if n else 0
        if self.name == "bubble":
            return sum(n - 1 - place for place in range(places))
        return min(pairs, n * rounds) if self.name == "adaptive" and self.top_k is None else pairs


def as_schedule(schedule: str | Schedule, top_k: int | None = None, orders: str = "both") -> Schedule:
    """Return a schedule by its name, or a given one, with the options stated beside it."""
    if isinstance(schedule, str):
        return Schedule(schedule, top_k, orders)
    if not isinstance(schedule, Schedule):
        names = ", ".join(SCHEDULES)
        raise InputTypeError(f"schedule={schedule!r} is neither a `Schedule` nor the name of one: {names}")
    return replace(
        schedule,
        top_k=schedule.top_k if top_k is None else top_k,
        orders=schedule.orders if orders == "both" else orders,
    )


def full(n: int, schedule: Schedule) -> Rounds:
    """Compare all pairs in one round: n (n - 1) / 2 comparisons (paper, section 3.4)."""
    yield list(combinations(range(n), 2))


def bubble(n: int, schedule: Schedule) -> Rounds:
    """Let the better one of two neighbours rise: n - 1 comparisons, one a round, for the best (paper, section 3.4).

    There are `top_k` passes; known comparisons are not repeated.
    """
    order, known = list(range(n)), _Known()
    for place in range(min(schedule.top_k or 1, n)):
        for at in range(n - 1, place, -1):
            pair = order[at - 1], order[at]
            yield from known.ask([pair])
            if known.winner(*pair) != pair[0]:
                order[at - 1], order[at] = order[at], order[at - 1]


def knockout(n: int, schedule: Schedule) -> Rounds:
    """Play a tournament: n - 1 comparisons in log2 n rounds for the best.

    Each further place of `top_k` is played by those who lost only against the places before: log2 n comparisons more.
    """
    known, placed = _Known(), list[int]()
    for _ in range(min(schedule.top_k or 1, n)):
        standing = [i for i in range(n) if i not in placed and known.beaten_by(i) <= set(placed)]
        placed.append((yield from _tournament(standing, known)))


def adaptive(n: int, schedule: Schedule) -> Rounds:
    """Begin with a tournament, then compare the most informative pairs while the answer is in doubt.

    A logit is taken as the difference of two scores and a noise that is particular to the pair, both normal. That gives
    the probability of every error in the order that all comparisons would give. With `top_k` it ends when both the best
    one and the set of the top K are right with the stated confidence (by the union bound), else when the expected share
    of wrongly ordered pairs is below 1 - confidence, or after n log2 n comparisons.
    """
    if n < 2:
        return
    known, pairs = _Known(), n * (n - 1) // 2
    yield from _tournament(range(n), known)
    limit = pairs if schedule.top_k else min(pairs, n * math.ceil(math.log2(n)))
    while len(known.logits) < limit:
        doubts = _doubts(*expected_scores(n, known.logits), schedule.top_k)
        risk = doubts.sum() / (1 if schedule.top_k else pairs)
        if risk < 1 - schedule.confidence:
            return
        yield from known.ask(_most_telling(doubts, known.logits)[: limit - len(known.logits)])


SCHEDULES: dict[str, Callable[[int, Schedule], Rounds]] = {
    "full": full,
    "bubble": bubble,
    "knockout": knockout,
    "adaptive": adaptive,
}


def _is_whole(value: object) -> bool:
    """Return whether this is an integer, numpy's among them, and no boolean."""
    return isinstance(value, Integral) and not isinstance(value, bool)


class _Known:
    """The comparisons that were made; each is asked once."""

    def __init__(self) -> None:
        self.logits: dict[Pair, float] = {}

    def ask(self, pairs: Sequence[Pair]) -> Rounds:
        """Ask for those pairs that are not known in either order."""
        fresh = [(i, j) for i, j in pairs if (i, j) not in self.logits and (j, i) not in self.logits]
        if fresh:
            logits = yield fresh
            self.logits |= zip(fresh, logits, strict=True)

    def winner(self, i: int, j: int) -> int:
        """Return the better one, of two equals the first."""
        logit = self.logits[i, j] if (i, j) in self.logits else -self.logits[j, i]
        return i if logit >= 0 else j

    def beaten_by(self, i: int) -> set[int]:
        """Return who won against i."""
        return {self.winner(*pair) for pair in self.logits if i in pair} - {i}


def _tournament(players: Sequence[int], known: _Known) -> Generator[list[Pair], Sequence[float], int]:
    """Play until one is left, and return it."""
    standing = list(players)
    while len(standing) > 1:
        # The one left over comes first in the next round, so that nobody sits out twice.
        over, playing = standing[len(standing) // 2 * 2 :], standing[: len(standing) // 2 * 2]
        pairs = list(zip(playing[::2], playing[1::2], strict=True))
        yield from known.ask(pairs)
        standing = over + [known.winner(*pair) for pair in pairs]
    return standing[0]


def expected_scores(n: int, logits: dict[Pair, float]) -> tuple[np.ndarray, np.ndarray]:
    """Predict from some comparisons the mean logits, (n,), that all comparisons of n candidates would give.

    The second result is the standard deviation of each difference of two, (n, n).
    """
    asked = np.zeros((n, n))
    known = np.zeros((n, n))
    for (i, j), logit in logits.items():
        asked[i, j] = asked[j, i] = 1.0
        known[i, j], known[j, i] = logit, -logit
    precision = _laplacian(asked) + INTRANSITIVITY**2 * np.eye(n)
    covariance = np.linalg.inv(precision)
    scores = covariance @ known.sum(axis=1)
    residuals = [logit - (scores[i] - scores[j]) for (i, j), logit in logits.items()]
    prior = INTRANSITIVITY**2 * scores @ scores
    noise = (sum(r * r for r in residuals) + prior) / max(len(logits), 1) or 1.0
    # A comparison that was not made counts with what the scores say of it.
    inferred = _laplacian(1 - asked - np.eye(n)) / (n - 1)
    means = known.sum(axis=1) / (n - 1) + inferred @ scores
    spread = noise * (inferred @ covariance @ inferred.T + inferred / (n - 1))
    variances = np.diag(spread)[:, None] + np.diag(spread)[None, :] - 2 * spread
    return means, np.sqrt(np.maximum(variances, 0))


def _laplacian(weights: np.ndarray) -> np.ndarray:
    return np.diag(weights.sum(axis=1)) - weights


def _doubts(means: np.ndarray, deviations: np.ndarray, top_k: int | None) -> np.ndarray:
    """Return for each two candidates the probability that their order is wrong, 0 where it does not matter."""
    n = len(means)
    place = np.empty(n, dtype=int)
    place[np.argsort(-means, kind="stable")] = np.arange(n)
    upper, lower = place[:, None], place[None, :]
    matters = upper < lower
    if top_k is not None:
        matters &= (upper == 0) | ((upper < top_k) & (lower >= top_k))
    doubts = np.zeros((n, n))
    leads = (means[:, None] - means[None, :])[matters]
    doubts[matters] = [_wrong(*of) for of in zip(leads.tolist(), deviations[matters].tolist(), strict=True)]
    return doubts


def _wrong(lead: float, deviation: float) -> float:
    """Return the probability that a normal quantity is negative."""
    return 0.5 * math.erfc(lead / (deviation * math.sqrt(2))) if deviation > 0 else 0.0


def _most_telling(doubts: np.ndarray, known: dict[Pair, float]) -> list[Pair]:
    """Choose the most doubtful pairs that were not compared: as many as half the candidates."""
    own = doubts.sum(axis=0) + doubts.sum(axis=1)
    weights = np.triu(own[:, None] + own[None, :] + doubts + doubts.T, k=1)
    for i, j in known:
        weights[min(i, j), max(i, j)] = 0.0
    least = weights.max() / 2
    first = np.argsort(-weights, axis=None, kind="stable")[: (len(own) + 1) // 2]
    chosen: list[Pair] = []
    for i, j in zip(*(axis.tolist() for axis in np.unravel_index(first, weights.shape)), strict=True):
        often = max(sum(k in other for other in chosen) for k in (i, j))
        if weights[i, j] >= least and often < MAX_MEETINGS:
            chosen.append((i, j))
    return chosen
