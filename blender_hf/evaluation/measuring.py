"""What one prompt adds to each figure, given what a ranker says of it."""

from collections.abc import Callable, Mapping, Sequence

from blender_hf.data.labelled import JudgedPair, LabelledPrompt, gold_scores, win_shares

from . import rankings
from .consistency import cycles_and_triples
from .judges import Judge, Opinion, matrix_of
from .pairwise import credits

# The figures, in the order of a report: what each means, and whether more of it is better.
FIGURES: dict[str, tuple[str, bool]] = {
    "accuracy": ("share of the pairs that the annotator decided in which the ranker agrees; chance is 0.5", True),
    "accuracy, ties missed": (
        "the same over all pairs, where an annotator's tie is a miss: the rule of PairRM's card",
        True,
    ),
    "accuracy, three-way": ("share of all pairs in which the ranker says the same: a, b or tie", True),
    "accuracy, one order": ("accuracy where a pair is presented once, as it stands in the data", True),
    "flips": ("share of the pairs whose winner changes with the order of presentation", False),
    "cycles": ("share of the triples of candidates that beat each other in a circle", False),
    "pearson": ("correlation of the scores with the gold scores, mean over prompts of three candidates and more", True),
    "spearman": ("rank correlation with the gold scores, mean over the same prompts", True),
    "kendall": ("Kendall's tau-b with the gold scores, mean over the same prompts", True),
    "footrule": ("distance from the gold ranks, as a share of the largest there is", False),
    "top-1 found": ("share of the prompts whose chosen candidate is one of the best", True),
    "top-1 regret": ("what the chosen candidate lacks to the best, as a share of the gap to the worst", False),
    "win rate": ("share of its judged pairs that the chosen candidate wins", True),
}

# The order of two candidates is a comparison, and measured as one.
LEAST_RANKED = 3
# Of the rankings: each takes the scores and the gold scores. They need scores that are not all equal.
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


def measure(
    prompt: LabelledPrompt, opinion: Opinion, judge: Judge, *, gold: str | None = None, tie_threshold: float = 0.0
) -> dict[str, tuple[float, float]]:
    """Return what a prompt adds to each figure: above and below the line, see `bootstrap`.

    Args:
        prompt: The prompt.
        opinion: What the ranker says of it.
        judge: The ranker.
        gold: Name of the scores that say what candidates are worth; None as in `labelled.gold_scores`.
        tie_threshold: How far from 0.5 a probability may be and still be a tie; for a ranker without probabilities a
            tie is that of equal scores.

    Returns:
        The figures to which it adds.
    """
    added = _of_pairs(prompt, opinion, judge, tie_threshold)
    if opinion.scores is not None:
        added |= _of_ranking(prompt, opinion, opinion.scores, judge, gold)
    return {name: shares for name, shares in added.items() if shares[1]}


def probabilities_of(prompt: LabelledPrompt, opinion: Opinion) -> tuple[list[float], list[float]]:
    """Return for the judged pairs the probability that a is better, and the label."""
    said = [_seen(pair, opinion)[0] + 0.5 for pair in prompt.pairs]
    return said, [pair.label for pair in prompt.pairs]


def _of_pairs(
    prompt: LabelledPrompt, opinion: Opinion, judge: Judge, tie_threshold: float
) -> dict[str, tuple[float, float]]:
    labels = [pair.label for pair in prompt.pairs]
    seen = [_seen(pair, opinion) for pair in prompt.pairs]
    logits = [logit for _, logit, _ in seen]
    added = {
        "accuracy": _total(credits(logits, labels)),
        "accuracy, ties missed": _total(credits(logits, labels, ties="card")),
    }
    if judge.opinionated:
        said = [leaning for leaning, _, _ in seen] if judge.probabilistic else logits
        threshold = tie_threshold if judge.probabilistic else 0.0
        added["accuracy, three-way"] = _total(credits(said, labels, ties="three-way", tie_threshold=threshold))
    if judge.pairwise:
        added["accuracy, one order"] = _total(credits([first for _, _, first in seen], labels))
        added["flips"] = _total([float(comparison.flipped) for comparison in opinion.comparisons.values()])
    return added


def _of_ranking(
    prompt: LabelledPrompt, opinion: Opinion, scores: Sequence[float], judge: Judge, gold: str | None
) -> dict[str, tuple[float, float]]:
    added: dict[str, tuple[float, float]] = {}
    if judge.pairwise:
        cycles, triples = cycles_and_triples(matrix_of(opinion.comparisons, len(scores)))
        added["cycles"] = (float(cycles), float(triples))
    worth = gold_scores(prompt, gold)
    if worth is not None:
        ranked = len(scores) >= LEAST_RANKED and len(set(scores)) > 1
        functions: Mapping[str, Callable[..., float | None]] = (CORRELATIONS if ranked else {}) | CHOICES
        added |= {name: _total([function(scores, worth)]) for name, function in functions.items()}
    added["win rate"] = _total([rankings.win_rate(scores, win_shares(prompt))])
    return added


def _seen(pair: JudgedPair, opinion: Opinion) -> tuple[float, float, float]:
    """Return the probability of a judged pair less 0.5, its logit, and that with a read first, all positive for a."""
    if pair.a < pair.b:
        comparison = opinion.comparisons[pair.a, pair.b]
        return comparison.probability - 0.5, comparison.logit, comparison.logit_ab
    comparison = opinion.comparisons[pair.b, pair.a]
    return 0.5 - comparison.probability, -comparison.logit, comparison.logit_ba


def _total(values: Sequence[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return float(sum(known)), float(len(known))
