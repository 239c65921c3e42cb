"""Measures a ranker on answers that one small model samples at several temperatures.

    python benchmarks/question_temperature.py dev.jsonl.gz --page docs/question-temperature.md

The model is a fuser, which writes several answers to a prompt from the same candidates. Quality is closeness (chrF) to
the reference, so the prompts need one; the candidate that is the reference takes no part. Prints a Markdown table.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from cards import markdown_table
from fuser_dev import N_FUSED, chrf
from question_similarity import similarity
from questions import Logits, draw, load_ranker, publish, question_parser, read_all, shown, whiskers, with_interval

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.evaluation.bootstrap import Figure, Ratios, figures
from blender_hf.evaluation.pairwise import credits, length_rule
from blender_hf.inputs import Item, make_item

SCRIPT = "benchmarks/question_temperature.py"
LEAST_GAP = 1.0  # of chrF, from 0 to 100: nearer answers are a tie
JUDGES = ("ranker", "longer is better")
CLOSENESS = ("any one", "chosen", "best")


def main() -> None:
    options = arguments()
    blender = load_ranker(options, options.fuser)
    logits = Logits(blender, options.logits)
    drawn = draw_prompts(read_all(options.data), options.max_prompts_per_source, options.seed)
    items = [(read_by_the_fuser(prompt), prompt.reference or "") for prompt in drawn]
    found = {
        f"{temperature:g}": figures_at(temperature, items, blender, logits, options)
        for temperature in options.temperatures
    }
    publish(SCRIPT, f"{table(found)}\n\n{note(options, len(items))}", plot(found), options.page)


def arguments() -> argparse.Namespace:
    parser = question_parser(__doc__)
    parser.add_argument("--fuser", default="gen-fuser-mini", help="what samples the answers: Hub id or folder")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 3.0, 6.0, 12.0], help="of its sampling")
    parser.add_argument("--samples", type=int, default=4, help="answers to a prompt at each temperature")
    parser.add_argument("--max-prompts-per-source", type=int, default=6, help="drawn at random of larger sources")
    return parser.parse_args()


def draw_prompts(prompts: Sequence[LabelledPrompt], most: int, seed: int) -> list[LabelledPrompt]:
    """Return prompts with a reference and two other candidates, at most so many of a source."""
    by_source: dict[str, list[LabelledPrompt]] = defaultdict(list)
    for prompt in prompts:
        if prompt.reference and len(set(others(prompt))) > 1:
            by_source[prompt.source].append(prompt)
    rng = random.Random(seed)
    return [prompt for _, own in sorted(by_source.items()) for prompt in rng.sample(own, min(most, len(own)))]


def others(prompt: LabelledPrompt) -> list[str]:
    return [text for text in prompt.item.texts if text.strip() != (prompt.reference or "").strip()]


def read_by_the_fuser(prompt: LabelledPrompt) -> Item:
    """Return a prompt with the candidates that answers are written from: the first that differ."""
    return make_item(prompt.item.source, list(dict.fromkeys(others(prompt)))[:N_FUSED])


def figures_at(
    temperature: float,
    items: Sequence[tuple[Item, str]],
    blender: Blender,
    logits: Logits,
    options: argparse.Namespace,
) -> dict[str, Figure]:
    torch.manual_seed(options.seed)
    generation = {"do_sample": True, "temperature": temperature}
    repeated = [item for item, _ in items for _ in range(options.samples)]
    texts = iter([fusion.text for fusion in blender.iter_fuse(repeated, generation=generation)])
    rows = [
        row_of(make_item(item.source, [next(texts) for _ in range(options.samples)]), reference, logits)
        for item, reference in items
    ]
    return figures(rows, seed=options.seed)


def row_of(item: Item, reference: str, logits: Logits) -> Ratios:
    """Return what the answers to one prompt add to the figures."""
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
    """Return what pairs of texts, with the difference of their qualities, add: who is right, and how alike they are."""
    decided = [k for k, (_, _, gap) in enumerate(pairs) if abs(gap) >= LEAST_GAP]
    if not decided:
        return {}
    labels = [float(pairs[k][2] > 0) for k in decided]
    lengths = length_rule([pairs[k][0] for k in decided], [pairs[k][1] for k in decided])
    n = float(len(decided))
    ours = credits([logits[k] for k in decided], labels)
    return {
        "similarity": (sum(similarity(*pairs[k][:2]) for k in decided), n),
        "gap": (sum(abs(pairs[k][2]) for k in decided), n),
        "ranker": (sum(credit or 0.0 for credit in ours), n),
        "longer is better": (sum(credit or 0.0 for credit in credits(lengths, labels)), n),
        "size of the logit": (sum(abs(logits[k]) for k in decided), n),
    }


def table(found: Mapping[str, Mapping[str, Figure]]) -> str:
    header = ["temperature", "different, %", "pairs", "chrF between", "gap", *JUDGES, "size of the logit"]
    rows = [
        [
            name,
            f"{100 * own['different'].value:.0f}",
            f"{own['ranker'].n:.0f}" if "ranker" in own else "0",
            *(f"{own[key].value:.1f}" if key in own else "" for key in ("similarity", "gap")),
            *(with_interval(own[judge]) if judge in own else "" for judge in JUDGES),
            f"{own['size of the logit'].value:.2f}" if "ranker" in own else "",
        ]
        for name, own in found.items()
    ]
    closest = [[name, *(f"{own[way].value:.1f}" for way in CLOSENESS)] for name, own in found.items()]
    return (
        f"{markdown_table(header, rows)}\n\nchrF to the reference:\n\n"
        f"{markdown_table(['temperature', *CLOSENESS], closest)}"
    )


def note(options: argparse.Namespace, n: int) -> str:
    return (
        f"{options.samples} answers of {shown(options.fuser)} to each of {n} prompts, at most "
        f"{options.max_prompts_per_source} of a source (seed {options.seed}). Pairs are those of different answers "
        f"whose chrF to the reference is {LEAST_GAP:g} apart or more; in brackets the 95 % interval of a bootstrap "
        f"over prompts; chance is 0.5. Ranker {shown(options.ranker)}."
    )


def plot(found: Mapping[str, Mapping[str, Figure]]) -> Any:
    drawing, (left, right) = draw(2)
    names = [name for name, own in found.items() if "ranker" in own]
    for place, judge in enumerate(JUDGES):
        own = [found[name][judge] for name in names]
        places = [k + 0.08 * (2 * place - 1) for k in range(len(own))]
        left.errorbar(places, [f.value for f in own], yerr=whiskers(own), marker="o", capsize=2, label=judge)
    left.set_xticks(range(len(names)), names)
    left.set(xlabel="sampling temperature", ylabel="accuracy, 95 % interval")
    left.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    left.set_ylim(0.2, 1)
    for way in CLOSENESS:
        right.plot(range(len(found)), [own[way].value for own in found.values()], marker="o", label=way)
    right.set_xticks(range(len(found)), list(found))
    right.set(xlabel="sampling temperature", ylabel="chrF to the reference")
    for axes in (left, right):
        axes.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
