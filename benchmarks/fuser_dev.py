"""Measures a fuser on prompts with a reference answer: is the fused text as close to it as the best candidate?

    python benchmarks/fuser_dev.py dev.jsonl.gz --card model_cards/gen-fuser-mini.md

The candidate that is the reference itself is left out. Prints Markdown, and a JSON object on the last line.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cards import markdown_table, show_figures
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from tqdm import tqdm

from blender_hf import Blend, Blender, GenFuserConfig
from blender_hf.data.sources import read_values
from blender_hf.engine.blending import best_different, subset
from blender_hf.evaluation.pairwise import by_source
from blender_hf.inputs import Item, make_item
from blender_hf.loading.checkpoints import HubOptions, load_fuser, load_ranker
from blender_hf.modeling.passages import split_passages

SCRIPT = "benchmarks/fuser_dev.py"
N_FUSED = 3
# What guides a faithful fuser besides what it has learnt: names in its configuration, ours, and the value for none.
GUIDES = {
    "faithful_coherence": ("coherence", 0.0),
    "faithful_agreement": ("agreement", 0.0),
    "faithful_consensus": ("consensus", 0.0),
    "faithful_most_repeated": ("no repetition", 1.0),
}
ROUGE, CHRF_SCORE = RougeScorer(["rougeL"], use_stemmer=False), CHRF()


def main() -> None:
    options = arguments()
    examples = sampled(read_values(options.data), options.max_prompts_per_source, options.seed)
    fuser, processor = load_fuser(options.fuser, HubOptions(), None, None)
    blender = Blender(*load_ranker(options.ranker, HubOptions(), None, None), fuser, processor)
    blends = list(tqdm(blender.iter_blend(item for _, item, _ in examples), total=len(examples)))
    fusible = [(example, blend) for example, blend in zip(examples, blends, strict=True) if blend.fused is not None]
    scores = [closeness(blend, reference) for (_, _, reference), blend in fusible]
    groups = by_source([source for (source, _, _), _ in fusible], scores)
    rows = {source: mean_of(group) for source, group in groups.items()}
    rows["mean over sources"] = {name: fmean(row[name] for row in rows.values()) for name in next(iter(rows.values()))}
    faults = Counter(fault for blend in blends for fault in faults_of(blend))
    fused = [blend for _, blend in fusible]
    numbers = {str(n): fused_again(examples, blends, blender, n) for n in options.numbers}
    guides = by_guide(examples, blends, blender, fuser.config) if options.guides else {}
    text = report(rows, faults, fused, numbers, guides, options)
    show_figures(text, SCRIPT, options.card)
    print(json.dumps({"closeness": rows, "faults": faults, "candidates": numbers, "guides": guides}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="JSONL file of prompts with candidates and references")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--fuser", default="gen-fuser-mini", help="Hub id or folder")
    parser.add_argument("--max-prompts-per-source", type=int, default=60, help="drawn at random of larger sources")
    parser.add_argument(
        "--numbers", type=int, nargs="*", default=[1, 2, 3, 5], help="numbers of best candidates that are fused in turn"
    )
    parser.add_argument(
        "--guides", action="store_true", help="also fuse with each thing alone that guides a faithful fuser"
    )
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--card", type=Path, help="card to write the figures into")
    return parser.parse_args()


def sampled(records: Any, most: int, seed: int) -> list[tuple[str, Item, str]]:
    """Return source, item and reference of the records that have one and two other candidates."""
    found: dict[str, list[tuple[str, Item, str]]] = defaultdict(list)
    for record in records:
        reference = record.get("reference", "").strip()
        texts = [c for c in record["candidates"] if c["text"].strip() != reference]
        if reference and len({candidate["text"] for candidate in texts}) > 1:
            found[record["source"]].append((record["source"], make_item(record["prompt"], texts), reference))
    rng = random.Random(seed)
    return [example for group in found.values() for example in rng.sample(group, min(most, len(group)))]


def fused_again(
    examples: Sequence[tuple[str, Item, str]], blends: Sequence[Blend], blender: Blender, number: int
) -> dict[str, float]:
    """Return how close the fusions of so many best candidates are to the reference, mean over sources."""
    chosen = [best_different(blend.ranking, number) for blend in blends]
    items = [subset(item, places) for (_, item, _), places in zip(examples, chosen, strict=True)]
    scores = [
        {
            "ROUGE-L": rouge(fusion.text, reference),
            "chrF": chrf(fusion.text, reference),
            "characters": float(len(fusion.text)),
            "none of the candidates": 100.0 * is_new(fusion.text, item.texts),
        }
        for (_, _, reference), item, fusion in zip(examples, items, blender.iter_fuse(items), strict=True)
    ]
    rows = [mean_of(group) for group in by_source([source for source, _, _ in examples], scores).values()]
    return {name: fmean(row[name] for row in rows) for name in scores[0]}


def by_guide(
    examples: Sequence[tuple[str, Item, str]], blends: Sequence[Blend], blender: Blender, config: GenFuserConfig
) -> dict[str, dict[str, float]]:
    """Return the same for the best three, with each thing alone that guides a faithful fuser, and with all.

    The configuration is that of the blender's fuser; at the end it is as before.
    """
    own = {name: getattr(config, name) for name in GUIDES}
    found = {}
    for kept in ((), *((name,) for name in GUIDES), tuple(GUIDES)):
        for name, (_, without) in GUIDES.items():
            setattr(config, name, own[name] if name in kept else without)
        what = "all" if len(kept) > 1 else GUIDES[kept[0]][0] if kept else "nothing"
        found[what] = fused_again(examples, blends, blender, N_FUSED)
    return found


def is_new(text: str, candidates: Sequence[str]) -> bool:
    """Tell whether a text is none of the candidates, white space aside."""
    return " ".join(text.split()) not in {" ".join(candidate.split()) for candidate in candidates}


def closeness(blend: Blend, reference: str) -> dict[str, float]:
    """Return ROUGE-L (F1) and chrF, both 0 to 100, of each way to answer.

    "read" is the mean over the candidates that were fused, "any" over all.
    """
    candidates = blend.ranking.candidates
    ways = {"fused": [blend.fused or ""], "best": [blend.best], "returned": [blend.output]}
    ways |= {"read": [candidates[index] for index in blend.fused_from], "any": list(candidates)}
    scores = {f"ROUGE-L {way}": fmean(rouge(text, reference) for text in texts) for way, texts in ways.items()}
    return scores | {f"chrF {way}": fmean(chrf(text, reference) for text in texts) for way, texts in ways.items()}


def rouge(text: str, reference: str) -> float:
    return 100 * ROUGE.score(reference, text)["rougeL"].fmeasure


def chrf(text: str, reference: str) -> float:
    return CHRF_SCORE.sentence_score(text, [reference]).score


def faults_of(blend: Blend) -> list[str]:
    """Name what is wrong with a fused text as a text."""
    if blend.fused is None:
        return []
    words = re.findall(r"\S+", blend.fused)
    candidate_words = {word for text in blend.ranking.candidates for word in re.findall(r"\S+", text)}
    passages = Counter(" ".join(p.split()) for p in split_passages(blend.fused) if len(p) > 20)
    faults = {
        "empty": not words,
        "a passage is repeated": max(passages.values(), default=0) > 1,
        "ends in mid-word": bool(words) and words[-1] not in candidate_words,
    }
    return [name for name, present in faults.items() if present]


def mean_of(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {"prompts": len(scores), **{name: fmean(row[name] for row in scores) for name in scores[0]}}


def report(
    rows: dict[str, dict[str, float]],
    faults: Counter[str],
    fused: Sequence[Blend],
    numbers: dict[str, dict[str, float]],
    guides: dict[str, dict[str, float]],
    options: argparse.Namespace,
) -> str:
    names = [name for name in next(iter(rows.values())) if name != "prompts"]
    cells = [
        [source, "" if source.startswith("mean") else str(row["prompts"]), *(f"{row[name]:.1f}" for name in names)]
        for source, row in rows.items()
    ]
    new = sum(is_new(blend.fused or "", blend.ranking.candidates) for blend in fused)
    kept = sum(blend.returned == "fused" for blend in fused)
    known = ("empty", "a passage is repeated", "ends in mid-word")
    lines = [
        markdown_table(["source", "prompts", *names], cells),
        "",
        f"At most {options.max_prompts_per_source} prompts of a source (seed {options.seed}); scores from 0 to 100, "
        "higher is better; `read` is the mean over the candidates that were fused, `any` over all of a prompt.",
        "",
        f"Of {len(fused)} fused texts {new} are none of the candidates, and {kept} were preferred to the best one by "
        "the ranker and returned. Faults: " + ", ".join(f"{name}: {faults[name]}" for name in known) + ".",
    ]
    if numbers:
        lines += ["", "Fused from fewer or more candidates, mean over sources:", ""]
        lines.append(table_of("best candidates fused", numbers))
    if guides:
        lines += [
            "",
            "What guides its choice of passages, besides what it has learnt (the best three fused, mean over sources):",
            "",
        ]
        lines.append(table_of("guided by", guides))
    return "\n".join(lines)


def table_of(what: str, rows: dict[str, dict[str, float]]) -> str:
    cells = [[name, *(f"{value:.1f}" for value in row.values())] for name, row in rows.items()]
    header = [f"{name}, %" if name.startswith("none") else name for name in next(iter(rows.values()))]
    return markdown_table([what, *header], cells)


if __name__ == "__main__":
    main()
