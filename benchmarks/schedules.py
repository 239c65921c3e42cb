"""Compares the schedules: how much less they ask than all pairs, and how often they find the same.

    python benchmarks/schedules.py dev.jsonl.gz --card model_cards/pair-ranker-mini.md

All pairs of real candidates are scored once in both orders; each schedule is then played on these logits. For more
candidates than there are, scores and contradictions are drawn from the real ones. Times are of the whole ranking, the
medians of interleaved runs on a few prompts. Prints Markdown, and a JSON object on the last line.
"""

import argparse
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from cards import markdown_table, show_figures
from scipy.stats import kendalltau
from tqdm import tqdm

from blender_hf import Blender
from blender_hf.data.sources import read_values
from blender_hf.engine.aggregation import complete, max_logits
from blender_hf.engine.ranking import Contest, leads
from blender_hf.engine.schedules import Schedule
from blender_hf.engine.scorer import Presentation
from blender_hf.inputs import Item, make_item

SCRIPT = "benchmarks/schedules.py"
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
    """The logits between the candidates of a prompt: the mean of both orders, and of the one drawn by lot."""

    both: Matrix
    one: Matrix


def main() -> None:
    options = arguments()
    blender = Blender.from_pretrained(options.ranker, None, device="cpu")
    groups = sampled(options.data, options.max_prompts_per_source, options.seed)
    judged = {name: [judge(item, blender) for item in tqdm(items, desc=name)] for name, items in groups.items()}
    real = [table for tables in judged.values() for table in tables]
    strengths, residuals = parts_of([table.both for table in real])
    judged["all sources"] = real
    rng = random.Random(options.seed)
    for n in SYNTHETIC_SIZES:
        judged[f"synthetic, N = {n}"] = [synthetic(n, strengths, residuals, rng) for _ in range(options.synthetic)]
    shown = {name: tables for name, tables in judged.items() if name in ("vicuna80", "all sources") or "N =" in name}
    rows = {
        name: {
            label: figures(schedule, tables)
            for label, schedule in SCHEDULES.items()
            if schedule.orders == "both" or "synthetic" not in name  # which have no orders of presentation
        }
        for name, tables in shown.items()
    }
    times = timed(groups, blender, options)
    intransitivity = float(np.std(residuals) / np.std(strengths))
    text = report(rows, {name: len(tables) for name, tables in shown.items()}, times, intransitivity, options)
    show_figures(text, SCRIPT, options.card)
    print(json.dumps({"schedules": rows, "seconds": times, "intransitivity": intransitivity}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="JSONL file of prompts with candidates")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--max-prompts-per-source", type=int, default=24, help="drawn at random of larger sources")
    parser.add_argument("--synthetic", type=int, default=200, help="synthetic prompts of each size")
    parser.add_argument("--timed-prompts", type=int, default=3, help="prompts that are timed")
    parser.add_argument("--repetitions", type=int, default=3, help="of the timing; the median counts")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--card", type=Path, help="card to write the figures into")
    return parser.parse_args()


def sampled(path: Path, most: int, seed: int) -> dict[str, list[Item]]:
    """Return items of four different candidates and more, by source."""
    by_source: dict[str, list[Item]] = defaultdict(list)
    for record in read_values(path):
        if len({candidate["text"] for candidate in record["candidates"]}) >= 4:
            by_source[record["source"]].append(make_item(record["prompt"], record["candidates"]))
    rng = random.Random(seed)
    return {source: rng.sample(items, min(most, len(items))) for source, items in sorted(by_source.items())}


def judge(item: Item, blender: Blender) -> Judged:
    """Score all pairs of an item in both orders."""
    texts = Contest(item, Schedule()).texts
    pairs = list(permutations(range(len(texts)), 2))
    logits = blender.scorer.score([Presentation(item.source, texts[i], texts[j]) for i, j in pairs])
    first = dict(zip(pairs, logits, strict=True))
    both = {(i, j): (first[i, j] - first[j, i]) / 2 for i, j in combinations(range(len(texts)), 2)}
    one = {pair: first[pair] if leads(pair) else -first[pair[::-1]] for pair in both}
    return Judged(as_matrix(both, len(texts)), as_matrix(one, len(texts)))


def as_matrix(logits: dict[tuple[int, int], float], n: int) -> Matrix:
    matrix = [[math.nan] * n for _ in range(n)]
    for (i, j), logit in logits.items():
        matrix[i][j], matrix[j][i] = logit, -logit
    return matrix


def parts_of(matrices: Sequence[Matrix]) -> tuple[list[float], list[float]]:
    """Take logits apart: the scores of the candidates, and what is particular to each two."""
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


def figures(schedule: Schedule, tables: Sequence[Judged]) -> dict[str, float]:
    """Return what a schedule needs and finds, the mean over prompts."""
    return {name: fmean(values) for name, values in collected(schedule, tables).items()}


def collected(schedule: Schedule, tables: Sequence[Judged]) -> dict[str, list[float]]:
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
    return found


def play(schedule: Schedule, matrix: Matrix) -> tuple[dict[tuple[int, int], float], int]:
    """Return the comparisons that a schedule asks for, and in how many rounds."""
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


def timed(groups: dict[str, list[Item]], blender: Blender, options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of ranking a few prompts with many candidates by each schedule."""
    items = max(groups.values(), key=lambda group: fmean(len(item.texts) for item in group))[: options.timed_prompts]
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repetitions):
        for name, schedule in SCHEDULES.items():
            start = time.perf_counter()
            list(blender.iter_rank(items, schedule=schedule))
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def report(
    rows: dict[str, dict[str, dict[str, float]]],
    sizes: dict[str, int],
    times: dict[str, float],
    intransitivity: float,
    options: argparse.Namespace,
) -> str:
    parts = [part for name, found in rows.items() for part in section(f"{name} ({sizes[name]} prompts)", found)]
    speed = [[name, f"{times['full'] / seconds:.1f}"] for name, seconds in times.items()]
    return "\n".join(
        [
            *parts,
            "### Time",
            "",
            markdown_table(["schedule", "times as fast as full"], speed),
            "",
            f"Ranker {options.ranker}; at most {options.max_prompts_per_source} prompts of a source, of 4 candidates "
            f"and more; seed {options.seed}; synthetic prompts draw scores and contradictions from the real ones. "
            f"Times: {options.timed_prompts} prompts together, medians of {options.repetitions} interleaved runs on a "
            "CPU. Intransitivity (spread of what is particular to a pair, over the spread of scores): "
            f"{intransitivity:.2f}.",
        ]
    )


def section(title: str, found: dict[str, dict[str, float]]) -> Iterator[str]:
    names = list(next(iter(found.values())))
    cells: list[list[Any]] = [[label, *(f"{row[name]:.2f}" for name in names)] for label, row in found.items()]
    yield from (f"### {title}", "", markdown_table(["schedule", *names], cells), "")


if __name__ == "__main__":
    main()
