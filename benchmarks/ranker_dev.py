"""Measure a ranker on judged pairs: accuracy by source, next to the rule that the longer answer is better.

python -m benchmarks.ranker_dev dev.jsonl.gz --save
python -m benchmarks.ranker_dev dev.jsonl.gz --ranker pair-ranker-base --negatives 0 --save
"""

import argparse
from collections.abc import Mapping

from benchmarks.judged import (
    Metrics,
    against_negatives,
    calibration_of,
    decided_pairs,
    judged_by_source,
    judged_parser,
    mean_over,
    pair_metrics,
)
from benchmarks.tables import Table, publish
from blender_hf import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.loading.checkpoints import DEFAULT_RANKER

# What the documents call the corruptions.
NEGATIVE_NAMES = {
    "near": "the answer to a similar prompt",
    "foreign": "the answer to another prompt",
    "cut": "cut short",
    "shortened": "its first passages alone",
    "loop": "caught in a loop",
    "shuffled": "in another order",
}
METRICS = ("both orders", "one order", "without length", "longer is better", "flips")


def main() -> None:
    parser = judged_parser(__doc__, max_pairs=400)
    parser.add_argument("--negatives", type=int, default=150, help="synthetic negatives of each corruption; 0 for none")
    options = parser.parse_args()
    prompts = list(read_labelled(options.data))
    blender = Blender.from_pretrained(options.ranker, None)
    groups = judged_by_source(decided_pairs(prompts, options.max_pairs_per_source, options.seed), blender)
    rows = {source: pair_metrics(group) for source, group in groups.items()}
    calibration = calibration_of(groups, blender.ranker.model.config.logit_temperature)
    sections = [accuracy_table(rows), note(calibration, options)]
    if options.negatives:
        sections.append("A good answer against a synthetic negative, on prompts of the same file:")
        sections.append(negatives_table(against_negatives(prompts, blender, options)))
    variant = "" if options.ranker == DEFAULT_RANKER else options.ranker
    publish(__file__, sections, options, variant=variant, details={"calibration": calibration})


def accuracy_table(rows: Mapping[str, Metrics]) -> Table:
    mean = {**mean_over(rows), "pairs": None}
    cells = [
        [source, row["pairs"], *(row[name] for name in METRICS)]
        for source, row in {**rows, "mean over sources": mean}.items()
    ]
    return Table({"source": "", "pairs": "d", **dict.fromkeys(METRICS, ".3f")}, cells)


def negatives_table(found: Mapping[str, Metrics]) -> Table:
    cells = [
        [NEGATIVE_NAMES[kind], row["pairs"], row["both orders"], row["longer is better"]] for kind, row in found.items()
    ]
    return Table({"the negative is": "", "pairs": "d", "good one preferred": ".3f", "longer is better": ".3f"}, cells)


def note(calibration: Metrics, options: argparse.Namespace) -> str:
    return (
        f"{options.data.name.split('.')[0]}, decided pairs, at most {options.max_pairs_per_source} per source (seed "
        f'{options.seed}); chance is 0.5; higher is better except for flips. "Without length" is the mean of the '
        "accuracies where the longer answer is better and where the shorter is. Expected calibration error over all "
        f"of these pairs: {calibration['error']:.3f} with the stored temperature of {calibration['temperature']:.2f}, "
        f"{calibration['error without']:.3f} without it."
    )


if __name__ == "__main__":
    main()
