"""Measure a ranker by domain and language of judged pairs, and the cost of leaving a domain out of training.

    python -m benchmarks.studies.domains dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz --save

With `--encoder` and `--train` it also trains a small ranker on everything, and one without each of the domains that
`--leave-out` names; finished runs are not trained again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judged import read_all
from benchmarks.ranker_ablations import SYMMETRIC, train_once
from benchmarks.studies.common import (
    JUDGES,
    Logits,
    display_name,
    draw,
    error_bars,
    load_ranker,
    pair_credits,
    pair_logits,
    sample_pairs,
    study_parser,
)
from benchmarks.tables import Table, interval, publish
from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.evaluation.bootstrap import Figure, Ratios, figures
from blender_hf.evaluation.pairwise import by_source

DOMAINS = {
    "chat": ("hh_rlhf_helpful", "oasst1"),
    "facts": ("evouna_nq", "evouna_tq", "qa_feedback"),
    "mathematics": ("gsm8k",),
    "safety": ("hh_rlhf_harmless",),
    "long-form": ("lfqa_experts", "webgpt"),
    "open instructions": ("ultrafeedback", "dpo_en", "dpo_zh", "vicuna80", "alpaca_eval", "ja_vicuna"),
}
DOMAIN_OF = {source: domain for domain, sources in DOMAINS.items() for source in sources}
LANGUAGES = {"en": "English", "ja": "Japanese", "zh": "Chinese"}
COLUMNS = (*JUDGES, "difference")


def main() -> None:
    options = arguments()
    prompts = sample_pairs(read_all(options.data), options.max_pairs_per_source, options.seed)
    logits = pair_logits(prompts, Logits(load_ranker(options), options.logits))
    rows = [row_of(prompt, found) for prompt, found in zip(prompts, logits, strict=True)]
    divisions = {
        "domain": grouped([domain_of(prompt.source) for prompt in prompts], rows, options.seed),
        "language": grouped([LANGUAGES.get(prompt.lang, prompt.lang) for prompt in prompts], rows, options.seed),
        "source": grouped([prompt.source for prompt in prompts], rows, options.seed),
    }
    sections: list[str | Table] = [table_of(name, groups) for name, groups in divisions.items()]
    if options.encoder:
        sections.append("### Left out of training: accuracy of small rankers on the pairs of a domain")
        sections.append(left_out_table(prompts, options))
    drawing = plot({**divisions["domain"], **divisions["language"]})
    publish(__file__, [*sections, note(options)], options, drawing=drawing)


def arguments() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--max-pairs-per-source", type=int, default=60, help="random sample of larger ones")
    parser.add_argument("--encoder", help="Hub id or folder of the encoder to train rankers from")
    parser.add_argument("--train", help="judged pairs to train them on")
    parser.add_argument("--leave-out", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="domains, one a ranker")
    parser.add_argument("--train-pairs-per-source", type=int, default=250, help="pairs per source to train on")
    parser.add_argument("--runs", type=Path, default=Path("runs/domains"), help="folder of the runs")
    options = parser.parse_args()
    if options.encoder and not options.train:
        parser.error("--encoder trains rankers: give the data with --train")
    return options


def domain_of(source: str) -> str:
    """Return the domain of a source; of an unknown one, its own name."""
    return DOMAIN_OF.get(source, source)


def row_of(prompt: LabelledPrompt, logits: Sequence[float]) -> Ratios:
    """Return a prompt's numerators and denominators of the accuracies of the ranker and of the length rule."""
    found = pair_credits(prompt, logits)
    ours, rule = (sum(column) for column in zip(*found, strict=True))
    n = float(len(found))
    return {"ranker": (ours, n), "longer is better": (rule, n), "difference": (ours - rule, n)}


def grouped(names: Sequence[str], rows: Sequence[Ratios], seed: int) -> dict[str, dict[str, Figure]]:
    """Return the accuracies of each group of prompts, with intervals over its prompts."""
    return {name: figures(found, seed=seed) for name, found in by_source(names, rows).items()}


def table_of(division: str, groups: Mapping[str, Mapping[str, Figure]]) -> Table:
    rows = [
        [name, found["ranker"].n, *(interval(found[column]) for column in COLUMNS)] for name, found in groups.items()
    ]
    return Table({division: "", "pairs": ".0f", **dict.fromkeys(COLUMNS, ".3f|.2f")}, rows)


def left_out_table(prompts: Sequence[LabelledPrompt], options: argparse.Namespace) -> Table:
    """Train a ranker on everything and one without each domain, and compare them on the pairs of that domain."""
    everything = trained_ranker("everything", (), options)
    rows = []
    for domain in options.leave_out:
        own = [prompt for prompt in prompts if domain_of(prompt.source) == domain]
        if own:
            without = trained_ranker(f"without {domain}", DOMAINS[domain], options)
            found = figures([cost_of(*both) for both in zip(own, *answers(own, everything, without), strict=True)])
            rows.append([domain, found["cost"].n, *map(interval, found.values())])
    numbers = ("trained with it", "trained without it", "cost of leaving it out")
    return Table({"domain": "", "pairs": ".0f", **dict.fromkeys(numbers, ".3f|.2f")}, rows)


def answers(prompts: Sequence[LabelledPrompt], *rankers: Path) -> list[list[list[float]]]:
    """Return for each ranker and prompt the logits of its pairs."""
    return [pair_logits(prompts, Logits(Blender.from_pretrained(folder, None)), folder.name) for folder in rankers]


def cost_of(prompt: LabelledPrompt, with_it: Sequence[float], without_it: Sequence[float]) -> Ratios:
    with_row, without_row = row_of(prompt, with_it)["ranker"], row_of(prompt, without_it)["ranker"]
    return {"with": with_row, "without": without_row, "cost": (with_row[0] - without_row[0], with_row[1])}


def trained_ranker(name: str, left_out: Sequence[str], options: argparse.Namespace) -> Path:
    """Return the folder of a ranker, trained unless its run is finished."""
    folder = options.runs / f"{name} {options.train_pairs_per_source}".replace(" ", "-")
    settings = (
        f"model={options.encoder}",
        f"data=[{options.train}]",
        f"leave_out=[{', '.join(left_out)}]",
        f"max_pairs_per_source={options.train_pairs_per_source}",
        "eval_data=[]",  # measured here, on the same pairs as everything else
    )
    train_once(folder, "ranker", [*SYMMETRIC, *settings])
    return folder


def note(options: argparse.Namespace) -> str:
    where = "; ".join(f"{domain}: {', '.join(sources)}" for domain, sources in DOMAINS.items())
    training = (
        f"The small rankers saw one epoch of at most {options.train_pairs_per_source} pairs per source."
        if options.encoder
        else "What a domain costs when training leaves it out was not measured in this run."
    )
    return (
        f"Accuracy on decided pairs, at most {options.max_pairs_per_source} per source (seed {options.seed}), in "
        "brackets the 95 % interval of a bootstrap over prompts; chance is 0.5; a difference above 0 is in favour of "
        f"the ranker. Ranker {display_name(options.ranker)}. {training} Domains: {where}."
    )


def plot(groups: Mapping[str, Mapping[str, Figure]]) -> Any:
    drawing, (axes,) = draw(1, width=7, height=4)
    for place, judge in enumerate(JUDGES):
        found = [figures_of[judge] for figures_of in groups.values()]
        heights = [row + 0.2 * (2 * place - 1) for row in range(len(found))]
        axes.errorbar([f.value for f in found], heights, xerr=error_bars(found), fmt="o", label=judge, capsize=2)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="accuracy on decided pairs, 95 % interval")
    axes.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
