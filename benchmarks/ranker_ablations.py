"""Train small rankers that differ in one setting, on the same data with the same budget, and compare them.

    python -m benchmarks.ranker_ablations --encoder ENCODER --data train.jsonl.gz --dev dev.jsonl.gz --save

Each is a run of `blender-hf train`; runs that are finished in the folder of runs are not trained again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.judged import parser_of
from benchmarks.tables import Cell, Table, publish
from blender_hf.cli.main import main as blender_hf

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablations.yaml"
COLUMNS = {
    "both orders": "accuracy",
    "one order": "accuracy_one_order",
    "flips": "flip_rate",
    "longer is better": "accuracy_longer",
}


@dataclass(frozen=True)
class Variant:
    """A run that differs from the others in one setting."""

    name: str
    kind: str = "ranker"
    settings: tuple[str, ...] = ()


PAIRWISE = (
    "pooling=mean",
    "dropout=0.0",
    "attention_dropout=0.0",
    "max_pair_length=256",
    "max_source_length=96",
    "source_truncation_side=left",
)
SYMMETRIC = (*PAIRWISE, "symmetric=true", "head_learning_rate=5e-4")
VARIANTS = (
    Variant("pointwise (TRL's RewardTrainer)", "reward-model", ("max_input_length=176",)),
    Variant("pairwise", settings=(*PAIRWISE, "head_learning_rate=5e-4")),
    Variant("pairwise, symmetric", settings=SYMMETRIC),
    Variant("pairwise, symmetric, with damaged pairs", settings=(*SYMMETRIC, "synthetic_negatives=120")),
    Variant("pairwise, symmetric, lengths balanced", settings=(*SYMMETRIC, "balance_lengths=true")),
    Variant("pairwise, symmetric, English only", settings=(*SYMMETRIC, "languages=[en]")),
)


def main() -> None:
    options = arguments()
    rows = []
    for variant in VARIANTS:
        if not options.only or variant.name in options.only:
            folder = options.runs / "".join(c if c.isalnum() else "-" for c in variant.name)
            settings = [f"model={options.encoder}", f"data=[{options.data}]", f"eval_data=[{options.dev}]"]
            train_once(folder, variant.kind, [*settings, *variant.settings])
            rows.append(row_of(variant.name, metrics_of(folder)))
    if options.beside:
        rows.append(row_of("pointwise, a larger budget", metrics_of(options.beside)))
    columns = {"ranker": "", "training pairs": "d", **dict.fromkeys(COLUMNS, ".3f")}
    publish(__file__, [Table(columns, rows), note(options)], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--encoder", required=True, help="Hub id or folder of the encoder")
    parser.add_argument("--data", required=True, help="labelled data to train on")
    parser.add_argument("--dev", required=True, help="labelled data to measure on")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder of the runs")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--beside", type=Path, help="finished run of configs/reward_model_mini.yaml, one more row")
    return parser.parse_args()


def train_once(folder: Path, kind: str, settings: Sequence[str]) -> None:
    """Train a model with the settings of the ablations, unless its folder has a finished run."""
    if not (folder / "metrics.json").is_file():
        own = [f"output_dir={folder}", *settings]
        code = blender_hf(["train", kind, "--config", str(CONFIG), "--resume", "--set", *own])
        if code:
            raise SystemExit(code)


def row_of(name: str, metrics: dict[str, Any]) -> list[Cell]:
    return [name, metrics["training pairs"], *(metrics["eval"][f"eval_{metric}"] for metric in COLUMNS.values())]


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def note(options: argparse.Namespace) -> str:
    beside = ""
    if options.beside:
        larger = yaml.safe_load((options.beside / "settings.yaml").read_text(encoding="utf-8"))
        beside = (
            f" The last row had up to {larger['max_pairs_per_source']} pairs per source, truncated at "
            f"{larger['max_input_length']} tokens, and is measured on up to {larger['max_eval_pairs_per_source']}."
        )
    return (
        "The same encoder, one epoch over at most 120 pairs per source, pairs truncated at 256 tokens (176 for the "
        "prompt with one answer that a pointwise model reads); mean over the sources of "
        f"{Path(options.dev).name.split('.')[0]}, at most 60 decided pairs of each. One run per row, so differences "
        f"of three points may be chance.{beside}"
    )


if __name__ == "__main__":
    main()
