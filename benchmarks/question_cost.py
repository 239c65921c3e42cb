"""Measures what pairwise ranking costs, by each schedule, against scoring each candidate alone by the same encoder.

    python benchmarks/question_cost.py --page docs/question-cost.md

Times are medians of interleaved repeats. Memory is that of a process of its own for each figure, forked from one that
has loaded the models and done nothing else (Linux). Prints Markdown tables.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cards import markdown_table
from questions import draw, publish, shown
from ranking_inputs import make_job, read_records
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

import blender_hf
from blender_hf import Blender, Schedule
from blender_hf.modeling import PairRanker

SCRIPT = "benchmarks/question_cost.py"
EXAMPLES = Path(blender_hf.__file__).parent / "examples" / "smoke.jsonl"
POINTWISE = "pointwise"
SCHEDULES = {
    "full": Schedule(),
    "adaptive": Schedule("adaptive"),
    "adaptive, top 1": Schedule("adaptive", top_k=1),
    "knockout": Schedule("knockout"),
    "bubble": Schedule("bubble"),
}
Rank = Callable[[dict[str, Any]], list[Any]]
Key = tuple[str, int]


@dataclass
class Costs:
    """What was measured, by the name of the way to rank and the number of candidates.

    Args:
        wall: Seconds on the clock, one a repeat.
        processor: Seconds of the processor, one a repeat.
        peak: MiB at most in memory.
        asked: Comparisons, or scored candidates, of a prompt.
    """

    wall: dict[Key, list[float]]
    processor: dict[Key, list[float]]
    peak: dict[Key, float]
    asked: dict[Key, float]


def main() -> None:
    options = arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads do not survive a fork
    torch.set_num_threads(options.threads)
    ways = ways_to_rank(options)
    records = read_records(EXAMPLES)
    jobs = {n: make_job(records, options.prompts, n, tuple(options.words), options.seed) for n in options.candidates}
    costs = measure(ways, jobs, options.repeats, options.longest)
    publish(SCRIPT, report(costs, options), plot(costs, options.candidates), options.page)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--candidates", type=int, nargs="+", default=[3, 5, 10, 20, 50], help="numbers of candidates")
    parser.add_argument("--prompts", type=int, default=1, help="prompts that are ranked together")
    parser.add_argument("--words", type=int, nargs=2, default=[15, 30], help="least and most words of an answer, about")
    parser.add_argument("--repeats", type=int, default=3, help="of the timing")
    parser.add_argument("--longest", type=float, default=20, help="what takes more seconds is timed once")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0, help="of the texts")
    parser.add_argument("--page", type=Path, help="page to write the figures into; the plot goes beside it")
    return parser.parse_args()


def ways_to_rank(options: argparse.Namespace) -> dict[str, Rank]:
    """Return the ways to rank a job by their names, those of pairs first."""
    pairwise = Blender.from_pretrained(options.ranker, None, device="cpu")
    pointwise = Blender(reward_model_of(pairwise.scorer.model), pairwise.scorer.processor.tokenizer)

    def way(blender: Blender, schedule: Schedule) -> Rank:
        return lambda job: blender.rank(job["prompts"], job["candidates"], schedule=schedule)

    return {name: way(pairwise, schedule) for name, schedule in SCHEDULES.items()} | {
        POINTWISE: way(pointwise, Schedule())
    }


def reward_model_of(ranker: PairRanker) -> PreTrainedModel:
    """Return a model that scores one candidate, with the encoder of a ranker and a head that has learnt nothing."""
    config = AutoConfig.for_model(**ranker.config.backbone_config.to_dict())
    config.num_labels = 1  # afterwards: the names of the labels, which the dictionary has, would overrule it
    model = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(ranker.backbone.state_dict(), strict=False)
    return model.eval()


def measure(ways: Mapping[str, Rank], jobs: Mapping[int, dict[str, Any]], repeats: int, longest: float) -> Costs:
    """Measure memory first, while this process has done no work yet, then time all ways in turn."""
    costs = Costs(defaultdict(list), defaultdict(list), {}, {})
    keys = [(name, n) for n in jobs for name in ways]
    for name, n in tqdm(keys, desc="memory"):
        costs.peak[name, n] = peak_of(lambda name=name, n=n: ways[name](jobs[n]))
    for name, n in tqdm(keys * repeats, desc="time"):
        if max(costs.wall[name, n], default=0.0) > longest:
            continue
        wall, processor = time.perf_counter(), time.process_time()
        rankings = ways[name](jobs[n])
        costs.wall[name, n].append(time.perf_counter() - wall)
        costs.processor[name, n].append(time.process_time() - processor)
        asked = sum(n if name == POINTWISE else ranking.n_comparisons for ranking in rankings)
        costs.asked[name, n] = asked / len(rankings)
    return costs


def peak_of(act: Callable[[], Any]) -> float:
    """Return the most MiB that a fork of this process has in memory while it does something."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        act()
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit("the process that was to be measured has failed; its error stands above") from None
    finally:
        process.join()


def ratios(seconds: Mapping[Key, Sequence[float]], base: str = POINTWISE) -> dict[Key, float]:
    """Return the median of each way to rank over that of the base with the same number of candidates."""
    return {(name, n): median(found) / median(seconds[base, n]) for (name, n), found in seconds.items()}


def report(costs: Costs, options: argparse.Namespace) -> str:
    ns, names = options.candidates, [*SCHEDULES, POINTWISE]

    def table(title: str, cells: Mapping[Key, float], form: str) -> list[str]:
        rows = [[name, *(format(cells[name, n], form) for n in ns)] for name in names]
        return [f"### {title}", "", markdown_table(["", *(f"N = {n}" for n in ns)], rows), ""]

    once = [f"{name}, N = {n}" for (name, n), found in costs.wall.items() if len(found) < options.repeats]
    return "\n".join(
        [
            *table("Time on the clock, pointwise = 1", ratios(costs.wall), ".1f"),
            *table("Time of the processor, pointwise = 1", ratios(costs.processor), ".1f"),
            *table("Comparisons, or scored candidates, of a prompt", costs.asked, ".0f"),
            *table("Peak memory of the process, MiB", costs.peak, ".0f"),
            f"Ranker {shown(options.ranker)}, float32 on a CPU, {options.threads} thread(s), "
            f"torch {torch.__version__}; {options.prompts} prompt(s) with answers of about {options.words[0]} to "
            f"{options.words[1]} words; medians of {options.repeats} interleaved runs (timed fewer times: "
            f"{'; '.join(once) or 'none'}). Memory is that of a whole process with Python, torch and both models.",
        ]
    )


def plot(costs: Costs, ns: Sequence[int]) -> Any:
    drawing, (left, right) = draw(2)
    found = ratios(costs.processor)
    for name in [*SCHEDULES, POINTWISE]:
        left.plot(ns, [found[name, n] for n in ns], marker="o", markersize=3, label=name)
        right.plot(ns, [costs.peak[name, n] for n in ns], marker="o", markersize=3, label=name)
    left.set(xscale="log", yscale="log", xlabel="candidates", ylabel="processor time, pointwise = 1")
    right.set(xscale="log", xlabel="candidates", ylabel="peak memory of the process, MiB")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xticks(ns, [str(n) for n in ns])
        axes.minorticks_off()
    left.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
