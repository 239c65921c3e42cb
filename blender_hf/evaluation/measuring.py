"""What one prompt contributes to each figure, given a prediction."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from blender_hf.data.labelled import JudgedPair, LabelledPrompt, gold_scores, win_shares
from blender_hf.modeling.ranking_math import count_cycles

from . import rankings
from .pairwise import credits
from .predictors import Capabilities, Prediction, matrix_of

# The figures, in the order of a report: what each means, and whether more of it is better.
FIGURES: dict[str, tuple[str, bool]] = {
    "accuracy": ("share of the decided pairs in which the ranker agrees with the annotator; chance is 0.5", True),
    "accuracy, ties missed": ("the same over all pairs, with ties counted as errors, as on PairRM's card", True),
    "accuracy, three-way": ("share of all pairs in which ranker and annotator agree on a, b or tie", True),
    "accuracy, one order": ("accuracy with each pair presented once, in the order of the data", True),
    "flips": ("share of the pairs whose winner changes with the presentation order", False),
    "cycles": ("share of the triples of candidates that beat each other in a circle", False),
    "pearson": (
        "correlation of the scores with the gold scores, mean over prompts of three or more candidates",
        True,
    ),
    "spearman": ("rank correlation with the gold scores, mean over the same prompts", True),
    "kendall": ("Kendall's tau-b with the gold scores, mean over the same prompts", True),
    "footrule": ("distance from the gold ranks, relative to the maximum", False),
    "top-1 found": ("share of the prompts whose chosen candidate is one of the best", True),
    "top-1 regret": ("gap between the best and the chosen candidate, relative to that between best and worst", False),
    "win rate": ("share of its judged pairs that the chosen candidate wins", True),
}

# The order of two candidates is a comparison, and measured as one.
MIN_RANKED = 3
# Both take the scores and the gold scores; correlations need scores that are not all equal.
CORRELATIONS: dict[str, Callable[[Sequence[float], Sequence[float]], float | None]] = {
    "pearson": rankings.pearson,
    "spearman": rankings.spearman,
    "kendall": rankings.kendall,
    "footrule": rankings.relative_footrule,
}
CHOICES: dict[str, Callable[[Sequence[float], Sequence[float]], float | None]] = {
    "top-1 found": rankings.top1_found,
    "top-1 regret": rankings.top1_regret,
}


class Evidence(NamedTuple):
    """What a comparison says of a judged pair; everything is positive for its a."""

    leaning: float  # probability less 0.5
    logit: float  # mean of both presentation orders
    logit_first: float  # with a read first


def measure(
    prompt: LabelledPrompt,
    prediction: Prediction,
    capabilities: Capabilities,
    *,
    gold: str | None = None,
    tie_threshold: float = 0.0,
) -> dict[str, tuple[float, float]]:
    """Return the numerator and denominator that a prompt contributes to each figure, see `bootstrap`.

    A probability within `tie_threshold` of 0.5 is a tie; without probabilities only equal scores are.
    """
    added = _of_pairs(prompt, prediction, capabilities, tie_threshold)
    if prediction.scores is not None:
        added |= _of_ranking(prompt, prediction, prediction.scores, capabilities, gold)
    return {name: ratio for name, ratio in added.items() if ratio[1]}


def probabilities_of(prompt: LabelledPrompt, prediction: Prediction) -> tuple[list[float], list[float]]:
    """Return for the judged pairs the predicted probability that a is better, and the label."""
    probabilities = [evidence_of(pair, prediction).leaning + 0.5 for pair in prompt.pairs]
    return probabilities, [pair.label for pair in prompt.pairs]


def cycles_and_triples(comparisons: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return the number of triples that beat each other in a circle, and of all triples without a NaN."""
    known = [[not math.isnan(logit) for logit in row] for row in comparisons]
    triples = combinations(range(len(comparisons)), 3)
    return count_cycles(comparisons), sum(known[i][j] and known[j][k] and known[i][k] for i, j, k in triples)


def _of_pairs(
    prompt: LabelledPrompt, prediction: Prediction, capabilities: Capabilities, tie_threshold: float
) -> dict[str, tuple[float, float]]:
    labels = [pair.label for pair in prompt.pairs]
    evidence = [evidence_of(pair, prediction) for pair in prompt.pairs]
    logits = [found.logit for found in evidence]
    added = {
        "accuracy": _total(credits(logits, labels)),
        "accuracy, ties missed": _total(credits(logits, labels, ties="errors")),
    }
    if capabilities.ties:
        leanings = [found.leaning for found in evidence] if capabilities.probabilities else logits
        threshold = tie_threshold if capabilities.probabilities else 0.0
        added["accuracy, three-way"] = _total(credits(leanings, labels, ties="three-way", tie_threshold=threshold))
    if capabilities.both_orders:
        added["accuracy, one order"] = _total(credits([found.logit_first for found in evidence], labels))
        added["flips"] = _total([float(comparison.flipped) for comparison in prediction.comparisons.values()])
    return added


def _of_ranking(
    prompt: LabelledPrompt,
    prediction: Prediction,
    scores: Sequence[float],
    capabilities: Capabilities,
    gold: str | None,
) -> dict[str, tuple[float, float]]:
    added: dict[str, tuple[float, float]] = {}
    if capabilities.both_orders:
        cycles, triples = cycles_and_triples(matrix_of(prediction.comparisons, len(scores)))
        added["cycles"] = (float(cycles), float(triples))
    worth = gold_scores(prompt, gold)
    if worth is not None:
        ranked = len(scores) >= MIN_RANKED and len(set(scores)) > 1
        functions: Mapping[str, Callable[..., float | None]] = (CORRELATIONS if ranked else {}) | CHOICES
        added |= {name: _total([function(scores, worth)]) for name, function in functions.items()}
    added["win rate"] = _total([rankings.win_rate(scores, win_shares(prompt))])
    return added


def evidence_of(pair: JudgedPair, prediction: Prediction) -> Evidence:
    """Return what a prediction says of a judged pair."""
    if pair.a < pair.b:
        found = prediction.comparisons[pair.a, pair.b]
        return Evidence(found.probability - 0.5, found.logit, found.logit_ab)
    found = prediction.comparisons[pair.b, pair.a]
    return Evidence(0.5 - found.probability, -found.logit, found.logit_ba)


def _total(values: Sequence[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return float(sum(known)), float(len(known))
