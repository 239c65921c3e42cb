"""From scored presentations to typed rankings and comparisons."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from .aggregation import count_cycles, get_aggregation, order_of, ranks_of
from .inputs import Item
from .results import Comparison, Preferred, Ranking, Truncation
from .scorer import PairScorer, Presentation, Scored

OnBatch = Callable[[int], None]


def rank_items(
    items: Sequence[Item], scorer: PairScorer, aggregation: str = "max_logits", on_batch: OnBatch | None = None
) -> list[Ranking]:
    """Rank the candidates of every item; the pairs of all items are scored together.

    Args:
        items: The prompts with their candidates.
        scorer: Scores the pairs.
        aggregation: Name of the aggregation that turns comparisons into scores.
        on_batch: Called after each batch with the number of presentations in it.

    Returns:
        One ranking an item.
    """
    get_aggregation(aggregation)  # a misspelt name fails before the long work
    pairs = [pairs_to_compare(item.texts) for item in items]
    flat = [p for item, chosen in zip(items, pairs, strict=True) for i, j in chosen for p in _both_orders(item, i, j)]
    scored = iter(scorer.score(flat, on_batch))
    return [
        _ranking(item, {pair: (next(scored), next(scored)) for pair in chosen}, scorer, aggregation)
        for item, chosen in zip(items, pairs, strict=True)
    ]


def compare_items(
    items: Sequence[Item], scorer: PairScorer, tie_threshold: float = 0.0, on_batch: OnBatch | None = None
) -> list[Comparison]:
    """Compare the two candidates of every item in both orders; identical texts tie without a comparison.

    Args:
        items: Prompts with exactly two candidates, a and b.
        scorer: Scores the pairs.
        tie_threshold: How far from 0.5 the probability may be and still be called a tie.
        on_batch: Called after each batch with the number of presentations in it.

    Returns:
        One comparison an item.
    """
    different = [item for item in items if item.texts[0] != item.texts[1]]
    flat = [presentation for item in different for presentation in _both_orders(item, 0, 1)]
    scored = iter(scorer.score(flat, on_batch))
    return [
        _comparison((next(scored), next(scored)), tie_threshold)
        if item.texts[0] != item.texts[1]
        else Comparison("tie", 0.0, 0.5, 0.0, 0.0, cut_alone(item, scorer))
        for item in items
    ]


def pairs_to_compare(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return all pairs i < j of different texts, each different text standing for its repeats."""
    firsts = [index for index, text in enumerate(texts) if texts.index(text) == index]
    return list(combinations(firsts, 2))


def mean_logit(ab: float, ba: float) -> float:
    """Return the mean of both orders of presentation: positive if a is better, negated when a and b are swapped."""
    return (ab - ba) / 2


def probability_of(logit: float) -> float:
    """Return the sigmoid of a logit, without overflow."""
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1 + small)


def cut_alone(item: Item, scorer: PairScorer) -> Truncation:
    """Say what the model would cut of an item whose candidates it need not read."""
    encode = scorer.processor
    source, *candidates = encode.encode_texts([item.source, *item.texts])
    cuts = [encode.encode_pair(source, ids, ids) for ids in candidates]
    return Truncation(cuts[0].truncated_source, tuple(cut.truncated_first for cut in cuts))


def _both_orders(item: Item, i: int, j: int) -> tuple[Presentation, Presentation]:
    a, b = item.texts[i], item.texts[j]
    return Presentation(item.source, a, b), Presentation(item.source, b, a)


def _ranking(
    item: Item, scored: dict[tuple[int, int], tuple[Scored, Scored]], scorer: PairScorer, aggregation: str
) -> Ranking:
    texts = item.texts
    comparisons = _matrix(texts, scored)
    scores = get_aggregation(aggregation)(comparisons)
    flips = sum(ab.logit * ba.logit > 0 for ab, ba in scored.values())
    return Ranking(
        candidates=texts,
        models=tuple(candidate.model for candidate in item.candidates),
        order=order_of(scores),
        ranks=ranks_of(scores),
        scores=scores,
        comparisons=comparisons,
        n_comparisons=len(scored),
        flip_rate=flips / len(scored) if scored else None,
        n_cycles=count_cycles(comparisons),
        truncated=_cuts(texts, scored) if scored else cut_alone(item, scorer),
    )


def _matrix(
    texts: Sequence[str], scored: dict[tuple[int, int], tuple[Scored, Scored]]
) -> tuple[tuple[float, ...], ...]:
    logits = {pair: mean_logit(ab.logit, ba.logit) for pair, (ab, ba) in scored.items()}
    logits |= {(j, i): -logit for (i, j), logit in logits.items()}
    first = [texts.index(text) for text in texts]

    def entry(i: int, j: int) -> float:
        if i == j:
            return math.nan
        return 0.0 if first[i] == first[j] else logits.get((first[i], first[j]), math.nan)

    return tuple(tuple(entry(i, j) for j in range(len(texts))) for i in range(len(texts)))


def _cuts(texts: Sequence[str], scored: dict[tuple[int, int], tuple[Scored, Scored]]) -> Truncation:
    """Collect what was cut: the budget depends on the prompt alone, so any comparison of a candidate tells."""
    cut: dict[str, int] = {}
    prompt = 0
    for (i, j), (ab, _) in scored.items():
        prompt = ab.encoding.truncated_source
        cut[texts[i]], cut[texts[j]] = ab.encoding.truncated_first, ab.encoding.truncated_second
    return Truncation(prompt, tuple(cut[text] for text in texts))


def _comparison(scored: tuple[Scored, Scored], tie_threshold: float) -> Comparison:
    ab, ba = scored
    logit = mean_logit(ab.logit, ba.logit)
    probability = probability_of(logit)
    cuts = Truncation(ab.encoding.truncated_source, (ab.encoding.truncated_first, ab.encoding.truncated_second))
    return Comparison(_preferred(probability, tie_threshold), logit, probability, ab.logit, ba.logit, cuts)


def _preferred(probability: float, tie_threshold: float) -> Preferred:
    if abs(probability - 0.5) <= tie_threshold:
        return "tie"
    return "a" if probability > 0.5 else "b"
