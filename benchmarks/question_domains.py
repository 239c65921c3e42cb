"""Measures a ranker in every domain and language of judged pairs, and what a domain costs that training leaves out.

    python benchmarks/question_domains.py dev_permissive.jsonl.gz dev_noncommercial.jsonl.gz \
        --page docs/question-domains.md

With `--encoder` and `--train` it also trains a small ranker on everything, and one without each of the domains that
`--leave-out` names; runs that are finished are not trained again. Prints Markdown tables.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cards import markdown_table
from questions import (
    Logits,
    draw,
    load_ranker,
    pair_logits,
    publish,
    question_parser,
    read_all,
    sample_pairs,
    shown,
    whiskers,
    with_interval,
)
from ranker_ablations import CONFIG, SYMMETRIC

from blender_hf import Blender
from blender_hf.cli.main import main as blender_hf
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.evaluation.bootstrap import Figure, figures
from blender_hf.evaluation.pairwise import by_source, credits, length_rule

SCRIPT = "benchmarks/question_domains.py"
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
RULES = ("ranker", "longer is better", "difference")
Row = dict[str, tuple[float, float]]


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
    parts = [part for name, groups in divisions.items() for part in (markdown_of(name, groups), "")]
    if options.encoder:
        parts += [left_out_table(prompts, options), ""]
    text = "\n".join([*parts, note(options)])
    publish(SCRIPT, text, plot({**divisions["domain"], **divisions["language"]}), options.page)


def arguments() -> argparse.Namespace:
    parser = question_parser(__doc__)
    parser.add_argument("--max-pairs-per-source", type=int, default=60, help="drawn at random of larger sources")
    parser.add_argument("--encoder", help="Hub id or folder of the encoder of the rankers that are trained")
    parser.add_argument("--train", help="judged pairs to train them on")
    parser.add_argument("--leave-out", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="domains, one a ranker")
    parser.add_argument("--train-pairs-per-source", type=int, default=250, help="most pairs of a source to train on")
    parser.add_argument("--runs", type=Path, default=Path("runs/domains"), help="folder of the runs")
    options = parser.parse_args()
    if options.encoder and not options.train:
        parser.error("--encoder trains rankers: give the data with --train")
    return options


def domain_of(source: str) -> str:
    """Return the domain of a source; of one that is not known, its own name."""
    return DOMAIN_OF.get(source, source)


def row_of(prompt: LabelledPrompt, logits: Sequence[float]) -> Row:
    """Return what a prompt adds to the accuracy of the ranker, to that of the length rule, and to the difference."""
    labels = [pair.label for pair in prompt.pairs]
    texts = prompt.item.texts
    lengths = length_rule([texts[pair.a] for pair in prompt.pairs], [texts[pair.b] for pair in prompt.pairs])
    ours, rule = (sum(credit or 0.0 for credit in credits(found, labels)) for found in (logits, lengths))
    n = float(len(labels))
    return {"ranker": (ours, n), "longer is better": (rule, n), "difference": (ours - rule, n)}


def grouped(names: Sequence[str], rows: Sequence[Row], seed: int) -> dict[str, dict[str, Figure]]:
    """Return the figures of each group of prompts, with intervals over its prompts."""
    return {name: figures(found, seed=seed) for name, found in by_source(names, rows).items()}


def markdown_of(division: str, groups: Mapping[str, Mapping[str, Figure]]) -> str:
    rows = [
        [name, f"{found['ranker'].n:.0f}", *(with_interval(found[rule]) for rule in RULES)]
        for name, found in groups.items()
    ]
    return markdown_table([division, "pairs", *RULES], rows)


def left_out_table(prompts: Sequence[LabelledPrompt], options: argparse.Namespace) -> str:
    """Train a ranker on everything and one without each domain, and compare them on the pairs of that domain."""
    everything = trained_ranker("everything", (), options)
    rows = []
    for domain in options.leave_out:
        own = [prompt for prompt in prompts if domain_of(prompt.source) == domain]
        if own:
            without = trained_ranker(f"without {domain}", DOMAINS[domain], options)
            found = figures([cost_of(*both) for both in zip(own, *answers(own, everything, without), strict=True)])
            rows.append([domain, f"{found['cost'].n:.0f}", *(with_interval(found[name]) for name in found)])
    header = ["domain", "pairs", "trained with it", "trained without it", "cost of leaving it out"]
    title = "### Left out of training: accuracy of small rankers on the pairs of a domain"
    return f"{title}\n\n{markdown_table(header, rows)}"


def answers(prompts: Sequence[LabelledPrompt], *rankers: Path) -> list[list[list[float]]]:
    """Return for each ranker and prompt the logits of its pairs."""
    return [pair_logits(prompts, Logits(Blender.from_pretrained(folder, None)), folder.name) for folder in rankers]


def cost_of(prompt: LabelledPrompt, with_it: Sequence[float], without_it: Sequence[float]) -> Row:
    with_row, without_row = row_of(prompt, with_it)["ranker"], row_of(prompt, without_it)["ranker"]
    return {"with": with_row, "without": without_row, "cost": (with_row[0] - without_row[0], with_row[1])}


def trained_ranker(name: str, left_out: Sequence[str], options: argparse.Namespace) -> Path:
    """Return the folder of a ranker, which is trained if it is not there."""
    folder = options.runs / f"{name} {options.train_pairs_per_source}".replace(" ", "-")
    if not (folder / "metrics.json").is_file():
        settings = (
            f"output_dir={folder}",
            f"model={options.encoder}",
            f"data=[{options.train}]",
            f"leave_out=[{', '.join(left_out)}]",
            f"max_pairs_per_source={options.train_pairs_per_source}",
            "eval_data=[]",  # measured here, on the same pairs as everything else
        )
        code = blender_hf(["train", "ranker", "--config", str(CONFIG), "--resume", "--set", *SYMMETRIC, *settings])
        if code:
            raise SystemExit(code)
    return folder


def note(options: argparse.Namespace) -> str:
    where = "; ".join(f"{domain}: {', '.join(sources)}" for domain, sources in DOMAINS.items())
    training = (
        f"The small rankers saw one pass over at most {options.train_pairs_per_source} pairs of each source."
        if options.encoder
        else "What a domain costs when training leaves it out was not measured in this run."
    )
    return (
        f"Accuracy on decided pairs, at most {options.max_pairs_per_source} of a source (seed {options.seed}), in "
        "brackets the 95 % interval of a bootstrap over prompts; chance is 0.5; a difference above 0 is in favour of "
        f"the ranker. Ranker {shown(options.ranker)}. {training} Domains: {where}."
    )


def plot(groups: Mapping[str, Mapping[str, Figure]]) -> Any:
    drawing, (axes,) = draw(1, width=7, height=4)
    for place, rule in enumerate(RULES[:2]):
        found = [figures_of[rule] for figures_of in groups.values()]
        heights = [row + 0.2 * (2 * place - 1) for row in range(len(found))]
        axes.errorbar([f.value for f in found], heights, xerr=whiskers(found), fmt="o", label=rule, capsize=2)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="accuracy on decided pairs, 95 % interval")
    axes.legend(fontsize="small")
    return drawing


if __name__ == "__main__":
    main()
