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

from cards import markdown_table, show_figures
from judged_pairs import decided_pairs
from ranker_dev import (
    DAMAGE_NAMES,
    Judged,
    calibration_of,
    damage_found,
    figures,
    judged_by_source,
    mean_over,
)

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.evaluation.bootstrap import Ratios, mean_of_figures
from blender_hf.evaluation.pairwise import accuracy

SCRIPT = "benchmarks/side_by_side.py"


@dataclass(frozen=True)
class Measured:
    """What was found of one ranker.

    Args:
        rows: The figures of its column, by the name of their row.
        sources: The judged pairs of the first file, by their source.
    """

    rows: dict[str, float]
    sources: dict[str, Judged]


def main() -> None:
    options = arguments()
    files = [list(read_labelled(path)) for path in options.data]
    found = [measured(ranker, files, options) for ranker in options.rankers]
    cells = [[row, *(f"{column.rows[row]:.3f}" for column in found)] for row in found[0].rows]
    cells.insert(1, ["difference, and its 95% interval", "", *(difference(found[0], other) for other in found[1:])])
    names = options.names or [Path(name).name for name in options.rankers]
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


def measured(ranker: str, files: Sequence[Sequence[LabelledPrompt]], options: argparse.Namespace) -> Measured:
    blender = Blender.from_pretrained(ranker, None)
    drawn = [decided_pairs(prompts, options.max_pairs_per_source, options.seed) for prompts in files]
    first, *others = (judged_by_source(pairs, blender) for pairs in drawn)
    figures_of = {source: figures(group) for source, group in first.items()}
    means = mean_over(figures_of)
    calibration = calibration_of(first, blender.scorer.model.config.logit_temperature)
    damage = damage_found(files[0], blender, options)
    single = {name: figures_of[name] for name in options.columns}
    single |= {source: figures(group) for groups in others for source, group in groups.items()}
    rows = {
        "mean over sources": means["both orders"],
        "without length": means["without length"],
        "flips": means["flips"],
        "calibration error": calibration["error"],
        "temperature": calibration["temperature"],
        **{f"against damage: {DAMAGE_NAMES[kind]}": row["both orders"] for kind, row in damage.items()},
        **{source: row["both orders"] for source, row in single.items()},
    }
    return Measured(rows, first)


def difference(first: Measured, other: Measured) -> str:
    """Return by how much the mean over the sources is another, with its interval."""
    groups = [_shares(first.sources[source], group) for source, group in other.sources.items()]
    found = mean_of_figures(groups)["difference"]
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _shares(first: Judged, other: Judged) -> list[Ratios]:
    """Return what each prompt of a source adds to the difference, above and below the line."""
    gained: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for (pair, before), (_, after) in zip(first, other, strict=True):
        was, now = (accuracy([result.logit], [pair.label]) or 0.0 for result in (before, after))
        gained[pair.prompt] += now - was
        count[pair.prompt] += 1
    return [{"difference": (gained[prompt], float(count[prompt]))} for prompt in count]


if __name__ == "__main__":
    main()
