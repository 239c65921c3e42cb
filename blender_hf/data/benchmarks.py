"""Benchmarks of rankers, recognised by the fields of their records: they have scores of their own, and train nobody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JUDGE_BENCH = "JudgeBench"
REWARD_BENCH_2 = "RewardBench 2"
RM_BENCH = "RM-Bench"
# Of RM-Bench: concise, detailed as plain text, and detailed as Markdown.
N_STYLES = 3


@dataclass(frozen=True)
class Benchmark:
    """How the records of a benchmark are told from others.

    Args:
        keys: What each has.
        source: The key that names its part of the benchmark.
        matches: What else is true of it.
    """

    keys: frozenset[str]
    source: str
    matches: Callable[[Mapping[str, Any]], bool] = lambda record: True


def _has_styles(record: Mapping[str, Any]) -> bool:
    sides = (record["chosen"], record["rejected"])
    return all(isinstance(side, list | tuple) and len(side) == N_STYLES for side in sides)


BENCHMARKS: dict[str, Benchmark] = {
    # https://huggingface.co/datasets/ScalerLab/JudgeBench
    JUDGE_BENCH: Benchmark(frozenset(("pair_id", "response_model", "response_A", "response_B", "label")), "source"),
    # https://huggingface.co/datasets/allenai/reward-bench-2
    REWARD_BENCH_2: Benchmark(frozenset(("chosen", "rejected", "num_correct", "subset")), "subset"),
    # https://huggingface.co/datasets/THU-KEG/RM-Bench
    RM_BENCH: Benchmark(frozenset(("id", "prompt", "chosen", "rejected", "domain")), "domain", _has_styles),
}


def benchmark_of(record: Mapping[str, Any]) -> str | None:
    """Return the name of the benchmark that a record is of, one of `BENCHMARKS`; None if it is of none."""
    return next(
        (name for name, one in BENCHMARKS.items() if one.keys <= record.keys() and one.matches(record)),
        None,
    )
