"""Trains small rankers that differ in one thing, on the same data with the same budget, and compares them.

    python benchmarks/ranker_ablations.py --encoder ENCODER --data train.jsonl.gz --dev dev.jsonl.gz \
        --card model_cards/pair-ranker-mini.md

Each is a run of `blender-hf train`; one that is finished in the folder of runs is not trained again. Prints a table.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import yaml
from cards import markdown_table, show_figures

from blender_hf.cli.main import main as blender_hf

SCRIPT = "benchmarks/ranker_ablations.py"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablations.yaml"
COLUMNS = {"both orders": "accuracy", "one order": "accuracy_one_order", "flips": "flip_rate"}


@dataclass(frozen=True)
class Variant:
    """A run that differs from the others in one thing."""

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
    Variant("pairwise, symmetric, with damaged pairs", settings=(*SYMMETRIC, "damaged_pairs=120")),
    Variant("pairwise, symmetric, lengths balanced", settings=(*SYMMETRIC, "balance_lengths=true")),
    Variant("pairwise, symmetric, English only", settings=(*SYMMETRIC, "languages=[en]")),
)


def main() -> None:
    options = arguments()
    chosen = [variant for variant in VARIANTS if not options.only or variant.name in options.only]
    rows = [row_of(variant.name, trained(variant, options)) for variant in chosen]
    if options.beside:
        rows.append(row_of("pointwise, a larger budget", metrics_of(options.beside)))
    text = f"{markdown_table(['ranker', 'training pairs', *COLUMNS, 'longer is better'], rows)}\n\n{note(options)}"
    show_figures(text, SCRIPT, options.card)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", required=True, help="Hub id or folder of the encoder")
    parser.add_argument("--data", required=True, help="labelled data to train on")
    parser.add_argument("--dev", required=True, help="labelled data to measure on")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder of the runs")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--beside", type=Path, help="finished run of configs/reward_model_mini.yaml, one more row")
    parser.add_argument("--card", type=Path, help="card to write the table into")
    return parser.parse_args()


def row_of(name: str, metrics: dict) -> list[str]:
    found = metrics["eval"]
    shares = [f"{found[f'eval_{name}']:.3f}" for name in (*COLUMNS.values(), "accuracy_longer")]
    return [name, str(metrics["training pairs"]), *shares]


def trained(variant: Variant, options: argparse.Namespace) -> dict:
    """Return the metrics of a run, which is trained if it is not there."""
    folder = options.runs / "".join(c if c.isalnum() else "-" for c in variant.name)
    if not (folder / "metrics.json").is_file():
        own = [
            f"output_dir={folder}",
            f"model={options.encoder}",
            f"data=[{options.data}]",
            f"eval_data=[{options.dev}]",
        ]
        code = blender_hf(
            ["train", variant.kind, "--config", str(CONFIG), "--resume", "--set", *own, *variant.settings]
        )
        if code:
            raise SystemExit(code)
    return metrics_of(folder)


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def note(options: argparse.Namespace) -> str:
    beside = ""
    if options.beside:
        larger = yaml.safe_load((options.beside / "settings.yaml").read_text(encoding="utf-8"))
        beside = (
            f" The last row had up to {larger['max_pairs_per_source']} pairs of each source, cut at "
            f"{larger['max_input_length']} tokens, and is measured on up to {larger['max_eval_pairs_per_source']}."
        )
    return (
        "The same encoder, one pass over at most 120 pairs of each source, pairs cut at 256 tokens, 176 for "
        "the prompt with one answer that a pointwise model reads; mean over the sources of "
        f"{Path(options.dev).name.split('.')[0]}, at most 60 decided pairs of each. One run a row, so three points "
        f"may be chance.{beside}"
    )


if __name__ == "__main__":
    main()
