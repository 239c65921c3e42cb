"""Compare the schedules: how many comparisons they need, and how often they agree with comparing all pairs.

    python -m benchmarks.schedules dev.jsonl.gz --save

All pairs of real candidates are scored once in both orders; each schedule is then played on these logits. For more
candidates than there are, scores and pair-specific noise are drawn from the real ones. Times are of whole rankings.
"""

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau
from tqdm import tqdm

from benchmarks.judged import judged_parser, sampled
from benchmarks.tables import Table, publish
from benchmarks.timing import medians
from blender_hf import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.aggregation import complete, max_logits
from blender_hf.engine.contests import Contest, leads
from blender_hf.engine.schedules import Schedule
from blender_hf.engine.scorer import Presentation
from blender_hf.evaluation.pairwise import by_source
from blender_hf.inputs import Item

Matrix = list[list[float]]

SCHEDULES = {
    "full": Schedule(),
    "full, one order": Schedule(orders="one"),
    "adaptive": Schedule("adaptive"),
    "adaptive, top 3": Schedule("adaptive", top_k=3),
    "adaptive, top 1": Schedule("adaptive", top_k=1),
    "knockout, top 3": Schedule("knockout", top_k=3),
    "knockout": Schedule("knockout"),
    "knockout, one order": Schedule("knockout", orders="one"),
    "bubble": Schedule("bubble"),
}
SYNTHETIC_SIZES = (10, 20, 50)


@dataclass(frozen=True)
class Judged:
    """The logits between the candidates of a prompt: the mean of both orders, and of the one that is asked alone."""

    both: Matrix
    one: Matrix


def main() -> None:
    options = arguments()
    blender = Blender.from_pretrained(options.ranker, None, device="cpu")
    prompts = [prompt for prompt in read_labelled(options.data) if len(set(prompt.item.texts)) >= 4]
    prompts = sampled(
        sorted(prompts, key=lambda prompt: prompt.source),
        lambda prompt: prompt.source,
        options.max_prompts_per_source,
        options.seed,
    )
    groups = by_source([prompt.source for prompt in prompts], [prompt.item for prompt in prompts])
    judged = {name: [judge(item, blender) for item in tqdm(items, desc=name)] for name, items in groups.items()}
    real = [table for tables in judged.values() for table in tables]
    strengths, residuals = parts_of([table.both for table in real])
    shown = {"vicuna80": judged["vicuna80"]} if "vicuna80" in judged else {}
    shown["all sources"] = real
    rng = random.Random(options.seed)
    for n in SYNTHETIC_SIZES:
        shown[f"synthetic, N = {n}"] = [synthetic(n, strengths, residuals, rng) for _ in range(options.synthetic)]
    sections: list[str | Table] = []
    for name, tables in shown.items():
        sections += [f"### {name} ({len(tables)} prompts)", schedules_table(tables, synthetic=name.startswith("synth"))]
    note = (
        f"Ranker {options.ranker}; at most {options.max_prompts_per_source} prompts per source, with 4 or more "
        f"candidates; seed {options.seed}; synthetic prompts draw scores and pair-specific noise from the real ones. "
        f"Times: {options.timed_prompts} prompts together, medians of {options.repetitions} interleaved runs on a "
        "CPU. Intransitivity (standard deviation of the pair-specific noise, relative to that of the scores): "
        f"{float(np.std(residuals) / np.std(strengths)):.2f}."
    )
    publish(__file__, [*sections, "### Time", times_table(groups, blender, options), note], options)


def arguments() -> argparse.Namespace:
    parser = judged_parser(__doc__)
    parser.add_argument("--max-prompts-per-source", type=int, default=24, help="random sample of larger sources")
    parser.add_argument("--synthetic", type=int, default=200, help="synthetic prompts of each size")
    parser.add_argument("--timed-prompts", type=int, default=3, help="prompts that are timed")
    parser.add_argument("--repetitions", type=int, default=3, help="of the timing; the median counts")
    return parser.parse_args()


def judge(item: Item, blender: Blender) -> Judged:
    """Score all pairs of an item in both orders."""
    texts = Contest(item, Schedule()).texts
    pairs = list(permutations(range(len(texts)), 2))
    logits = blender.scorer.score([Presentation(item.source, texts[i], texts[j]) for i, j in pairs])
    first = dict(zip(pairs, logits, strict=True))
    both = {(i, j): (first[i, j] - first[j, i]) / 2 for i, j in combinations(range(len(texts)), 2)}
    one = {pair: first[pair] if leads(pair) else -first[pair[::-1]] for pair in both}
    return Judged(as_matrix(both, len(texts)), as_matrix(one, len(texts)))


def as_matrix(logits: Mapping[tuple[int, int], float], n: int) -> Matrix:
    """Return an antisymmetric matrix of logits, NaN where there is none."""
    matrix = [[math.nan] * n for _ in range(n)]
    for (i, j), logit in logits.items():
        matrix[i][j], matrix[j][i] = logit, -logit
    return matrix


def parts_of(matrices: Sequence[Matrix]) -> tuple[list[float], list[float]]:
    """Decompose logits into the scores of the candidates and pair-specific noise."""
    strengths, residuals = list[float](), list[float]()
    for matrix in matrices:
        n = len(matrix)
        scores = [score * (n - 1) / n for score in max_logits(matrix)]  # the least squares fit of a full matrix
        strengths += scores
        # A fit of n scores leaves fewer residuals than there are pairs.
        widened = math.sqrt(n / (n - 2))
        residuals += [(matrix[i][j] - scores[i] + scores[j]) * widened for i, j in combinations(range(n), 2)]
    return strengths, residuals


def synthetic(n: int, strengths: Sequence[float], residuals: Sequence[float], rng: random.Random) -> Judged:
    scores = [rng.choice(strengths) for _ in range(n)]
    logits = {(i, j): scores[i] - scores[j] + rng.choice(residuals) for i, j in combinations(range(n), 2)}
    return Judged(as_matrix(logits, n), as_matrix(logits, n))


def schedules_table(tables: Sequence[Judged], *, synthetic: bool) -> Table:
    # Synthetic logits have no presentation orders.
    chosen = {name: schedule for name, schedule in SCHEDULES.items() if schedule.orders == "both" or not synthetic}
    rows = {name: found_by(schedule, tables) for name, schedule in chosen.items()}
    columns = dict.fromkeys(rows["full"], ".2f")
    return Table({"schedule": "", **columns}, [[name, *row.values()] for name, row in rows.items()])


def found_by(schedule: Schedule, tables: Sequence[Judged]) -> dict[str, float]:
    """Return the cost of a schedule and its agreement with all pairs, the mean over prompts."""
    found: dict[str, list[float]] = defaultdict(list)
    for table in tables:
        n = len(table.both)
        expected = max_logits(table.both)
        made, rounds = play(schedule, table.both if schedule.orders == "both" else table.one)
        scores = max_logits(complete(as_matrix(made, n)))
        found["share of all pairs"].append(len(made) / math.comb(n, 2))
        found["rounds"].append(rounds)
        for k in (1, 3):
            found[f"top {k}"].append(top(scores, k) == top(expected, k))
        found["Kendall tau"].append(float(kendalltau(scores, expected).statistic))
    return {name: fmean(values) for name, values in found.items()}


def play(schedule: Schedule, matrix: Matrix) -> tuple[dict[tuple[int, int], float], int]:
    """Return the comparisons that a schedule asks for, and the number of its rounds."""
    rounds = schedule.rounds(len(matrix))
    made: dict[tuple[int, int], float] = {}
    asked, n_rounds = next(rounds, []), 0
    while asked:
        n_rounds += 1
        made |= {(i, j): matrix[i][j] for i, j in asked}
        try:
            asked = rounds.send([matrix[i][j] for i, j in asked])
        except StopIteration:
            break
    return made, n_rounds


def top(scores: Sequence[float], k: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda i: -scores[i])[:k])


def times_table(groups: Mapping[str, Sequence[Item]], blender: Blender, options: argparse.Namespace) -> Table:
    """Time the ranking of a few prompts with many candidates by each schedule."""
    items = max(groups.values(), key=lambda group: fmean(len(item.texts) for item in group))[: options.timed_prompts]

    def rank(schedule: Schedule) -> None:
        list(blender.iter_rank(items, schedule=schedule))

    seconds = medians([partial(rank, s) for s in SCHEDULES.values()], options.repetitions, warm_up=False)
    rows = [[name, seconds[0] / own] for name, own in zip(SCHEDULES, seconds, strict=True)]
    return Table({"schedule": "", "times as fast as full": ".1f"}, rows)


if __name__ == "__main__":
    main()
