"""Measures a ranker on judged pairs: accuracy for every source, beside the rule that the longer answer is better.

    python benchmarks/ranker_dev.py dev.jsonl.gz --card model_cards/pair-ranker-mini.md

Prints a Markdown table, and a JSON object on the last line.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from cards import markdown_table, show_figures
from judged_pairs import decided_pairs
from tqdm import tqdm

from blender_hf import Blender, Comparison
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.results import probability_of
from blender_hf.evaluation.calibration import expected_calibration_error
from blender_hf.evaluation.pairwise import accuracy, by_source, flip_rate, length_rule
from blender_hf.training.calibrate import compare_pairs
from blender_hf.training.damaged_data import DAMAGES, damaged_pairs

SCRIPT = "benchmarks/ranker_dev.py"
DAMAGE_NAMES = {
    "near": "the answer to a similar prompt",
    "foreign": "the answer to another prompt",
    "cut": "cut short",
    "shortened": "its first passages alone",
    "loop": "caught in a loop",
    "shuffled": "in another order",
}
Judged = Sequence[tuple[PreferencePair, Comparison]]
CHUNK = 64  # pairs between two steps of the progress bar


def main() -> None:
    options = arguments()
    prompts = list(read_labelled(options.data))
    pairs = decided_pairs(prompts, options.max_pairs_per_source, options.seed)
    blender = Blender.from_pretrained(options.ranker, None)
    groups = judged_by_source(pairs, blender)
    rows = {source: figures(group) for source, group in groups.items()}
    rows["mean over sources"] = mean_over(rows)
    damage = damage_found(prompts, blender, options) if options.damaged_pairs else {}
    calibration = calibration_of(groups, blender.scorer.model.config.logit_temperature)
    text = report(rows, damage, calibration, options)
    show_figures(text, SCRIPT, options.card)
    print(json.dumps({"accuracy": rows, "damage": damage, "calibration": calibration}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="JSONL file of judged pairs")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--max-pairs-per-source", type=int, default=400, help="drawn at random of larger sources")
    parser.add_argument("--damaged-pairs", type=int, default=150, help="self-made pairs of each kind of damage")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--card", type=Path, help="card to write the figures into")
    return parser.parse_args()


def compared(pairs: Sequence[PreferencePair], blender: Blender) -> list[Comparison]:
    """Compare the two answers of every pair, in both orders."""
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    return [result for chunk in tqdm(chunks) for result in compare_pairs(blender, chunk)]


def judged_by_source(pairs: Sequence[PreferencePair], blender: Blender) -> dict[str, Judged]:
    """Compare the two answers of every pair, and return them by source."""
    return by_source([pair.source for pair in pairs], list(zip(pairs, compared(pairs, blender), strict=True)))


def mean_over(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the sources."""
    return {name: fmean(row[name] for row in rows.values()) for name in next(iter(rows.values()))}


def damage_found(
    prompts: Sequence[LabelledPrompt], blender: Blender, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Return for each kind of self-made damage how often the whole answer is preferred."""
    found = {}
    for kind in DAMAGES:
        pairs = damaged_pairs(prompts, options.damaged_pairs, options.seed, [kind])
        row = figures(list(zip(pairs, compared(pairs, blender), strict=True)))
        found[kind] = {name: row[name] for name in ("pairs", "both orders", "longer is better")}
    return found


def calibration_of(groups: dict[str, Judged], temperature: float) -> dict[str, float]:
    """Return how far the probabilities are off, with the stored temperature and without it."""
    pairs, results = zip(*(row for group in groups.values() for row in group), strict=True)
    labels = [pair.label for pair in pairs]
    plain = [probability_of(result.logit) for result in results]
    return {
        "temperature": temperature,
        "error": expected_calibration_error([result.probability for result in results], labels),
        "error without": expected_calibration_error(plain, labels),
    }


def figures(judged: Judged) -> dict[str, float]:
    """Return the figures of one source; a tie, of logits or of lengths, is half right."""
    pairs, results = zip(*judged, strict=True)
    labels = [pair.label for pair in pairs]
    lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
    first, second = [result.logit_ab for result in results], [result.logit_ba for result in results]
    both = [result.logit for result in results]
    found = {
        "both orders": accuracy(both, labels),
        "one order": accuracy(first, labels),
        "without length": without_length(both, lengths, labels),
        "longer is better": accuracy(lengths, labels),
        "flips": flip_rate(first, second),
    }
    return {"pairs": len(judged), **{name: value or 0.0 for name, value in found.items()}}


def without_length(logits: Sequence[float], lengths: Sequence[float], labels: Sequence[float]) -> float:
    """Return the mean of two accuracies: where the longer answer is the better one, and where the shorter is.

    A taste for length, or against it, gains nothing here: it wins in the one what it loses in the other.
    """
    longer = [(length > 0) == (label > 0.5) for length, label in zip(lengths, labels, strict=True)]
    shares = []
    for side in (True, False):
        chosen = [k for k, value in enumerate(longer) if value == side and lengths[k] != 0]
        shares.append(accuracy([logits[k] for k in chosen], [labels[k] for k in chosen]) if chosen else 0.5)
    return fmean(share or 0.0 for share in shares)


def report(
    rows: dict[str, dict[str, float]],
    damage: dict[str, dict[str, float]],
    calibration: dict[str, float],
    options: argparse.Namespace,
) -> str:
    names = [name for name in next(iter(rows.values())) if name != "pairs"]
    cells = [
        [source, "" if source.startswith("mean") else str(row["pairs"]), *(f"{row[name]:.3f}" for name in names)]
        for source, row in rows.items()
    ]
    note = (
        f"{options.data.name.split('.')[0]}, decided pairs, at most {options.max_pairs_per_source} of a source (seed "
        f'{options.seed}); chance is 0.5; higher is better but for flips. "Without length" is the mean of the accuracy '
        "on pairs whose longer answer is the better one and on those whose shorter is. Expected calibration error of "
        f"the probabilities over all of these pairs: {calibration['error']:.3f} with the stored temperature of "
        f"{calibration['temperature']:.2f}, {calibration['error without']:.3f} without."
    )
    parts = [markdown_table(["source", "pairs", *names], cells), note]
    if damage:
        parts += [
            "A good answer against a text with self-made damage, on prompts of the same file:",
            damage_table(damage),
        ]
    return "\n\n".join(parts)


def damage_table(damage: dict[str, dict[str, float]]) -> str:
    cells = [
        [DAMAGE_NAMES[kind], str(row["pairs"]), f"{row['both orders']:.3f}", f"{row['longer is better']:.3f}"]
        for kind, row in damage.items()
    ]
    return markdown_table(["the damaged text is", "pairs", "good one preferred", "longer is better"], cells)


if __name__ == "__main__":
    main()
