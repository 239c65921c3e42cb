"""Measure several rankers on the same judged pairs, and the difference of each from the first.

    python -m benchmarks.side_by_side dev.jsonl.gz other_dev.jsonl.gz --rankers pair-ranker-mini runs/pair-ranker-mini \
        --names "this model" "run again" --save

The interval of a difference is that of a bootstrap over prompts within their sources.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.judged import (
    Judged,
    Metrics,
    against_negatives,
    calibration_of,
    decided_pairs,
    judged_by_source,
    judged_parser,
    mean_over,
    pair_metrics,
)
from benchmarks.ranker_dev import NEGATIVE_NAMES
from benchmarks.tables import Cell, Table, interval, publish
from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.evaluation.bootstrap import Ratios, mean_of_figures
from blender_hf.evaluation.pairwise import accuracy


@dataclass(frozen=True)
class Measured:
    """The metrics of one ranker by the name of their row, and its judged pairs of the first file by source."""

    rows: Metrics
    sources: dict[str, Judged]


def main() -> None:
    options = arguments()
    files = [list(read_labelled(path)) for path in options.data]
    found = [measured(ranker, files, options) for ranker in options.rankers]
    names = options.names or [Path(name).name for name in options.rankers]
    cells: list[list[Cell]] = [[row, *(column.rows[row] for column in found)] for row in found[0].rows]
    cells.insert(1, ["difference, and its 95% interval", None, *(difference(found[0], other) for other in found[1:])])
    note = (
        f"The means are over the sources of {options.data[0].name.split('.')[0]}, decided pairs, at most "
        f"{options.max_pairs_per_source} per source; {options.negatives} synthetic negatives of each corruption (seed "
        f"{options.seed}). The intervals are from a bootstrap over prompts within the sources: they show how much the "
        "choice of prompts may matter, not that of a training seed."
    )
    publish(__file__, [Table({"": "", **dict.fromkeys(names, ".3f")}, cells), note], options)


def arguments() -> argparse.Namespace:
    parser = judged_parser(__doc__, max_pairs=200, files="+")
    parser.add_argument("--rankers", nargs="+", required=True, help="Hub ids or folders")
    parser.add_argument("--names", nargs="+", help="their names in the table")
    parser.add_argument("--columns", nargs="*", default=["vicuna80"], help="sources of the first file shown alone")
    parser.add_argument("--negatives", type=int, default=150, help="synthetic negatives of each corruption")
    options = parser.parse_args()
    if options.names and len(options.names) != len(options.rankers):
        parser.error(f"{len(options.rankers)} rankers have {len(options.names)} names; give one for each")
    return options


def measured(ranker: str, files: Sequence[Sequence[LabelledPrompt]], options: argparse.Namespace) -> Measured:
    blender = Blender.from_pretrained(ranker, None)
    drawn = [decided_pairs(prompts, options.max_pairs_per_source, options.seed) for prompts in files]
    first, *others = (judged_by_source(pairs, blender) for pairs in drawn)
    by_source = {source: pair_metrics(group) for source, group in first.items()}
    means = mean_over(by_source)
    calibration = calibration_of(first, blender.ranker.model.config.logit_temperature)
    single = {name: by_source[name] for name in options.columns}
    single |= {source: pair_metrics(group) for groups in others for source, group in groups.items()}
    negatives = against_negatives(files[0], blender, options)
    rows = {
        "mean over sources": means["both orders"],
        "without length": means["without length"],
        "flips": means["flips"],
        "calibration error": calibration["error"],
        "temperature": calibration["temperature"],
        **{f"against negatives: {NEGATIVE_NAMES[kind]}": row["both orders"] for kind, row in negatives.items()},
        **{source: row["both orders"] for source, row in single.items()},
    }
    return Measured(rows, first)


def difference(first: Measured, other: Measured) -> Cell:
    """Return the difference of the means over sources, with its interval."""
    groups = [_shares(first.sources[source], group) for source, group in other.sources.items()]
    return {**interval(mean_of_figures(groups)["difference"]), "format": "+.3f|+.3f"}


def _shares(first: Judged, other: Judged) -> list[Ratios]:
    """Return each prompt's numerator and denominator of the difference."""
    gained: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for (pair, before), (_, after) in zip(first, other, strict=True):
        was, now = (accuracy([result.logit], [pair.label]) or 0.0 for result in (before, after))
        gained[pair.prompt] += now - was
        count[pair.prompt] += 1
    return [{"difference": (gained[prompt], float(count[prompt]))} for prompt in count]


if __name__ == "__main__":
    main()
