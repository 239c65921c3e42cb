"""Measures several rankers on the same judged pairs, and how far from the first the others are.

    python benchmarks/side_by_side.py dev.jsonl.gz other_dev.jsonl.gz --rankers pair-ranker-mini runs/pair-ranker-mini \
        --names "this model" "run again" --card model_cards/pair-ranker-mini.md

Prints a Markdown table with a column for each ranker. The interval of a difference comes from drawing prompts anew
within their sources.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cards import markdown_table, show_figures
from judged_pairs import decided_pairs
from ranker_dev import DAMAGE_NAMES, calibration_of, compared, damage_found, figures

from blender_hf import Blender, Comparison
from blender_hf.data.labelled_reading import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.bootstrap import Shares, mean_of_figures
from blender_hf.evaluation.pairwise import accuracy, by_source

SCRIPT = "benchmarks/side_by_side.py"
Judged = list[tuple[PreferencePair, Comparison]]


@dataclass(frozen=True)
class Measured:
    """What was found of one ranker.

    Args:
        rows: The cells of its column, by the name of their row.
        sources: The judged pairs of the first file, by their source, in the order of the file.
    """

    rows: dict[str, str]
    sources: dict[str, Judged]


def main() -> None:
    options = arguments()
    found = [measured(name, options) for name in options.rankers]
    differences = [difference(found[0], other) for other in found[1:]]
    names = options.names or [Path(name).name for name in options.rankers]
    cells = [[row, *(column.rows[row] for column in found)] for row in found[0].rows]
    cells.insert(1, ["difference, and its 95% interval", "", *differences])
    note = (
        f"The means are over the sources of {options.data[0].name.split('.')[0]}, decided pairs, at most "
        f"{options.max_pairs_per_source} of a source; {options.damaged_pairs} pairs of each kind of damage (seed "
        f"{options.seed}). Differences are drawn anew by prompts within the sources; they say how much the choice of "
        "prompts may matter, and not that of a seed of training."
    )
    show_figures(f"{markdown_table(['', *names], cells)}\n\n{note}", SCRIPT, options.card)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="JSONL files of judged pairs; means are over the first")
    parser.add_argument("--rankers", nargs="+", required=True, help="Hub ids or folders")
    parser.add_argument("--names", nargs="+", help="what the table calls them")
    parser.add_argument("--columns", nargs="*", default=["vicuna80"], help="sources of the first file, one by one")
    parser.add_argument("--max-pairs-per-source", type=int, default=200, help="drawn at random of larger sources")
    parser.add_argument("--damaged-pairs", type=int, default=150, help="self-made pairs of each kind of damage")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--card", type=Path, help="card to write the table into")
    options = parser.parse_args()
    if options.names and len(options.names) != len(options.rankers):
        parser.error(f"{len(options.rankers)} rankers have {len(options.names)} names; give one for each")
    return options


def measured(ranker: str, options: argparse.Namespace) -> Measured:
    blender = Blender.from_pretrained(ranker, None)
    first, *others = (judged(path, blender, options) for path in options.data)
    found = {source: figures(group) for source, group in first.items()}
    means = {name: fmean(row[name] for row in found.values()) for name in ("both orders", "without length", "flips")}
    pairs, results = zip(*(row for group in first.values() for row in group), strict=True)
    calibration = calibration_of(pairs, results, blender.scorer.model.config.logit_temperature)
    damage = damage_found(list(read_labelled(options.data[0])), blender, options)
    single = {name: found[name] for name in options.columns}
    single |= {source: figures(group) for groups in others for source, group in groups.items()}
    values: dict[str, Any] = {
        "mean over sources": means["both orders"],
        "without length": means["without length"],
        "flips": means["flips"],
        "calibration error": calibration["error"],
        "temperature": calibration["temperature"],
        **{f"against damage: {DAMAGE_NAMES[kind]}": row["both orders"] for kind, row in damage.items()},
        **{source: row["both orders"] for source, row in single.items()},
    }
    return Measured({name: f"{value:.3f}" for name, value in values.items()}, first)


def judged(path: Path, blender: Blender, options: argparse.Namespace) -> dict[str, Judged]:
    """Compare the decided pairs of a file, and return them by source."""
    pairs = decided_pairs(read_labelled(path), options.max_pairs_per_source, options.seed)
    return by_source([pair.source for pair in pairs], list(zip(pairs, compared(pairs, blender), strict=True)))


def difference(first: Measured, other: Measured) -> str:
    """Return by how much the mean over the sources is another, with its interval."""
    groups = [_shares(first.sources[source], group) for source, group in other.sources.items()]
    found = mean_of_figures(groups)["difference"]
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _shares(first: Sequence[tuple[PreferencePair, Comparison]], other: Judged) -> list[Shares]:
    """Return what each prompt of a source adds to the difference, above and below the line."""
    lost: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for (pair, mine), (_, its) in zip(first, other, strict=True):
        right, wrong = (accuracy([result.logit], [pair.label]) or 0.0 for result in (its, mine))
        lost[pair.prompt] += right - wrong
        count[pair.prompt] += 1
    return [{"difference": (lost[prompt], float(count[prompt]))} for prompt in count]


if __name__ == "__main__":
    main()
