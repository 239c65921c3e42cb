"""Measures what a preference for distinct tokens does to a ranker: `PairRankerConfig.distinct_token_weight`.

    python benchmarks/distinct_tokens.py dev.jsonl.gz other_dev.jsonl.gz --card model_cards/pair-ranker-mini.md

Every pair is compared once; a weight adds a term to the logit that is known beforehand. Prints a Markdown table: for
each weight the accuracy on judged pairs, and how often a good answer is preferred to one with self-made damage.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from cards import markdown_table, show_figures
from judged_pairs import decided_pairs
from ranker_dev import compared, without_length

from blender_hf import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.pairwise import accuracy, by_source, length_rule
from blender_hf.modeling.distinct_tokens import lead_in_distinct_tokens
from blender_hf.training.damaged_data import DAMAGES, damaged_pairs

SCRIPT = "benchmarks/distinct_tokens.py"
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


class Group:
    """Pairs of one source or one kind of damage, with what the ranker says of them.

    Args:
        pairs: The pairs.
        logits: What it says with a weight of 0.
        leads: What a weight is multiplied by.
    """

    def __init__(self, pairs: Sequence[PreferencePair], logits: Sequence[float], leads: Sequence[float]) -> None:
        self.labels = [pair.label for pair in pairs]
        self.lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
        self.logits, self.leads = logits, leads

    def accuracy(self, weight: float) -> float:
        """Return the share of pairs in which the preferred one wins."""
        return accuracy(self._weighted(weight), self.labels) or 0.0

    def without_length(self, weight: float) -> float:
        """Return it for longer and shorter winners alike."""
        return without_length(self._weighted(weight), self.lengths, self.labels)

    def _weighted(self, weight: float) -> list[float]:
        return [logit + weight * lead for logit, lead in zip(self.logits, self.leads, strict=True)]


def main() -> None:
    options = arguments()
    blender = Blender.from_pretrained(options.ranker, None)
    judged = [judged_groups(path, blender, options) for path in options.data]
    prompts = list(read_labelled(options.data[0]))
    damaged = {
        kind: group_of(damaged_pairs(prompts, options.damaged_pairs, options.seed, [kind]), blender) for kind in DAMAGES
    }
    text = report(judged, damaged, options)
    show_figures(text, SCRIPT, options.card)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="JSONL files of judged pairs; damage is made from the first")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="to be tried")
    parser.add_argument("--columns", nargs="*", default=["vicuna80"], help="sources of the first file, one by one")
    parser.add_argument("--max-pairs-per-source", type=int, default=200, help="drawn at random of larger sources")
    parser.add_argument("--damaged-pairs", type=int, default=150, help="self-made pairs of each kind of damage")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--card", type=Path, help="card to write the table into")
    return parser.parse_args()


def judged_groups(path: Path, blender: Blender, options: argparse.Namespace) -> dict[str, Group]:
    """Compare the decided pairs of a file, and return them by source."""
    pairs = decided_pairs(read_labelled(path), options.max_pairs_per_source, options.seed)
    return {source: group_of(group, blender) for source, group in by_source([p.source for p in pairs], pairs).items()}


def group_of(pairs: Sequence[PreferencePair], blender: Blender) -> Group:
    own = blender.scorer.model.config.distinct_token_weight
    leads = [lead_of(pair, blender) for pair in pairs]
    logits = [result.logit - own * lead for result, lead in zip(compared(pairs, blender), leads, strict=True)]
    return Group(pairs, logits, leads)


def lead_of(pair: PreferencePair, blender: Blender) -> float:
    """Return by how much more distinct tokens the first candidate has, as the ranker counts them."""
    scorer = blender.scorer
    inputs = scorer.processor([pair.prompt], [pair.candidate_a], [pair.candidate_b])
    markers = scorer.model.config.markers
    return lead_in_distinct_tokens(inputs["input_ids"], inputs["attention_mask"].bool(), markers).item()


def report(judged: Sequence[dict[str, Group]], damaged: dict[str, Group], options: argparse.Namespace) -> str:
    first, others = judged[0], [pair for groups in judged[1:] for pair in groups.items()]
    single = {**{name: first[name] for name in options.columns}, **dict(others), **damaged}
    rows = [
        [
            f"{weight:g}",
            f"{fmean(group.accuracy(weight) for group in first.values()):.3f}",
            f"{fmean(group.without_length(weight) for group in first.values()):.3f}",
            *(f"{group.accuracy(weight):.3f}" for group in single.values()),
        ]
        for weight in options.weights
    ]
    name = options.data[0].name.split(".")[0]
    note = (
        f"The first two columns are means over the sources of {name}, decided pairs; then single sources, and how "
        f"often a good answer is preferred to one with self-made damage. At most {options.max_pairs_per_source} pairs "
        f"of a source and {options.damaged_pairs} of a kind of damage (seed {options.seed}); chance is 0.5."
    )
    return f"{markdown_table(['weight', 'accuracy', 'without length', *single], rows)}\n\n{note}"


if __name__ == "__main__":
    main()
