"""Measures how good the chosen and the fused answer are with N ensembled models, from two to all that there are.

    python benchmarks/question_candidates.py dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz \
        --page docs/question-candidates.md

All pairs of a prompt's candidates are compared once; every smaller ensemble is then played on these logits. Prints
Markdown tables.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from cards import markdown_table
from fuser_dev import chrf, rouge
from questions import (
    Logits,
    draw,
    load_ranker,
    publish,
    question_parser,
    read_all,
    shown,
    soft_labels,
    whiskers,
    with_interval,
)
from tqdm import tqdm
from worth import WORTHS, Worth, strengths_of

from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.engine.aggregation import max_logits
from blender_hf.evaluation.bootstrap import Figure, figures

SCRIPT = "benchmarks/question_candidates.py"
TOP_K = 3
SIZES = {"vicuna80": (2, 3, 4, 5, 6, 7, 8, 9), "alpaca_eval": (2, 3, 4, 6, 8, 12, 16, 20, 24)}
FUSED_SIZES = {"vicuna80": (2, 3, 5, 8), "alpaca_eval": (2, 4, 8, 16, 23)}
WAYS = ("any one", "longest", "best single model", "chosen", "oracle")
Matrix = list[list[float]]
Row = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Ensemble:
    """All candidates of a prompt whose worth is known.

    Args:
        prompt: The prompt.
        indices: The places of the candidates in it.
        worth: What each is worth by the labels, 0 to 1.
        strength: How strong its model is on the other prompts.
        logits: The comparisons, (candidates, candidates).
    """

    prompt: LabelledPrompt
    indices: tuple[int, ...]
    worth: tuple[float, ...]
    strength: tuple[float, ...]
    logits: Matrix

    @property
    def texts(self) -> list[str]:
        """The candidates."""
        return [self.prompt.item.texts[index] for index in self.indices]


def main() -> None:
    options = arguments()
    prompts, soft = read_all(options.data), soft_labels(options.data)
    blender = load_ranker(options, options.fuser)
    logits = Logits(blender, options.logits)
    parts, drawn = [], {}
    for source in SIZES:
        own = [prompt for prompt in prompts if prompt.source == source]
        if not own:
            continue
        ensembles = compared(own, WORTHS[source](own, soft), options, logits)
        drawn[source] = {order: sizes_table(ensembles, SIZES[source], make, options) for order, make in ORDERS.items()}
        fused_too = ensembles[: options.fused_prompts[list(SIZES).index(source)]]
        fused = fused_rows(fused_too, FUSED_SIZES[source], blender, options.seed)
        parts += section(source, len(ensembles), drawn[source], fused, len(fused_too))
    if not parts:
        raise SystemExit(f"no prompts of {', '.join(SIZES)} in {', '.join(map(str, options.data))}")
    publish(SCRIPT, "\n".join([*parts, note(options)]), plot(drawn), options.page)


def arguments() -> argparse.Namespace:
    parser = question_parser(__doc__)
    parser.add_argument("--fuser", default="gen-fuser-mini", help="Hub id or folder")
    parser.add_argument("--prompts", type=int, nargs=2, default=[16, 5], help="of vicuna80 and of alpaca_eval")
    parser.add_argument("--orders", type=int, default=20, help="random orders of the models of a prompt")
    parser.add_argument("--fused-prompts", type=int, nargs=2, default=[6, 4], help="of these, fused as well")
    return parser.parse_args()


def compared(
    prompts: Sequence[LabelledPrompt], worths: Sequence[Worth], options: argparse.Namespace, logits: Logits
) -> list[Ensemble]:
    """Return the ensembles of some prompts of a source, drawn at random."""
    source = prompts[0].source
    strengths = strengths_of([prompt.models for prompt in prompts], worths)
    count = options.prompts[list(SIZES).index(source)]
    # The first of one order, so that a longer run goes on from a shorter one.
    chosen = random.Random(options.seed).sample(range(len(prompts)), len(prompts))[:count]
    found = []
    for number, place in enumerate(chosen, 1):
        prompt, worth = prompts[place], worths[place]
        known = tuple(index for index, value in enumerate(worth) if value is not None)
        matrix = matrix_of(prompt, known, logits, f"{source} {number}/{len(chosen)}")
        values = tuple(worth[i] or 0.0 for i in known)
        found.append(Ensemble(prompt, known, values, tuple(strengths[place][i] for i in known), matrix))
    return found


def matrix_of(prompt: LabelledPrompt, indices: Sequence[int], logits: Logits, title: str) -> Matrix:
    """Compare all pairs of candidates; entry [i][j] is positive if i is better."""
    pairs = list(combinations(range(len(indices)), 2))
    texts = [prompt.item.candidates[index] for index in indices]
    found = logits.of([replace(prompt.item, candidates=(texts[i], texts[j])) for i, j in pairs], title)
    matrix = [[float("nan")] * len(indices) for _ in indices]
    for (i, j), logit in zip(pairs, found, strict=True):
        matrix[i][j], matrix[j][i] = logit, -logit
    return matrix


def random_orders(ensemble: Ensemble, options: argparse.Namespace) -> list[list[int]]:
    """Return several orders of the members, drawn at random."""
    rng = random.Random(f"{options.seed} {ensemble.prompt.id}")
    members = range(len(ensemble.worth))
    return [rng.sample(members, len(members)) for _ in range(options.orders)]


def strongest_first(ensemble: Ensemble, options: argparse.Namespace) -> list[list[int]]:
    """Return the one order in which the models that win more on other prompts come first."""
    return [sorted(range(len(ensemble.worth)), key=lambda i: -ensemble.strength[i])]


ORDERS: dict[str, Callable[[Ensemble, argparse.Namespace], list[list[int]]]] = {
    "N models at random": random_orders,
    "the N strongest models": strongest_first,
}


def ranked(members: Sequence[int], logits: Matrix) -> list[int]:
    """Return some members of an ensemble in the order that the ranker gives them among themselves, the best first."""
    scores = max_logits([[logits[i][j] for j in members] for i in members])
    return [members[k] for k in sorted(range(len(members)), key=lambda k: -scores[k])]


def qualities(members: Sequence[int], ensemble: Ensemble) -> dict[str, float]:
    """Return what the answer of an ensemble is worth, by the way in which it is found."""
    worth = ensemble.worth
    return {
        "any one": fmean(worth[i] for i in members),
        "longest": worth[max(members, key=lambda i: len(ensemble.texts[i]))],
        "best single model": worth[max(members, key=lambda i: ensemble.strength[i])],
        "chosen": worth[ranked(members, ensemble.logits)[0]],
        "oracle": max(worth[i] for i in members),
    }


def row_of(ensemble: Ensemble, orders: Sequence[Sequence[int]], sizes: Sequence[int]) -> Row:
    """Return what a prompt adds to each figure: for each size the mean over the first N of every order."""
    row: Row = {}
    for n in sizes:
        if n > len(ensemble.worth):
            continue
        found = [qualities(order[:n], ensemble) for order in orders]
        means = {way: fmean(each[way] for each in found) for way in WAYS}
        means["gain"] = means["chosen"] - means["best single model"]
        row |= {f"{way}, {n}": (value, 1.0) for way, value in means.items()}
    return row


def sizes_table(
    ensembles: Sequence[Ensemble],
    sizes: Sequence[int],
    make: Callable[[Ensemble, argparse.Namespace], list[list[int]]],
    options: argparse.Namespace,
) -> dict[str, Figure]:
    """Return the figures of every size, with intervals over the prompts."""
    return figures([row_of(e, make(e, options), sizes) for e in ensembles], seed=options.seed)


def fused_rows(ensembles: Sequence[Ensemble], sizes: Sequence[int], blender: Blender, seed: int) -> list[Row]:
    """Return how close each way to answer comes to the reference, for the first N of one random order of each prompt.

    The candidate that is the reference itself takes no part.
    """
    rows = []
    for ensemble in tqdm(ensembles, desc="fusion", unit="prompt"):
        reference = (ensemble.prompt.reference or "").strip()
        texts = ensemble.texts
        members = [i for i, text in enumerate(texts) if text.strip() != reference]
        random.Random(f"{seed} {ensemble.prompt.id}").shuffle(members)
        row: Row = {}
        written: dict[tuple[str, ...], str] = {}
        for n in [n for n in sizes if reference and n <= len(members)]:
            best = tuple(texts[i] for i in ranked(members[:n], ensemble.logits)[:TOP_K])
            if best not in written:
                written[best] = blender.fuse(ensemble.prompt.item.source, list(best)).text
            row |= closeness([texts[i] for i in members[:n]], best[0], written[best], reference, n)
        rows.append(row)
    return rows


def closeness(texts: Sequence[str], chosen: str, fused: str, reference: str, n: int) -> Row:
    """Return ROUGE-L (F1) and chrF, 0 to 100, of each way to answer with N models."""
    row: Row = {}
    for metric, score in (("ROUGE-L", rouge), ("chrF", chrf)):
        scores = [score(text, reference) for text in texts]
        ways = {"any one": fmean(scores), "chosen": score(chosen, reference), "fused": score(fused, reference)}
        row |= {f"{metric} {way}, {n}": (value, 1.0) for way, value in {**ways, "oracle": max(scores)}.items()}
    return row


def section(
    source: str, n_prompts: int, tables: Mapping[str, dict[str, Figure]], fused: Sequence[Row], n_fused: int
) -> list[str]:
    lines = [f"### {source}: what the answer is worth by the labels ({n_prompts} prompts)", ""]
    for order, found in tables.items():
        sizes = [n for n in SIZES[source] if f"chosen, {n}" in found]
        rows = [
            [f"{order}, N = {n}", *(f"{found[f'{way}, {n}'].value:.3f}" for way in WAYS), gain(found[f"gain, {n}"])]
            for n in sizes
        ]
        lines += [markdown_table(["", *WAYS, "chosen less best single model"], rows), ""]
    closest = figures(fused)
    names = [f"{metric} {way}" for metric in ("ROUGE-L", "chrF") for way in ("any one", "chosen", "fused", "oracle")]
    rows = [
        [f"N = {n}", *(f"{closest[f'{name}, {n}'].value:.1f}" for name in names)]
        for n in FUSED_SIZES[source]
        if f"ROUGE-L fused, {n}" in closest
    ]
    if rows:
        title = f"### {source}: closeness to the reference ({n_fused} prompts)"
        lines += [title, "", markdown_table(["N models at random", *names], rows), ""]
    return lines


def gain(figure: Figure) -> str:
    return f"{'+' if figure.value >= 0 else ''}{with_interval(figure)}"


def note(options: argparse.Namespace) -> str:
    cut = f", pairs cut at {options.max_pair_length} tokens" if options.max_pair_length else ""
    return (
        f"Ranker {shown(options.ranker)}{cut}, fuser {shown(options.fuser)}, which reads the best {TOP_K}; seed "
        f"{options.seed}; {options.orders} random orders of the models of each prompt; in brackets the 95 % interval "
        "of a bootstrap over prompts. Worth is from 0 to 1, higher is better; so is closeness, from 0 to 100."
    )


def plot(drawn: Mapping[str, Mapping[str, dict[str, Figure]]]) -> Any:
    drawing, axes = draw(len(drawn), width=10, height=4.5)
    for place, (source, tables) in zip(axes, drawn.items(), strict=True):
        for (order, found), line in zip(tables.items(), ("-", "--"), strict=True):
            sizes = [n for n in SIZES[source] if f"chosen, {n}" in found]
            for number, way in enumerate(WAYS):
                values = [found[f"{way}, {n}"] for n in sizes]
                label = f"{way}, {order.removeprefix('the ').replace(' models', '')}"
                heights = [value.value for value in values]
                place.plot(sizes, heights, line, color=f"C{number}", label=label, marker="o", markersize=3)
                if way == "chosen" and line == "-":
                    place.errorbar(sizes, heights, yerr=whiskers(values), fmt="none", ecolor=f"C{number}", alpha=0.5)
        place.set(title=source, xlabel="N, ensembled models", ylabel="worth of the answer by the labels")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="x-small")
    return drawing


if __name__ == "__main__":
    main()
