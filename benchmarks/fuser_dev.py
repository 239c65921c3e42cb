"""Measure a fuser on prompts with a reference: is the fusion as close to it as the best candidate?

    python -m benchmarks.fuser_dev dev.jsonl.gz --save

Candidates equal to the reference are left out.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from tqdm import tqdm

from benchmarks.judged import judged_parser, sampled
from benchmarks.tables import Table, publish
from blender_hf import Blend, Blender, GenFuserConfig
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.fusion import subset
from blender_hf.evaluation.pairwise import by_source
from blender_hf.inputs import Item, make_item
from blender_hf.loading.checkpoints import load_fuser, load_ranker
from blender_hf.modeling.ranking_math import best_distinct
from blender_hf.modeling.segmentation import split_segments

N_FUSED = 3
# What guides extractive decoding besides the model: names in the configuration, ours, and the value that turns it off.
GUIDES = {
    "extractive_coherence": ("coherence", 0.0),
    "extractive_agreement": ("agreement", 0.0),
    "extractive_consensus": ("consensus", 0.0),
    "extractive_max_overlap": ("no repetition", 1.0),
}
WAYS = ("fused", "best", "returned", "read", "any")
FAULTS = ("empty", "a passage is repeated", "ends in mid-word")
ROUGE, CHRF_SCORE = RougeScorer(["rougeL"], use_stemmer=False), CHRF()

Example = tuple[str, Item, str]  # source, item, reference
Scores = dict[str, float]


def main() -> None:
    options = arguments()
    examples = examples_of(read_labelled(options.data), options.max_prompts_per_source, options.seed)
    fuser, processor = load_fuser(options.fuser)
    blender = Blender(*load_ranker(options.ranker), fuser, processor)
    blends = list(tqdm(blender.iter_blend(item for _, item, _ in examples), total=len(examples)))
    fusible = [(example, blend) for example, blend in zip(examples, blends, strict=True) if blend.fused is not None]
    scores = [closeness(blend, reference) for (_, _, reference), blend in fusible]
    sections = [closeness_table([source for (source, _, _), _ in fusible], scores), closeness_note(options)]
    sections.append(faults_note([blend for _, blend in fusible]))
    if options.numbers:
        numbers = {str(n): fused_again(examples, blends, blender, n) for n in options.numbers}
        sections += [
            "Fused from fewer or more candidates, mean over sources:",
            fusions_table("best candidates fused", numbers),
        ]
    if options.guides:
        guides = by_guide(examples, blends, blender, fuser.config)
        sections += [
            "Guides of the choice of segments besides the model (the best three fused, mean over sources):",
            fusions_table("guided by", guides),
        ]
    publish(__file__, sections, options)


def arguments() -> argparse.Namespace:
    parser = judged_parser(__doc__)
    parser.add_argument("--fuser", default="gen-fuser-mini", help="Hub id or folder")
    parser.add_argument("--max-prompts-per-source", type=int, default=60, help="random sample of larger sources")
    parser.add_argument(
        "--numbers", type=int, nargs="*", default=[1, 2, 3, 5], help="of best candidates, fused in turn"
    )
    parser.add_argument("--guides", action="store_true", help="also fuse with each guide of extractive decoding alone")
    return parser.parse_args()


def examples_of(prompts: Iterable[LabelledPrompt], most: int, seed: int) -> list[Example]:
    """Return a random sample of the prompts that have a reference and two other candidates."""
    found = []
    for prompt in prompts:
        reference = (prompt.reference or "").strip()
        others = [text for text in prompt.item.texts if text.strip() != reference]
        if reference and len(set(others)) > 1:
            found.append((prompt.source, make_item(prompt.item.source, others), reference))
    return sampled(found, lambda example: example[0], most, seed)


def fused_again(examples: Sequence[Example], blends: Sequence[Blend], blender: Blender, number: int) -> Scores:
    """Return how close fusions of the best `number` candidates are to the reference, mean over sources."""
    chosen = [best_distinct(blend.ranking.candidates, blend.ranking.order, number) for blend in blends]
    items = [subset(item, places) for (_, item, _), places in zip(examples, chosen, strict=True)]
    scores = [
        {
            "ROUGE-L": rouge(fusion.text, reference),
            "chrF": chrf(fusion.text, reference),
            "characters": float(len(fusion.text)),
            "none of the candidates, %": 100.0 * is_new(fusion.text, item.texts),
        }
        for (_, _, reference), item, fusion in zip(examples, items, blender.iter_fuse(items), strict=True)
    ]
    return mean_of([mean_of(group) for group in by_source([source for source, _, _ in examples], scores).values()])


def by_guide(
    examples: Sequence[Example], blends: Sequence[Blend], blender: Blender, config: GenFuserConfig
) -> dict[str, Scores]:
    """Return the scores with no guide, with each alone, and with all; the fuser's configuration is restored."""
    own = {name: getattr(config, name) for name in GUIDES}
    found = {}
    for kept in ((), *((name,) for name in GUIDES), tuple(GUIDES)):
        for name, (_, off) in GUIDES.items():
            setattr(config, name, own[name] if name in kept else off)
        label = "all" if len(kept) > 1 else GUIDES[kept[0]][0] if kept else "nothing"
        found[label] = fused_again(examples, blends, blender, N_FUSED)
    return found


def is_new(text: str, candidates: Sequence[str]) -> bool:
    """Return whether a text differs from all candidates, white space aside."""
    return " ".join(text.split()) not in {" ".join(candidate.split()) for candidate in candidates}


def closeness(blend: Blend, reference: str) -> Scores:
    """Return ROUGE-L (F1) and chrF, both 0 to 100, of each way to answer.

    "read" is the mean over the candidates that were fused, "any" over all.
    """
    candidates = blend.ranking.candidates
    read = [candidates[index] for index in blend.fused_from]
    ways = zip(WAYS, ([blend.fused or ""], [blend.best], [blend.output], read, candidates), strict=True)
    return {
        f"{name} {way}": fmean(score(text, reference) for text in texts)
        for way, texts in ways
        for name, score in (("ROUGE-L", rouge), ("chrF", chrf))
    }


def rouge(text: str, reference: str) -> float:
    return 100 * ROUGE.score(reference, text)["rougeL"].fmeasure


def chrf(text: str, reference: str) -> float:
    return CHRF_SCORE.sentence_score(text, [reference]).score


def faults_of(blend: Blend) -> list[str]:
    """Return the defects of a fused text as a text."""
    words = re.findall(r"\S+", blend.fused or "")
    candidate_words = {word for text in blend.ranking.candidates for word in re.findall(r"\S+", text)}
    passages = Counter(" ".join(p.split()) for p in split_segments(blend.fused or "") if len(p) > 20)
    found = (not words, max(passages.values(), default=0) > 1, bool(words) and words[-1] not in candidate_words)
    return [name for name, present in zip(FAULTS, found, strict=True) if present]


def mean_of(scores: Sequence[Mapping[str, float]]) -> Scores:
    return {name: fmean(row[name] for row in scores) for name in scores[0]}


def closeness_table(sources: Sequence[str], scores: Sequence[Scores]) -> Table:
    names = [f"{name} {way}" for name in ("ROUGE-L", "chrF") for way in WAYS]
    groups = by_source(sources, scores)
    means = {source: mean_of(group) for source, group in groups.items()}
    rows = [[source, len(groups[source]), *(row[name] for name in names)] for source, row in means.items()]
    overall = mean_of(list(means.values()))
    rows.append(["mean over sources", None, *(overall[name] for name in names)])
    return Table({"source": "", "prompts": "d", **dict.fromkeys(names, ".1f")}, rows)


def closeness_note(options: argparse.Namespace) -> str:
    return (
        f"At most {options.max_prompts_per_source} prompts per source (seed {options.seed}); scores from 0 to 100, "
        "higher is better; `read` is the mean over the candidates that were fused, `any` over all of a prompt."
    )


def faults_note(fused: Sequence[Blend]) -> str:
    new = sum(is_new(blend.fused or "", blend.ranking.candidates) for blend in fused)
    kept = sum(blend.returned == "fused" for blend in fused)
    faults = Counter(fault for blend in fused for fault in faults_of(blend))
    return (
        f"Of {len(fused)} fused texts {new} are none of the candidates, and {kept} were preferred to the best one by "
        f"the ranker and returned. Defects: {', '.join(f'{name}: {faults[name]}' for name in FAULTS)}."
    )


def fusions_table(label: str, rows: Mapping[str, Scores]) -> Table:
    columns = {label: "", **dict.fromkeys(next(iter(rows.values())), ".1f")}
    return Table(columns, [[name, *row.values()] for name, row in rows.items()])


if __name__ == "__main__":
    main()
