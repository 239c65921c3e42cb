"""The scores of benchmarks as their authors compute them, under their names."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from blender_hf.data.benchmarks import JUDGE_BENCH, N_STYLES, REWARD_BENCH_2, RM_BENCH
from blender_hf.data.labelled import LabelledPrompt, Pair
from blender_hf.engine.results import Comparison

from .predictors import Prediction

OVERALL, TIES = "Overall", "Ties"
# The sources of JudgeBench by how they begin, in the order in which its script prints them.
JUDGE_BENCH_SOURCES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
# What the parts of the Ties score of RewardBench 2 count: accuracy twice, margins twice, and the size of a margin.
TIES_WEIGHTS = (0.30, 0.30, 0.20, 0.20, 0.01)
ABOUT = {
    JUDGE_BENCH: "share of the pairs that are judged right in one presentation order and not wrong in the other, by "
    "source",
    REWARD_BENCH_2: "share of the prompts whose chosen answer scores best of four, equals sharing it, by subset; the "
    "ties score; and their mean",
    RM_BENCH: "share of the pairs that are judged right where the chosen answer has the plainer style (hard), the same "
    "(normal), or the richer (easy)",
}


@dataclass(frozen=True)
class Judged:
    """What a ranker said of a prompt of a benchmark."""

    id: str
    source: str
    good: tuple[int, ...]  # the candidates that are right, in the order of the record
    bad: tuple[int, ...]
    scores: tuple[float, ...] | None  # of all candidates, if they were ranked
    comparisons: Mapping[Pair, Comparison]

    def logit(self, a: int, b: int) -> float:
        """Return the mean logit of both presentation orders, positive for a."""
        return self.comparisons[a, b].logit if a < b else -self.comparisons[b, a].logit


def judged_of(prompt: LabelledPrompt, prediction: Prediction) -> Judged:
    """Return what a prediction says of a prompt, with the candidates divided by its verdicts."""
    better = {pair.a if pair.label > 0.5 else pair.b for pair in prompt.pairs if pair.label != 0.5}
    worse = {pair.b if pair.label > 0.5 else pair.a for pair in prompt.pairs if pair.label != 0.5}
    good, bad = tuple(sorted(better)), tuple(sorted(worse))
    return Judged(str(prompt.id), prompt.source, good, bad, prediction.scores, prediction.comparisons)


def official_scores(benchmark: str, judged: Sequence[Judged]) -> dict[str, float]:
    """Return the scores of a benchmark by their names, 0 to 1; those that these prompts do not allow are left out."""
    return SCORES[benchmark](judged)


def judge_bench(judged: Sequence[Judged]) -> dict[str, float]:
    """Score JudgeBench, as `compute_final_metrics` in utils/metrics.py of ScalerLab/JudgeBench with both orders."""
    right = [(one.source, _right_in_both_orders(one)) for one in judged if one.good]
    parts = {
        name: [credit for source, credit in right if source.startswith(name)] for name in (*JUDGE_BENCH_SOURCES, "")
    }
    return {name or OVERALL: fmean(credits) for name, credits in parts.items() if credits}


def _right_in_both_orders(one: Judged) -> float:
    (good,), (bad,) = one.good, one.bad
    found = one.comparisons[min(good, bad), max(good, bad)]
    ways = (found.logit_ab, -found.logit_ba) if good < bad else (-found.logit_ab, found.logit_ba)
    return float(sum((logit > 0) - (logit < 0) for logit in ways) > 0)


def reward_bench_2(judged: Sequence[Judged]) -> dict[str, float]:
    """Score RewardBench 2, as `reroll_and_score_dataset` and `process_single_model` of allenai/reward-bench."""
    subsets: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if one.scores is not None and one.good:
            subsets[one.source].append(one)
    found = {name: ties_score(own) if name == TIES else fmean(map(_best_of, own)) for name, own in subsets.items()}
    return {**dict(sorted(found.items())), OVERALL: fmean(found.values())} if found else {}


def _best_of(one: Judged) -> float:
    scores = one.scores or ()
    best = [index for index, score in enumerate(scores) if score == max(scores)]
    return 1 / len(best) if one.good[0] in best else 0.0


def ties_score(judged: Sequence[Judged]) -> float:
    """Return the weighted score of the subset Ties, from 0 to 1.01.

    A prompt with one right answer ("ref:7" is its id) has a twin with several ("tied:7"), which should score alike.
    """
    margins: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for one in judged:
        kind, _, number = one.id.partition(":")
        scores = one.scores or ()
        good, bad = [scores[index] for index in one.good], [scores[index] for index in one.bad]
        margins.setdefault(kind, {})[number] = (max(good) - min(good), min(good) - max(bad))
    ref, tied = margins["ref"], margins["tied"]
    accuracy = [fmean(gap > 0 for _, gap in own.values()) if own else 0.0 for own in (tied, ref)]
    twins = [(*tied[number], ref[number][1]) for number in tied.keys() & ref.keys()]
    if not twins:
        return math.fsum(weight * part for weight, part in zip(TIES_WEIGHTS, accuracy, strict=False))
    parts = (
        *accuracy,
        fmean(gap > spread for spread, gap, _ in twins),
        fmean(min(gap, alone) > spread for spread, gap, alone in twins),
        fmean(_relative(min(gap, alone), spread) for spread, gap, alone in twins),
    )
    return math.fsum(weight * part for weight, part in zip(TIES_WEIGHTS, parts, strict=True))


def _relative(gap: float, spread: float) -> float:
    """Return how large a gap is beside a spread, -1 to 1, with the limits that NumPy has for a spread of 0."""
    if spread == 0:
        return math.copysign(1, gap) if gap else 0.0
    return math.tanh(gap / spread - 1)


def rm_bench(judged: Sequence[Judged]) -> dict[str, float]:
    """Score RM-Bench, as `compute_accuracy` in the README of THU-KEG/RM-Bench."""
    whole = [one for one in judged if len(one.good) == len(one.bad) == N_STYLES]
    if not whole:
        return {}
    kinds: dict[str, list[float]] = {"hard_acc": [], "normal_acc": [], "easy_acc": []}
    for i, j in product(range(N_STYLES), repeat=2):  # the styles of the chosen and of the rejected answer
        name = "hard_acc" if i < j else "normal_acc" if i == j else "easy_acc"
        kinds[name].append(fmean(one.logit(one.good[i], one.bad[j]) > 0 for one in whole))
    return {name: fmean(shares) for name, shares in kinds.items()}


SCORES: dict[str, Callable[[Sequence[Judged]], dict[str, float]]] = {
    JUDGE_BENCH: judge_bench,
    REWARD_BENCH_2: reward_bench_2,
    RM_BENCH: rm_bench,
}
