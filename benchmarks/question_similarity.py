"""Measures a ranker by how similar two candidates are, and by how far apart the judges put them.

    python benchmarks/question_similarity.py dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz \
        --page docs/question-similarity.md

Similarity is chrF between the two texts. The pairs are those of benchmarks/question_domains.py with the same options,
so a file given with `--logits` serves both. Prints Markdown tables.
"""

import argparse
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from cards import markdown_table
from questions import (
    Logits,
    draw,
    load_ranker,
    pair_logits,
    publish,
    question_parser,
    read_all,
    sample_pairs,
    shown,
    soft_labels,
    whiskers,
    with_interval,
)
from sacrebleu.metrics import CHRF
from worth import NEW_BASELINE, Soft, against

from blender_hf.data.labelled import JudgedPair, LabelledPrompt, win_shares
from blender_hf.evaluation.bootstrap import Figure, figures
from blender_hf.evaluation.pairwise import by_source, credits, length_rule

SCRIPT = "benchmarks/question_similarity.py"
CHRF_SCORE = CHRF()
N_BINS = 5
THIRDS = ("least similar third", "middle third", "most similar third")
# Its judges compared every candidate with a baseline alone; pairs of two others are made from that.
JUDGED_APART = "alpaca_eval"
LEAST_GAP = 0.02  # between those, nearer ones are a tie
LEAST_PAIRS = 12  # a source with fewer is not divided by its gaps


@dataclass(frozen=True)
class Pair:
    """A judged pair.

    Args:
        prompt: Id of its prompt: pairs of one prompt are drawn together.
        source: Name of the collection.
        similarity: Of its two candidates, 0 to 100.
        gap: How far apart the judges put them, in the unit of the source; None where that is not known.
        ours: 1 if the ranker agrees with the judge, 0 if not.
        longer: The same of the rule that the longer answer is better.
        confidence: How sure the ranker is, the size of its logit.
    """

    prompt: str | int
    source: str
    similarity: float
    gap: float | None
    ours: float
    longer: float
    confidence: float


def main() -> None:
    options = arguments()
    everything, soft = read_all(options.data), soft_labels(options.data)
    wholes = {prompt.id: prompt for prompt in everything}
    logits = Logits(load_ranker(options), options.logits)

    def measured(prompts: Sequence[LabelledPrompt], most: int) -> list[Pair]:
        drawn = sample_pairs(prompts, most, options.seed)
        found = zip(drawn, pair_logits(drawn, logits), strict=True)
        return [pair for prompt, own in found for pair in pairs_of(prompt, own, wholes[prompt.id], soft)]

    pairs = measured(everything, options.max_pairs_per_source)
    between = measured([between_others(prompt, soft) for prompt in everything], options.max_gap_pairs)
    similar = by_similarity(pairs, options.seed)
    within = within_sources(pairs, options.seed)
    gaps = by_gap([*(pair for pair in pairs if pair.source != JUDGED_APART), *between], options.seed)
    text = "\n\n".join(
        [
            "### By similarity, all sources together",
            table("chrF between the candidates", similar),
            "### By similarity inside each source, so that every source is in each third alike",
            table("", within),
            "### By the gap in quality",
            "\n\n".join(table(f"{source}: {GAPS[source].unit}", found) for source, found in gaps.items()),
            note(options),
        ]
    )
    publish(SCRIPT, text, plot(similar, gaps), options.page)


def arguments() -> argparse.Namespace:
    parser = question_parser(__doc__)
    parser.add_argument("--max-pairs-per-source", type=int, default=60, help="drawn at random of larger sources")
    parser.add_argument(
        "--max-gap-pairs", type=int, default=90, help="pairs of alpaca_eval that are divided by the gap"
    )
    return parser.parse_args()


def between_others(prompt: LabelledPrompt, soft: Soft) -> LabelledPrompt:
    """Return a prompt of alpaca_eval with all pairs of candidates that the newer judge compared with its baseline.

    The better one is that which more probably beats the baseline. Of other sources no pair is made.
    """
    worth = against(prompt, NEW_BASELINE, soft) if prompt.source == JUDGED_APART else {}
    pairs = [
        JudgedPair(a, b, float(worth[a] > worth[b]))
        for a, b in combinations(sorted(worth), 2)
        if abs(worth[a] - worth[b]) >= LEAST_GAP
    ]
    return replace(prompt, pairs=tuple(pairs))


def pairs_of(prompt: LabelledPrompt, logits: Sequence[float], whole: LabelledPrompt, soft: Soft) -> list[Pair]:
    """Return what is needed of the judged pairs of a prompt; `whole` has all its pairs, not only those drawn."""
    texts = prompt.item.texts
    labels = [pair.label for pair in prompt.pairs]
    lengths = length_rule([texts[pair.a] for pair in prompt.pairs], [texts[pair.b] for pair in prompt.pairs])
    columns = zip(prompt.pairs, logits, credits(logits, labels), credits(lengths, labels), strict=True)
    return [
        Pair(
            prompt.id,
            prompt.source,
            similarity(texts[pair.a], texts[pair.b]),
            GAPS[prompt.source].of(whole, pair, soft) if prompt.source in GAPS else None,
            ours or 0.0,
            longer or 0.0,
            abs(logit),
        )
        for pair, logit, ours, longer in columns
    ]


def similarity(a: str, b: str) -> float:
    """Return chrF between two texts, 0 to 100, the mean of both directions."""
    return (CHRF_SCORE.sentence_score(a, [b]).score + CHRF_SCORE.sentence_score(b, [a]).score) / 2


def gap_of_scores(prompt: LabelledPrompt, pair: JudgedPair, soft: Soft) -> float | None:
    """Return how far apart the scores of the two candidates are."""
    scores = prompt.complete_scores("score")
    return abs(scores[pair.a] - scores[pair.b]) if scores else None


def gap_of_preference(prompt: LabelledPrompt, pair: JudgedPair, soft: Soft) -> float | None:
    """Return how far apart the probabilities are with which the two beat the baseline of the newer judge."""
    worth = against(prompt, NEW_BASELINE, soft)
    return abs(worth[pair.a] - worth[pair.b]) if {pair.a, pair.b} <= worth.keys() else None


def gap_of_wins(prompt: LabelledPrompt, pair: JudgedPair, soft: Soft) -> float | None:
    """Return how far apart the shares are of the pairs with all others that the two win, this pair left out."""
    others = tuple(other for other in prompt.pairs if {other.a, other.b} != {pair.a, pair.b})
    shares = win_shares(replace(prompt, pairs=others))
    a, b = shares[pair.a], shares[pair.b]
    return None if a is None or b is None else abs(a - b)


@dataclass(frozen=True)
class Gap:
    """What is known of the distance in quality in a source, and what it is called."""

    unit: str
    of: Callable[[LabelledPrompt, JudgedPair, Soft], float | None]


GAPS = {
    "ultrafeedback": Gap("difference of the scores from 1 to 10", gap_of_scores),
    "webgpt": Gap("difference of the scores", gap_of_scores),
    "vicuna80": Gap("difference of the shares of pairs won against the others", gap_of_wins),
    JUDGED_APART: Gap("difference of the probabilities to beat gpt4_1106_preview", gap_of_preference),
}


def equal_bins(values: Sequence[float], n: int) -> list[list[int]]:
    """Divide values into at most n bins with about as many in each; equal values stay together.

    Returns:
        For each bin that has any the places of its values, the smallest values first.

    >>> equal_bins([5.0, 1.0, 2.0, 9.0], 2)
    [[1, 2], [0, 3]]
    """
    edges = np.quantile(values, np.linspace(0, 1, n + 1)[1:-1]).tolist()
    places = [bisect_left(edges, value) for value in values]
    bins = [[i for i, place in enumerate(places) if place == k] for k in range(n)]
    return [found for found in bins if found]


def figures_of(pairs: Sequence[Pair], seed: int) -> dict[str, Figure]:
    """Return the accuracies and the mean size of the logit, with intervals over prompts."""
    rows = []
    for own in by_source([str(pair.prompt) for pair in pairs], pairs).values():
        n = float(len(own))
        rows.append(
            {
                "ranker": (sum(pair.ours for pair in own), n),
                "longer is better": (sum(pair.longer for pair in own), n),
                "size of the logit": (sum(pair.confidence for pair in own), n),
            }
        )
    return figures(rows, seed=seed)


def by_similarity(pairs: Sequence[Pair], seed: int) -> dict[str, dict[str, Figure]]:
    """Return the figures of bins with about as many pairs in each."""
    return divided(pairs, [pair.similarity for pair in pairs], N_BINS, ".0f", seed)


def within_sources(pairs: Sequence[Pair], seed: int) -> dict[str, dict[str, Figure]]:
    """Return the figures of the thirds of every source, put together."""
    thirds: list[list[Pair]] = [[], [], []]
    for own in by_source([pair.source for pair in pairs], pairs).values():
        order = sorted(own, key=lambda pair: pair.similarity)
        for place, pair in enumerate(order):
            thirds[3 * place // len(order)].append(pair)
    return {name: figures_of(found, seed) for name, found in zip(THIRDS, thirds, strict=True) if found}


def by_gap(pairs: Sequence[Pair], seed: int) -> dict[str, dict[str, dict[str, Figure]]]:
    """Return for each source with gaps the figures of the thirds by their size."""
    known = [pair for pair in pairs if pair.gap is not None]
    groups = by_source([pair.source for pair in known], known)
    return {
        source: divided(own, [pair.gap or 0.0 for pair in own], 3, ".2f", seed)
        for source, own in groups.items()
        if len(own) >= LEAST_PAIRS
    }


def divided(
    pairs: Sequence[Pair], values: Sequence[float], n: int, form: str, seed: int
) -> dict[str, dict[str, Figure]]:
    """Return the figures of bins, by the range of the values in each."""
    found = {}
    for places in equal_bins(values, n):
        own = [values[place] for place in places]
        found[f"{min(own):{form}} to {max(own):{form}}"] = figures_of([pairs[place] for place in places], seed)
    return found


def table(title: str, groups: Mapping[str, Mapping[str, Figure]]) -> str:
    rows = [
        [
            name,
            f"{found['ranker'].n:.0f}",
            *(with_interval(found[rule]) for rule in ("ranker", "longer is better")),
            f"{found['size of the logit'].value:.2f}",
        ]
        for name, found in groups.items()
    ]
    return markdown_table([title, "pairs", "ranker", "longer is better", "size of the logit"], rows)


def note(options: argparse.Namespace) -> str:
    return (
        f"Accuracy on decided pairs, at most {options.max_pairs_per_source} of a source (seed {options.seed}), in "
        "brackets the 95 % interval of a bootstrap over prompts; chance is 0.5. Bins have about as many pairs each, as "
        "far as equal values allow. "
        f"Ranker {shown(options.ranker)}."
    )


def plot(similar: Mapping[str, Mapping[str, Figure]], gaps: Mapping[str, Mapping[str, Mapping[str, Figure]]]) -> Any:
    drawing, (left, right) = draw(2)
    for place, rule in enumerate(("ranker", "longer is better")):
        found = [figures_of_bin[rule] for figures_of_bin in similar.values()]
        places = [k + 0.08 * (2 * place - 1) for k in range(len(found))]
        left.errorbar(places, [f.value for f in found], yerr=whiskers(found), marker="o", capsize=2, label=rule)
    left.set_xticks(range(len(similar)), list(similar))
    left.set(xlabel="chrF between the two candidates", ylabel="accuracy, 95 % interval")
    for place, (source, bins) in enumerate(gaps.items()):
        found = [figures_of_bin["ranker"] for figures_of_bin in bins.values()]
        places = [k + 0.06 * (place - 1.5) for k in range(len(found))]
        right.errorbar(places, [f.value for f in found], yerr=whiskers(found), marker="o", capsize=2, label=source)
    right.set_xticks(range(3), ["smallest", "middle", "largest"])
    right.set(xlabel="gap in quality, thirds of a source", ylabel="accuracy of the ranker, 95 % interval")
    for axes in (left, right):
        axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        axes.set_ylim(0.2, 1)
        axes.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
