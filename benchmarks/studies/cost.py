"""Measure the cost of ranking, by schedule and from separate encodings, against pointwise scoring.

    python -m benchmarks.studies.cost --save

All ways have the same encoder. Times are medians of interleaved repeats. Peak memory is that of a separate process for
each figure, forked from one that has only loaded the models (Linux).
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from benchmarks.inputs import make_job, read_records, separate_of
from benchmarks.judged import parser_of
from benchmarks.studies.common import display_name, draw
from benchmarks.tables import Table, publish
from blender_hf import Blender, Schedule
from blender_hf.engine.separate import CandidateEncoder
from blender_hf.modeling import PairRanker

POINTWISE = "pointwise"
SCHEDULES = {
    "full": Schedule(),
    "adaptive": Schedule("adaptive"),
    "adaptive, top 1": Schedule("adaptive", top_k=1),
    "knockout": Schedule("knockout"),
    "bubble": Schedule("bubble"),
}
# All pairs from one encoding a candidate, with the prompt in each, or read once for all.
SEPARATE = {"separate": False, "separate, shared prompt": True}
WAYS = (*SCHEDULES, *SEPARATE, POINTWISE)
FULL = SCHEDULES["full"]
Rank = Callable[[dict[str, Any]], list[Any]]
Key = tuple[str, int]


@dataclass
class Costs:
    """Measurements by the name of the way to rank and the number of candidates."""

    wall: dict[Key, list[float]]  # seconds of wall time, one per repeat
    processor: dict[Key, list[float]]  # seconds of CPU time, one per repeat
    peak: dict[Key, float]  # peak memory in MiB
    asked: dict[Key, float]  # texts that the model reads per prompt: pairs, or single candidates


def main() -> None:
    options = arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads do not survive a fork
    torch.set_num_threads(options.threads)
    ways = ways_to_rank(options)
    records = read_records()
    jobs = {
        n: make_job(records, options.prompts, n, tuple(options.words), options.seed, options.passage_words)
        for n in options.candidates
    }
    costs = measure(ways, jobs, options.repeats, options.longest)
    publish(__file__, sections(costs, options), options, drawing=plot(costs, options.candidates))


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument(
        "--candidates", type=int, nargs="+", default=[2, 3, 5, 10, 20, 50], help="numbers of candidates"
    )
    parser.add_argument("--prompts", type=int, default=1, help="prompts ranked together")
    parser.add_argument("--words", type=int, nargs=2, default=[15, 30], help="shortest and longest answers, about")
    parser.add_argument("--passage-words", type=int, default=0, help="words of a text before each prompt")
    parser.add_argument("--repeats", type=int, default=3, help="of the timing")
    parser.add_argument("--longest", type=float, default=20, help="seconds beyond which a ranking is timed once")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser.parse_args()


def ways_to_rank(options: argparse.Namespace) -> dict[str, Rank]:
    """Return the ways to rank a job by their names, the pairwise ones first."""
    pairwise = Blender.from_pretrained(options.ranker, None, device="cpu")
    model, processor = pairwise.scorer.model, pairwise.scorer.processor
    pointwise = Blender(reward_model_of(model), processor.tokenizer)

    def way(blender: Blender, schedule: Schedule) -> Rank:
        def rank(job: dict[str, Any]) -> list[Any]:
            if isinstance(blender.scorer, CandidateEncoder):
                blender.scorer.forget()
            return blender.rank(job["prompts"], job["candidates"], schedule=schedule)

        return rank

    return {
        **{name: way(pairwise, schedule) for name, schedule in SCHEDULES.items()},
        **{name: way(Blender(separate_of(model, shared), processor), FULL) for name, shared in SEPARATE.items()},
        POINTWISE: way(pointwise, FULL),
    }


def reward_model_of(ranker: PairRanker) -> PreTrainedModel:
    """Return a pointwise model with the encoder of a ranker and a random head."""
    config = AutoConfig.for_model(**ranker.config.backbone_config.to_dict())
    config.num_labels = 1  # afterwards: the label names in the dictionary would override it
    model = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(ranker.backbone.state_dict(), strict=False)
    return model.eval()


def measure(ways: Mapping[str, Rank], jobs: Mapping[int, dict[str, Any]], repeats: int, longest: float) -> Costs:
    """Measure memory first, before this process does any work, then time all ways in turn."""
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
        asked = sum(ranking.n_encodings for ranking in rankings)
        costs.asked[name, n] = asked / len(rankings)
    return costs


def peak_of(act: Callable[[], Any]) -> float:
    """Return the peak memory in MiB of a fork of this process during a call."""
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
        raise SystemExit("the measured process failed; see its error above") from None
    finally:
        process.join()


def ratios(seconds: Mapping[Key, Sequence[float]], base: str = POINTWISE) -> dict[Key, float]:
    """Return the median of each way to rank, relative to the base with the same number of candidates."""
    return {(name, n): median(found) / median(seconds[base, n]) for (name, n), found in seconds.items()}


def sections(costs: Costs, options: argparse.Namespace) -> list[str | Table]:
    columns = {
        "Wall time, relative to pointwise": (ratios(costs.wall), ".2f"),
        "CPU time, relative to pointwise": (ratios(costs.processor), ".2f"),
        "Texts read per prompt": (costs.asked, ".0f"),
        "Peak memory of the process, MiB": (costs.peak, ".0f"),
    }
    found: list[str | Table] = []
    for title, (cells, form) in columns.items():
        rows = [[name, *(cells[name, n] for n in options.candidates)] for name in WAYS]
        found += [f"### {title}", Table({"": "", **{f"N = {n}": form for n in options.candidates}}, rows)]
    once = [f"{name}, N = {n}" for (name, n), taken in costs.wall.items() if len(taken) < options.repeats]
    low, high = options.words
    note = (
        f"Ranker {display_name(options.ranker)}, float32 on a CPU, {options.threads} thread(s), torch "
        f"{torch.__version__}; {options.prompts} prompt(s), each with a passage of {options.passage_words} words, and "
        f"answers of about {low} to {high} words; medians of {options.repeats} interleaved runs (timed fewer times: "
        f"{'; '.join(once) or 'none'}). Memory is that of a whole process with Python, torch and the models."
    )
    return [*found, note]


def plot(costs: Costs, ns: Sequence[int]) -> Any:
    drawing, (left, right) = draw(2)
    found = ratios(costs.processor)
    for name in WAYS:
        left.plot(ns, [found[name, n] for n in ns], marker="o", markersize=3, label=name)
        right.plot(ns, [costs.peak[name, n] for n in ns], marker="o", markersize=3, label=name)
    left.set(xscale="log", yscale="log", xlabel="candidates", ylabel="CPU time, relative to pointwise")
    right.set(xscale="log", xlabel="candidates", ylabel="peak memory of the process, MiB")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xticks(ns, [str(n) for n in ns])
        axes.minorticks_off()
    left.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
