"""Measure a ranker on answers sampled from one small model at several temperatures.

    python -m benchmarks.studies.temperature dev.jsonl.gz --save

The model is a fuser, which writes several answers to a prompt from the same candidates. Quality is closeness (chrF) to
the reference, so prompts need one; candidates equal to it are left out.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch

from benchmarks.fuser_dev import N_FUSED, Example, chrf, examples_of
from benchmarks.judged import read_all
from benchmarks.studies.common import (
    JUDGES,
    Logits,
    both_credits,
    display_name,
    draw,
    draw_lines,
    load_ranker,
    study_parser,
)
from benchmarks.studies.similarity import similarity
from benchmarks.tables import Table, interval, publish
from blender_hf import Blender
from blender_hf.evaluation.bootstrap import Figure, Ratios, figures
from blender_hf.inputs import Item, make_item

MIN_GAP = 1.0  # of chrF, 0 to 100; closer answers are a tie
CLOSENESS = ("any one", "chosen", "best")


def main() -> None:
    options = arguments()
    blender = load_ranker(options, options.fuser)
    logits = Logits(blender, options.logits)
    prompts = sorted(read_all(options.data), key=lambda prompt: prompt.source)
    examples = examples_of(prompts, options.max_prompts_per_source, options.seed)
    found = {
        f"{temperature:g}": figures_at(temperature, examples, blender, logits, options)
        for temperature in options.temperatures
    }
    sections = [judged_table(found), "chrF to the reference:", closeness_table(found), note(options, len(examples))]
    publish(__file__, sections, options, drawing=plot(found))


def arguments() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--fuser", default="gen-fuser-mini", help="model that samples the answers: Hub id or folder")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 3.0, 6.0, 12.0], help="of its sampling")
    parser.add_argument("--samples", type=int, default=4, help="answers to a prompt at each temperature")
    parser.add_argument("--max-prompts-per-source", type=int, default=6, help="random sample of larger ones")
    return parser.parse_args()


def fuser_input(item: Item) -> Item:
    """Return a prompt with the first different candidates, from which answers are written."""
    return make_item(item.source, list(dict.fromkeys(item.texts))[:N_FUSED])


def figures_at(
    temperature: float, examples: Sequence[Example], blender: Blender, logits: Logits, options: argparse.Namespace
) -> dict[str, Figure]:
    torch.manual_seed(options.seed)
    generation = {"do_sample": True, "temperature": temperature}
    repeated = [fuser_input(item) for _, item, _ in examples for _ in range(options.samples)]
    texts = iter([fusion.text for fusion in blender.iter_fuse(repeated, generation=generation)])
    rows = [
        row_of(make_item(item.source, [next(texts) for _ in range(options.samples)]), reference, logits)
        for _, item, reference in examples
    ]
    return figures(rows, seed=options.seed)


def row_of(item: Item, reference: str, logits: Logits) -> Ratios:
    """Return the numerators and denominators of a prompt."""
    texts = list(dict.fromkeys(item.texts))
    quality = [chrf(text, reference) for text in texts]
    pairs = list(combinations(range(len(texts)), 2))
    found = logits.of([make_item(item.source, [texts[a], texts[b]]) for a, b in pairs])
    row = {"different": (float(len(texts)), float(len(item.texts)))}
    row |= judged([(texts[a], texts[b], quality[a] - quality[b]) for a, b in pairs], found)
    sums = [0.0] * len(texts)
    for (a, b), logit in zip(pairs, found, strict=True):
        sums[a], sums[b] = sums[a] + logit, sums[b] - logit
    chosen = quality[max(range(len(texts)), key=lambda k: sums[k])]
    return row | {
        "any one": (fmean(chrf(text, reference) for text in item.texts), 1.0),
        "chosen": (chosen, 1.0),
        "best": (max(quality), 1.0),
    }


def judged(pairs: Sequence[tuple[str, str, float]], logits: Sequence[float]) -> Ratios:
    """Return numerators and denominators of pairs of texts, each with the difference of their qualities."""
    decided = [(pair, logit) for pair, logit in zip(pairs, logits, strict=True) if abs(pair[2]) >= MIN_GAP]
    if not decided:
        return {}
    labels = [float(gap > 0) for (_, _, gap), _ in decided]
    texts = [(a, b) for (a, b, _), _ in decided]
    ours, longer = zip(*both_credits(labels, [logit for _, logit in decided], texts), strict=True)
    sums = {
        "similarity": sum(similarity(a, b) for a, b in texts),
        "gap": sum(abs(gap) for (_, _, gap), _ in decided),
        "ranker": sum(ours),
        "longer is better": sum(longer),
        "size of the logit": sum(abs(logit) for _, logit in decided),
    }
    return {name: (value, float(len(decided))) for name, value in sums.items()}


def judged_table(found: Mapping[str, Mapping[str, Figure]]) -> Table:
    def value(own: Mapping[str, Figure], name: str) -> float | None:
        return own[name].value if name in own else None

    rows = [
        [
            name,
            100 * own["different"].value,
            own["ranker"].n if "ranker" in own else 0.0,
            value(own, "similarity"),
            value(own, "gap"),
            *(interval(own[judge]) if judge in own else None for judge in JUDGES),
            value(own, "size of the logit"),
        ]
        for name, own in found.items()
    ]
    columns = {"temperature": "", "different, %": ".0f", "pairs": ".0f", "chrF between": ".1f", "gap": ".1f"}
    return Table({**columns, **dict.fromkeys(JUDGES, ".3f|.2f"), "size of the logit": ".2f"}, rows)


def closeness_table(found: Mapping[str, Mapping[str, Figure]]) -> Table:
    rows = [[name, *(own[way].value for way in CLOSENESS)] for name, own in found.items()]
    return Table({"temperature": "", **dict.fromkeys(CLOSENESS, ".1f")}, rows)


def note(options: argparse.Namespace, n: int) -> str:
    return (
        f"{options.samples} answers of {display_name(options.fuser)} to each of {n} prompts, at most "
        f"{options.max_prompts_per_source} per source (seed {options.seed}). Pairs are those of different answers "
        f"whose chrF to the reference differs by {MIN_GAP:g} or more; in brackets the 95 % interval of a bootstrap "
        f"over prompts; chance is 0.5. Ranker {display_name(options.ranker)}."
    )


def plot(found: Mapping[str, Mapping[str, Figure]]) -> Any:
    drawing, (left, right) = draw(2)
    names = [name for name, own in found.items() if "ranker" in own]
    lines = {judge: [found[name][judge] for name in names] for judge in JUDGES}
    draw_lines(left, lines, names, "sampling temperature", "accuracy, 95 % interval")
    for way in CLOSENESS:
        right.plot(range(len(found)), [own[way].value for own in found.values()], marker="o", label=way)
    right.set_xticks(range(len(found)), list(found))
    right.set(xlabel="sampling temperature", ylabel="chrF to the reference")
    right.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
