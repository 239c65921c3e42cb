"""Measure the gold score of the best and the fused answer with N ensembled models, from two to all that there are.

    python -m benchmarks.studies.candidates dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz --save

All pairs of a prompt's candidates are compared once; every smaller ensemble is then played on these logits.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from tqdm import tqdm

from benchmarks.fuser_dev import chrf, rouge
from benchmarks.judged import read_all
from benchmarks.schedules import Matrix, as_matrix
from benchmarks.studies.common import Logits, display_name, draw, error_bars, load_ranker, study_parser
from benchmarks.studies.gold_scores import GOLD_SCORES, Gold, strengths_of
from benchmarks.tables import Table, interval, publish
from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.engine.aggregation import max_logits
from blender_hf.evaluation.bootstrap import Figure, Ratios, figures

TOP_K = 3
SIZES = {"vicuna80": (2, 3, 4, 5, 6, 7, 8, 9), "alpaca_eval": (2, 3, 4, 6, 8, 12, 16, 20, 24)}
FUSED_SIZES = {"vicuna80": (2, 3, 5, 8), "alpaca_eval": (2, 4, 8, 16, 23)}
WAYS = ("any one", "longest", "best single model", "chosen", "oracle")


@dataclass(frozen=True)
class Ensemble:
    """All candidates of a prompt that have a gold score."""

    prompt: LabelledPrompt
    indices: tuple[int, ...]  # the indices of the candidates in it
    gold: tuple[float, ...]  # their gold scores, 0 to 1
    strength: tuple[float, ...]  # the mean gold score of each model on the other prompts
    logits: Matrix  # the comparisons, (candidates, candidates)

    @property
    def texts(self) -> list[str]:
        """The candidates."""
        return [self.prompt.item.texts[index] for index in self.indices]


def main() -> None:
    options = arguments()
    prompts = read_all(options.data)
    blender = load_ranker(options, options.fuser)
    logits = Logits(blender, options.logits)
    sections: list[str | Table] = []
    drawn = {}
    for source in SIZES:
        own = [prompt for prompt in prompts if prompt.source == source]
        if not own:
            continue
        ensembles = compared(own, GOLD_SCORES[source](own), options, logits)
        drawn[source] = {order: sizes_table(ensembles, SIZES[source], make, options) for order, make in ORDERS.items()}
        fused_too = ensembles[: options.fused_prompts[list(SIZES).index(source)]]
        fused = fused_rows(fused_too, FUSED_SIZES[source], blender, options.seed)
        sections += sections_of(source, len(ensembles), drawn[source], fused, len(fused_too))
    if not sections:
        raise SystemExit(f"no prompts of {', '.join(SIZES)} in {', '.join(map(str, options.data))}")
    publish(__file__, [*sections, note(options)], options, drawing=plot(drawn))


def arguments() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--fuser", default="gen-fuser-mini", help="Hub id or folder")
    parser.add_argument("--prompts", type=int, nargs=2, default=[16, 5], help="of vicuna80 and of alpaca_eval")
    parser.add_argument("--orders", type=int, default=20, help="random orders of the models of a prompt")
    parser.add_argument("--fused-prompts", type=int, nargs=2, default=[6, 4], help="of these, fused as well")
    return parser.parse_args()


def compared(
    prompts: Sequence[LabelledPrompt], golds: Sequence[Gold], options: argparse.Namespace, logits: Logits
) -> list[Ensemble]:
    """Return the ensembles of a random sample of the prompts of a source."""
    source = prompts[0].source
    strengths = strengths_of([prompt.models for prompt in prompts], golds)
    count = options.prompts[list(SIZES).index(source)]
    # The first of one order, so that a longer run reuses the logits of a shorter one.
    chosen = random.Random(options.seed).sample(range(len(prompts)), len(prompts))[:count]
    found = []
    for number, place in enumerate(chosen, 1):
        prompt, gold = prompts[place], golds[place]
        known = tuple(index for index, value in enumerate(gold) if value is not None)
        matrix = matrix_of(prompt, known, logits, f"{source} {number}/{len(chosen)}")
        values = tuple(gold[i] or 0.0 for i in known)
        found.append(Ensemble(prompt, known, values, tuple(strengths[place][i] for i in known), matrix))
    return found


def matrix_of(prompt: LabelledPrompt, indices: Sequence[int], logits: Logits, title: str) -> Matrix:
    """Compare all pairs of candidates; entry [i][j] is positive if i is better."""
    pairs = list(combinations(range(len(indices)), 2))
    texts = [prompt.item.candidates[index] for index in indices]
    found = logits.of([replace(prompt.item, candidates=(texts[i], texts[j])) for i, j in pairs], title)
    return as_matrix(dict(zip(pairs, found, strict=True)), len(indices))


def random_orders(ensemble: Ensemble, options: argparse.Namespace) -> list[list[int]]:
    """Return several random orders of the members."""
    rng = random.Random(f"{options.seed} {ensemble.prompt.id}")
    members = range(len(ensemble.gold))
    return [rng.sample(members, len(members)) for _ in range(options.orders)]


def strongest_first(ensemble: Ensemble, options: argparse.Namespace) -> list[list[int]]:
    """Return one order, the models with the higher gold scores on other prompts first."""
    return [sorted(range(len(ensemble.gold)), key=lambda i: -ensemble.strength[i])]


ORDERS: dict[str, Callable[[Ensemble, argparse.Namespace], list[list[int]]]] = {
    "N models at random": random_orders,
    "the N strongest models": strongest_first,
}


def ranked(members: Sequence[int], logits: Matrix) -> list[int]:
    """Return some members of an ensemble, ranked among themselves, the best first."""
    scores = max_logits([[logits[i][j] for j in members] for i in members])
    return [members[k] for k in sorted(range(len(members)), key=lambda k: -scores[k])]


def qualities(members: Sequence[int], ensemble: Ensemble) -> dict[str, float]:
    """Return the gold score of the answer of an ensemble, by the way to choose it."""
    gold = ensemble.gold
    return {
        "any one": fmean(gold[i] for i in members),
        "longest": gold[max(members, key=lambda i: len(ensemble.texts[i]))],
        "best single model": gold[max(members, key=lambda i: ensemble.strength[i])],
        "chosen": gold[ranked(members, ensemble.logits)[0]],
        "oracle": max(gold[i] for i in members),
    }


def row_of(ensemble: Ensemble, orders: Sequence[Sequence[int]], sizes: Sequence[int]) -> Ratios:
    """Return a prompt's numerators and denominators: for each size the mean over the first N of every order."""
    row: dict[str, tuple[float, float]] = {}
    for n in sizes:
        if n > len(ensemble.gold):
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
    """Return the gold scores for every size, with intervals over the prompts."""
    return figures([row_of(e, make(e, options), sizes) for e in ensembles], seed=options.seed)


def fused_rows(ensembles: Sequence[Ensemble], sizes: Sequence[int], blender: Blender, seed: int) -> list[Ratios]:
    """Return the closeness to the reference of each way to answer, for the first N of one random order of each prompt.

    Candidates equal to the reference are left out.
    """
    rows = []
    for ensemble in tqdm(ensembles, desc="fusion", unit="prompt"):
        reference = (ensemble.prompt.reference or "").strip()
        texts = ensemble.texts
        members = [i for i, text in enumerate(texts) if text.strip() != reference]
        random.Random(f"{seed} {ensemble.prompt.id}").shuffle(members)
        row: dict[str, tuple[float, float]] = {}
        written: dict[tuple[str, ...], str] = {}
        for n in [n for n in sizes if reference and n <= len(members)]:
            best = tuple(texts[i] for i in ranked(members[:n], ensemble.logits)[:TOP_K])
            if best not in written:
                written[best] = blender.fuse(ensemble.prompt.item.source, list(best)).text
            row |= closeness([texts[i] for i in members[:n]], best[0], written[best], reference, n)
        rows.append(row)
    return rows


def closeness(texts: Sequence[str], chosen: str, fused: str, reference: str, n: int) -> Ratios:
    """Return ROUGE-L (F1) and chrF, 0 to 100, of each way to answer with N models."""
    row: dict[str, tuple[float, float]] = {}
    for metric, score in (("ROUGE-L", rouge), ("chrF", chrf)):
        scores = [score(text, reference) for text in texts]
        ways = {"any one": fmean(scores), "chosen": score(chosen, reference), "fused": score(fused, reference)}
        row |= {f"{metric} {way}, {n}": (value, 1.0) for way, value in {**ways, "oracle": max(scores)}.items()}
    return row


def sections_of(
    source: str, n_prompts: int, tables: Mapping[str, dict[str, Figure]], fused: Sequence[Ratios], n_fused: int
) -> list[str | Table]:
    sections: list[str | Table] = [f"### {source}: gold score of the answer ({n_prompts} prompts)"]
    columns = {"": "", **dict.fromkeys(WAYS, ".3f"), "chosen less best single model": "+.3f|.2f"}
    for order, found in tables.items():
        rows = [
            [f"{order}, N = {n}", *(found[f"{way}, {n}"].value for way in WAYS), interval(found[f"gain, {n}"])]
            for n in SIZES[source]
            if f"chosen, {n}" in found
        ]
        sections.append(Table(columns, rows))
    closest = figures(fused)
    names = [f"{metric} {way}" for metric in ("ROUGE-L", "chrF") for way in ("any one", "chosen", "fused", "oracle")]
    rows = [
        [f"N = {n}", *(closest[f"{name}, {n}"].value for name in names)]
        for n in FUSED_SIZES[source]
        if f"ROUGE-L fused, {n}" in closest
    ]
    if rows:
        sections.append(f"### {source}: closeness to the reference ({n_fused} prompts)")
        sections.append(Table({"N models at random": "", **dict.fromkeys(names, ".1f")}, rows))
    return sections


def note(options: argparse.Namespace) -> str:
    cut = f", pairs truncated at {options.max_pair_length} tokens" if options.max_pair_length else ""
    return (
        f"Ranker {display_name(options.ranker)}{cut}, fuser {display_name(options.fuser)}, which reads the best "
        f"{TOP_K}; seed {options.seed}; {options.orders} random orders of the models of each prompt; in brackets the "
        "95 % interval of a bootstrap over prompts. Gold scores are from 0 to 1, higher is better; so is closeness, "
        "from 0 to 100."
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
                    place.errorbar(sizes, heights, yerr=error_bars(values), fmt="none", ecolor=f"C{number}", alpha=0.5)
        place.set(title=source, xlabel="N, ensembled models", ylabel="gold score of the answer")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="x-small")
    return drawing


if __name__ == "__main__":
    main()
