"""Rankers that are made of others: a mixture, a cascade, and minimum Bayes risk."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from statistics import fmean
from threading import Lock

import numpy as np

from blender_hf.errors import InputError, require
from blender_hf.inputs import Item, make_item
from blender_hf.modeling.ranking_math import probability_of

from .rankers import Ranker
from .results import Comparison
from .schedules import Schedule
from .scorer import Presentation

SEPARATOR = "|"
CHRF = "chrf"
WEIGHTED = re.compile(r"(\d+(?:\.\d+)?)\*(.+)")
BAND = re.compile(r"(\d?\.?\d+)-(\d?\.?\d+)")
# The logits of pairs, by the pair that was presented.
Logits = dict[tuple[str, str, str], float]


class Mixture:
    """A pairwise ranker whose logit is the weighted sum of those of others, each divided by its temperature.

    Args:
        rankers: The rankers, such as `Blender(...).ranker`.
        weights: One for each, at least 0; None is the same for all, with the sum 1.

    Raises:
        InputError: If there are fewer than two rankers, or the weights can't be used.
    """

    def __init__(self, rankers: Sequence[Ranker], weights: Sequence[float] | None = None) -> None:
        if len(rankers) < 2:
            raise InputError(f"a mixture needs two rankers or more, and has {len(rankers)}")
        self.rankers = tuple(rankers)
        self.weights = (1 / len(rankers),) * len(rankers) if weights is None else tuple(map(float, weights))
        usable = all(math.isfinite(weight) and weight >= 0 for weight in self.weights) and any(self.weights)
        if len(self.weights) != len(self.rankers) or not usable:
            raise InputError(
                f"the weights {list(self.weights)} of {len(rankers)} rankers; give one for each, 0 or more, not all 0"
            )

    @classmethod
    def fitted(cls, rankers: Sequence[Ranker], items: Sequence[Item], labels: Sequence[float]) -> "Mixture":
        """Make a mixture with the weights of maximum likelihood, so that its logits are calibrated too.

        Args:
            rankers: The rankers.
            items: Prompts with two candidates each, which no ranker was trained on.
            labels: The probability, 0 to 1, that the first is the better one.

        Raises:
            InputError: If there is nothing to learn from.
            BlenderError: If SciPy is not installed.
        """
        minimize = require("scipy.optimize", "evaluate", "fitting weights").minimize
        if not items or len(items) != len(labels):
            raise InputError(f"{len(items)} pairs and {len(labels)} labels; give one of each for every pair")
        logits = np.array([[_calibrated(one.logit, one) for one in ranker.compare(items)] for ranker in rankers])
        judged = np.asarray(labels, dtype=float)

        def loss(weights: np.ndarray) -> float:
            mixed = weights @ logits
            return float(np.mean(np.logaddexp(0, mixed) - judged * mixed))

        start = np.full(len(rankers), 1 / len(rankers))
        found = minimize(loss, start, bounds=[(0, None)] * len(rankers)).x
        return cls(rankers, found.tolist())

    def logits(self, presentations: Sequence[Presentation]) -> list[float]:
        """Compare the two candidates of each presentation; see `PairwiseRanker`."""
        # A ranker without weight is not asked.
        parts = [(w, _compared(one, presentations)) for w, one in zip(self.weights, self.rankers, strict=True) if w]
        return [math.fsum(weight * found[_key(p)] for weight, found in parts) for p in presentations]


class Cascade:
    """A pairwise ranker that asks an expensive one only about the pairs that a cheap one is not sure of.

    Args:
        cheap: It compares every pair.
        expensive: Its logit replaces that of the cheap one where the probability of the latter, in the mean of both
            presentation orders, lies inside the band.
        band: From where to where; both ends belong to it.

    Raises:
        InputError: If the band is not inside 0 to 1 around 0.5.
    """

    def __init__(self, cheap: Ranker, expensive: Ranker, band: tuple[float, float] = (0.25, 0.75)) -> None:
        if not 0 <= band[0] <= 0.5 <= band[1] <= 1:
            raise InputError(f"the band {band[0]:g}-{band[1]:g} must be inside 0-1 and hold 0.5, as 0.25-0.75 does")
        self.cheap, self.expensive, self.band = cheap, expensive, band
        #: Pairs that were compared, and those of them that the expensive ranker was asked about.
        self.compared = self.asked = 0
        self._lock = Lock()

    def logits(self, presentations: Sequence[Presentation]) -> list[float]:
        """Compare the two candidates of each presentation; see `PairwiseRanker`."""
        found = _compared(self.cheap, presentations)
        unsure = [p for p in presentations if self._is_unsure(found, p)]
        with self._lock:
            self.compared += len(_pairs(presentations))
            self.asked += len(_pairs(unsure))
        found |= _compared(self.expensive, unsure) if unsure else {}
        return [found[_key(p)] for p in presentations]

    def _is_unsure(self, found: Logits, p: Presentation) -> bool:
        logit = (found[p.source, p.first, p.second] - found[p.source, p.second, p.first]) / 2
        # Both orders of a pair must be judged alike, so the side that is likelier decides.
        likelier = probability_of(abs(logit), 1.0)
        return likelier <= self.band[1] or 1 - likelier >= self.band[0]


class MinimumBayesRisk:
    """A pointwise ranker that prefers the candidate which the other candidates support most (Kumar and Byrne 2004).

    Args:
        utility: How good a candidate is if another one is the reference, from 0 to 1. A ranker gives the probability
            that the candidate is better than the other one; None takes chrF, the share of common characters.

    Raises:
        BlenderError: If chrF is meant and sacrebleu is not installed.
    """

    def __init__(self, utility: Ranker | None = None) -> None:
        self._ranker = utility
        if utility is None:
            self._chrf = require("sacrebleu.metrics", "evaluate", "minimum Bayes risk with chrF").CHRF()

    def scores(self, items: Sequence[Item]) -> list[list[float]]:
        """Return the mean utility of each candidate against the others; see `PointwiseRanker`."""
        if self._ranker is not None:
            rankings = self._ranker.rank(items, Schedule(), "max_logits")
            return [[one.win_probability(index) for index in range(len(one.candidates))] for one in rankings]
        return [self._by_chrf(item.texts) for item in items]

    def _by_chrf(self, texts: Sequence[str]) -> list[float]:
        pairs = permutations(dict.fromkeys(texts), 2)
        found = {pair: self._chrf.sentence_score(pair[0], [pair[1]]).score / 100 for pair in pairs}
        means = []
        for index, text in enumerate(texts):
            others = [found.get((text, other), 1.0) for k, other in enumerate(texts) if k != index]
            means.append(fmean(others) if others else 1.0)
        return means


def mixture_of(argument: str, load: Callable[[str], Ranker]) -> Mixture:
    """Return the mixture that a text describes, "0.7*pair-ranker-mini|0.3*org/reward-model" or without weights.

    `load` loads a ranker by its name. Raises InputError if the text can't be read.
    """
    parts = _parts(argument)
    found = [WEIGHTED.fullmatch(part) for part in parts]
    if any(found) and not all(found):
        raise InputError(f"{argument!r}: give a weight to each ranker, as in 0.7*pair-ranker-mini, or to none")
    names = [part if match is None else match[2] for part, match in zip(parts, found, strict=True)]
    weights = [float(match[1]) for match in found if match is not None]
    return Mixture([load(name) for name in names], weights or None)


def cascade_of(argument: str, load: Callable[[str], Ranker]) -> Cascade:
    """Return the cascade that a text describes, "0.25-0.75|pair-ranker-mini|org/large"; see `mixture_of`."""
    parts = _parts(argument)
    band = BAND.fullmatch(parts[0])
    if band is None or len(parts) != 3:
        raise InputError(f"{argument!r}: write cascade:0.25-0.75|CHEAP|EXPENSIVE, the band of probabilities first")
    return Cascade(load(parts[1]), load(parts[2]), (float(band[1]), float(band[2])))


def minimum_bayes_risk_of(argument: str, load: Callable[[str], Ranker]) -> MinimumBayesRisk:
    """Return minimum Bayes risk by a utility, "chrf" or the name of a ranker; see `mixture_of`."""
    return MinimumBayesRisk(None if argument == CHRF else load(argument))


def _parts(argument: str) -> list[str]:
    parts = [part.strip() for part in argument.split(SEPARATOR)]
    if not all(parts):
        raise InputError(f"{argument!r} has an empty part; its parts are separated by one {SEPARATOR}")
    return parts


def _key(p: Presentation) -> tuple[str, str, str]:
    return p.source, p.first, p.second


def _pairs(presentations: Iterable[Presentation]) -> dict[tuple[str, frozenset[str]], Presentation]:
    """Return a presentation of each pair, whichever of its orders there are."""
    return {(p.source, frozenset((p.first, p.second))): p for p in presentations}


def _compared(ranker: Ranker, presentations: Sequence[Presentation]) -> Logits:
    """Return the logits of both orders of each pair, each divided by the temperature; a pair is compared once."""
    pairs = list(_pairs(presentations).values())
    found: Logits = {}
    for p, one in zip(pairs, ranker.compare([_item(p) for p in pairs]), strict=True):
        found[p.source, p.first, p.second] = _calibrated(one.logit_ab, one)
        found[p.source, p.second, p.first] = _calibrated(one.logit_ba, one)
    return found


def _item(p: Presentation) -> Item:
    is_text = not p.messages or (len(p.messages) == 1 and p.messages[0].get("content") == p.source)
    return make_item(p.source if is_text else list(p.messages), [p.first, p.second])


def _calibrated(logit: float, comparison: Comparison) -> float:
    return logit / comparison.temperature
