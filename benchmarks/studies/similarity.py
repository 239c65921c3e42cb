"""Measure a ranker by the similarity of two candidates, and by the gap between their gold scores.

    python -m benchmarks.studies.similarity dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz --save

Similarity is chrF between the two texts. The pairs are those of `benchmarks.studies.domains` with the same options, so
a file given with `--logits` serves both.
"""

import argparse
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF

from benchmarks.judged import read_all
from benchmarks.studies.common import (
    JUDGES,
    Logits,
    display_name,
    draw,
    draw_lines,
    load_ranker,
    pair_credits,
    pair_logits,
    sample_pairs,
    study_parser,
)
from benchmarks.studies.gold_scores import NEW_BASELINE, against
from benchmarks.tables import Table, interval, publish
from blender_hf.data.labelled import JudgedPair, LabelledPrompt, win_shares
from blender_hf.evaluation.bootstrap import Figure, figures
from blender_hf.evaluation.pairwise import by_source

CHRF_SCORE = CHRF()
N_BINS = 5
THIRDS = ("least similar third", "middle third", "most similar third")
# Its judges compared every candidate with a baseline only; pairs of two others are derived from that.
JUDGED_APART = "alpaca_eval"
MIN_GAP = 0.02  # between those; closer ones are a tie
MIN_PAIRS = 12  # a source with fewer is not divided by its gaps
Groups = dict[str, dict[str, Figure]]


@dataclass(frozen=True)
class Pair:
    """A judged pair."""

    prompt: str | int  # id of its prompt; the bootstrap resamples whole prompts
    source: str  # name of the dataset
    similarity: float  # of its two candidates, 0 to 100
    gap: float | None  # between their gold scores, in the unit of the source; None if unknown
    ours: float  # 1 if the ranker agrees with the judge, 0 if not
    longer: float  # the same for the length rule
    confidence: float  # absolute value of the logit


def main() -> None:
    options = arguments()
    everything = read_all(options.data)
    wholes = {prompt.id: prompt for prompt in everything}
    logits = Logits(load_ranker(options), options.logits)

    def measured(prompts: Sequence[LabelledPrompt], most: int) -> list[Pair]:
        drawn = sample_pairs(prompts, most, options.seed)
        found = zip(drawn, pair_logits(drawn, logits), strict=True)
        return [pair for prompt, own in found for pair in pairs_of(prompt, own, wholes[prompt.id])]

    pairs = measured(everything, options.max_pairs_per_source)
    between = measured([between_others(prompt) for prompt in everything], options.max_gap_pairs)
    similar = by_similarity(pairs, options.seed)
    within = within_sources(pairs, options.seed)
    gaps = by_gap([*(pair for pair in pairs if pair.source != JUDGED_APART), *between], options.seed)
    sections = [
        "### By similarity, all sources together",
        table_of("chrF between the candidates", similar),
        "### By similarity within each source, so that every source is in each third alike",
        table_of("", within),
        "### By the gap between gold scores",
        *(table_of(f"{source}: {GAPS[source].unit}", found) for source, found in gaps.items()),
        note(options),
    ]
    publish(__file__, sections, options, drawing=plot(similar, gaps))


def arguments() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--max-pairs-per-source", type=int, default=60, help="random sample of larger ones")
    parser.add_argument("--max-gap-pairs", type=int, default=90, help="pairs of alpaca_eval divided by the gap")
    return parser.parse_args()


def between_others(prompt: LabelledPrompt) -> LabelledPrompt:
    """Return a prompt of alpaca_eval with all pairs of candidates that the newer judge compared with its baseline.

    The better one has the higher probability to beat the baseline. Prompts of other sources get no pairs.
    """
    gold = against(prompt, NEW_BASELINE) if prompt.source == JUDGED_APART else {}
    pairs = [
        JudgedPair(a, b, float(gold[a] > gold[b]))
        for a, b in combinations(sorted(gold), 2)
        if abs(gold[a] - gold[b]) >= MIN_GAP
    ]
    return replace(prompt, pairs=tuple(pairs))


def pairs_of(prompt: LabelledPrompt, logits: Sequence[float], whole: LabelledPrompt) -> list[Pair]:
    """Return the measured pairs of a prompt; `whole` has all its judged pairs, not only the sampled ones."""
    texts = prompt.item.texts
    gap_of = GAPS[prompt.source].of if prompt.source in GAPS else lambda whole, pair: None
    return [
        Pair(
            prompt.id,
            prompt.source,
            similarity(texts[pair.a], texts[pair.b]),
            gap_of(whole, pair),
            *credits,
            confidence=abs(logit),
        )
        for pair, logit, credits in zip(prompt.pairs, logits, pair_credits(prompt, logits), strict=True)
    ]


def similarity(a: str, b: str) -> float:
    """Return chrF between two texts, 0 to 100, the mean of both directions."""
    return (CHRF_SCORE.sentence_score(a, [b]).score + CHRF_SCORE.sentence_score(b, [a]).score) / 2


def gap_of_scores(prompt: LabelledPrompt, pair: JudgedPair) -> float | None:
    """Return the difference of the scores."""
    scores = prompt.complete_scores("score")
    return abs(scores[pair.a] - scores[pair.b]) if scores else None


def gap_of_preference(prompt: LabelledPrompt, pair: JudgedPair) -> float | None:
    """Return the difference of the probabilities to beat the newer baseline."""
    gold = against(prompt, NEW_BASELINE)
    return abs(gold[pair.a] - gold[pair.b]) if {pair.a, pair.b} <= gold.keys() else None


def gap_of_wins(prompt: LabelledPrompt, pair: JudgedPair) -> float | None:
    """Return the difference of the win shares, without this pair."""
    others = tuple(other for other in prompt.pairs if {other.a, other.b} != {pair.a, pair.b})
    shares = win_shares(replace(prompt, pairs=others))
    a, b = shares[pair.a], shares[pair.b]
    return None if a is None or b is None else abs(a - b)


@dataclass(frozen=True)
class Gap:
    """How a source measures the gap between two candidates, and its unit."""

    unit: str
    of: Callable[[LabelledPrompt, JudgedPair], float | None]


GAPS = {
    "ultrafeedback": Gap("difference of the scores from 1 to 10", gap_of_scores),
    "webgpt": Gap("difference of the scores", gap_of_scores),
    "vicuna80": Gap("difference of the shares of pairs won against the others", gap_of_wins),
    JUDGED_APART: Gap("difference of the probabilities to beat gpt4_1106_preview", gap_of_preference),
}


def equal_bins(values: Sequence[float], n: int) -> list[list[int]]:
    """Return the indices of values in at most n bins of about equal size, the smallest first; equal ones together.

    >>> equal_bins([5.0, 1.0, 2.0, 9.0], 2)
    [[1, 2], [0, 3]]
    """
    edges = np.quantile(values, np.linspace(0, 1, n + 1)[1:-1]).tolist()
    places = [bisect_left(edges, value) for value in values]
    bins = [[i for i, place in enumerate(places) if place == k] for k in range(n)]
    return [found for found in bins if found]


def figures_of(pairs: Sequence[Pair], seed: int) -> dict[str, Figure]:
    """Return the accuracies and the mean absolute logit, with intervals over prompts."""
    prompts = by_source([str(pair.prompt) for pair in pairs], pairs).values()
    rows = [
        {
            "ranker": (sum(pair.ours for pair in own), float(len(own))),
            "longer is better": (sum(pair.longer for pair in own), float(len(own))),
            "size of the logit": (sum(pair.confidence for pair in own), float(len(own))),
        }
        for own in prompts
    ]
    return figures(rows, seed=seed)


def by_similarity(pairs: Sequence[Pair], seed: int) -> Groups:
    """Return the accuracies in bins of about equal size."""
    return divided(pairs, [pair.similarity for pair in pairs], N_BINS, ".0f", seed)


def within_sources(pairs: Sequence[Pair], seed: int) -> Groups:
    """Return the accuracies in the thirds of every source, pooled over the sources."""
    thirds: list[list[Pair]] = [[], [], []]
    for own in by_source([pair.source for pair in pairs], pairs).values():
        order = sorted(own, key=lambda pair: pair.similarity)
        for place, pair in enumerate(order):
            thirds[3 * place // len(order)].append(pair)
    return {name: figures_of(found, seed) for name, found in zip(THIRDS, thirds, strict=True) if found}


def by_gap(pairs: Sequence[Pair], seed: int) -> dict[str, Groups]:
    """Return the accuracies in thirds by the gap, for each source with gaps."""
    known = [pair for pair in pairs if pair.gap is not None]
    groups = by_source([pair.source for pair in known], known)
    return {
        source: divided(own, [pair.gap or 0.0 for pair in own], 3, ".2f", seed)
        for source, own in groups.items()
        if len(own) >= MIN_PAIRS
    }


def divided(pairs: Sequence[Pair], values: Sequence[float], n: int, form: str, seed: int) -> Groups:
    """Return the accuracies in bins, by the range of the values in each."""
    found = {}
    for places in equal_bins(values, n):
        own = [values[place] for place in places]
        found[f"{min(own):{form}} to {max(own):{form}}"] = figures_of([pairs[place] for place in places], seed)
    return found


def table_of(title: str, groups: Mapping[str, Mapping[str, Figure]]) -> Table:
    rows = [
        [name, found["ranker"].n, *(interval(found[judge]) for judge in JUDGES), found["size of the logit"].value]
        for name, found in groups.items()
    ]
    columns = {title: "", "pairs": ".0f", **dict.fromkeys(JUDGES, ".3f|.2f"), "size of the logit": ".2f"}
    return Table(columns, rows)


def note(options: argparse.Namespace) -> str:
    return (
        f"Accuracy on decided pairs, at most {options.max_pairs_per_source} per source (seed {options.seed}), in "
        "brackets the 95 % interval of a bootstrap over prompts; chance is 0.5. Bins have about the same number of "
        f"pairs, as far as equal values allow. Ranker {display_name(options.ranker)}."
    )


def plot(similar: Groups, gaps: Mapping[str, Groups]) -> Any:
    drawing, (left, right) = draw(2)
    lines = {judge: [found[judge] for found in similar.values()] for judge in JUDGES}
    draw_lines(left, lines, list(similar), "chrF between the two candidates", "accuracy, 95 % interval")
    lines = {source: [found["ranker"] for found in bins.values()] for source, bins in gaps.items()}
    thirds = ("smallest", "middle", "largest")
    draw_lines(right, lines, thirds, "gap, thirds of a source", "accuracy of the ranker, 95 % interval")
    return drawing


if __name__ == "__main__":
    main()
