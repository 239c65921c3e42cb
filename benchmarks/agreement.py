"""Measure how far encoding each candidate once agrees with reading pairs together, with the same weights.

    python -m benchmarks.agreement dev.jsonl.gz --save

The head of a pair ranker scores each candidate from what was read of it and of the prompt. So the same weights can read
the prompt with one candidate in place of two; `--separate` names a checkpoint that was trained to, for the other side.
"""

from collections.abc import Sequence
from statistics import fmean

from scipy.stats import kendalltau
from tqdm import tqdm

from benchmarks.judged import decided_pairs, judged_by_source, judged_parser, mean_over, pair_metrics, sampled
from benchmarks.tables import Table, publish
from blender_hf import Blender, PairRanker, PairRankerProcessor, Ranking, locate
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.pairwise import by_source
from blender_hf.modeling.configuration_pair_ranker import OF_JOINT

MIN_CANDIDATES = 3


def main() -> None:
    parser = judged_parser(__doc__, max_pairs=200)
    parser.add_argument("--separate", help="checkpoint that encodes each candidate once; none reads the ranker so")
    parser.add_argument("--max-prompts-per-source", type=int, default=25, help="random sample of larger sources")
    options = parser.parse_args()
    joint = joint_of(options.ranker)
    separate = Blender.from_pretrained(options.separate, None) if options.separate else separate_of(options.ranker)
    prompts = list(read_labelled(options.data))
    table = agreement_table(prompts, (joint, separate), options.max_prompts_per_source, options.seed)
    pairs = decided_pairs(prompts, options.max_pairs_per_source, options.seed)
    other = f"as {options.separate}" if options.separate else "one by one"
    data = options.data.name.split(".")[0]
    note = (
        f"{options.ranker} without its stated preference for more distinct tokens, read together and {other}; prompts "
        f"of {data} with {MIN_CANDIDATES} or more candidates, at most {options.max_prompts_per_source} per source, and "
        f"at most {options.max_pairs_per_source} decided pairs per source (seed {options.seed})."
    )
    publish(__file__, [table, accuracy_table(pairs, (joint, separate)), note], options)


def joint_of(name: str) -> Blender:
    """Load a pair ranker without a stated preference."""
    blender = Blender.from_pretrained(name, None)
    blender.ranker.model.config.distinct_token_weight = 0.0  # whether it states one or not
    return blender


def separate_of(name: str) -> Blender:
    """Load the weights of a pair ranker to read each candidate by itself."""
    where = locate(name)
    model = PairRanker.from_pretrained(where, candidate_encoding="separate", **OF_JOINT)
    return Blender(model, PairRankerProcessor.from_pretrained(where))


def agreement_table(
    prompts: Sequence[LabelledPrompt], blenders: tuple[Blender, Blender], most: int, seed: int
) -> Table:
    """Return how often both find the same best candidate and the same winners, by source."""
    large = [prompt for prompt in prompts if len(set(prompt.item.texts)) >= MIN_CANDIDATES]
    chosen = sampled(large, lambda prompt: prompt.source, most, seed)
    items = [prompt.item for prompt in chosen]
    rankings = [list(tqdm(blender.iter_rank(items), total=len(items))) for blender in blenders]
    found = by_source([prompt.source for prompt in chosen], [agreement(*both) for both in zip(*rankings, strict=True)])
    rows = {source: {"prompts": len(of_source), **mean_of(of_source)} for source, of_source in found.items()}
    shown = {**rows, "mean over sources": {**mean_over(rows), "prompts": None}}
    columns = {"prompts": "d", "same best": ".2f", "Kendall tau": ".2f", "same winner of a pair": ".2f"}
    cells = [[source, *(row[name] for name in columns)] for source, row in shown.items()]
    return Table({"source": "", **columns}, cells)


def agreement(joint: Ranking, separate: Ranking) -> dict[str, float]:
    """Return how far two rankings of one prompt agree."""
    n = len(joint.candidates)
    both = [(joint.comparisons[i][j], separate.comparisons[i][j]) for i in range(n) for j in range(i)]
    return {
        "same best": float(joint.best == separate.best),
        "Kendall tau": float(kendalltau(joint.scores, separate.scores).statistic),
        "same winner of a pair": fmean((a > 0) == (b > 0) for a, b in both),
    }


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over prompts."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def accuracy_table(pairs: Sequence[PreferencePair], blenders: tuple[Blender, Blender]) -> Table:
    """Return the accuracy of both on judged pairs, in the mean over the sources."""
    names = ("both orders", "without length")
    cells = []
    for label, blender in zip(("read together", "encoded once each"), blenders, strict=True):
        groups = judged_by_source(pairs, blender)
        means = mean_over({source: pair_metrics(group) for source, group in groups.items()})
        cells.append([label, *(means[name] for name in names)])
    return Table({"": "", "accuracy": ".3f", "without length": ".3f"}, cells)


if __name__ == "__main__":
    main()
