"""Measure a ranker with other values of `distinct_token_weight`.

    python -m benchmarks.distinct_tokens dev.jsonl.gz other_dev.jsonl.gz --save

Every pair is compared once: a weight adds a known term to the logit. The table has for each weight the accuracy on
judged pairs, and how often a good answer is preferred to a synthetic negative.
"""

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.judged import compared, decided_pairs, judged_parser, negatives_of, without_length
from benchmarks.tables import Table, publish
from blender_hf import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.pairwise import accuracy, by_source, length_rule
from blender_hf.modeling.modeling_pair_ranker import lead_in_distinct_tokens

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


class Group:
    """Pairs of one source or corruption: their logits with a weight of 0, and the leads that a weight multiplies."""

    def __init__(self, pairs: Sequence[PreferencePair], logits: Sequence[float], leads: Sequence[float]) -> None:
        self.labels = [pair.label for pair in pairs]
        self.lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
        self.logits, self.leads = logits, leads

    def accuracy(self, weight: float) -> float:
        """Return the share of pairs in which the preferred candidate wins."""
        return accuracy(self._weighted(weight), self.labels) or 0.0

    def without_length(self, weight: float) -> float:
        """Return the mean of the accuracies for longer and for shorter winners."""
        return without_length(self._weighted(weight), self.lengths, self.labels)

    def _weighted(self, weight: float) -> list[float]:
        return [logit + weight * lead for logit, lead in zip(self.logits, self.leads, strict=True)]


def main() -> None:
    options = arguments()
    blender = Blender.from_pretrained(options.ranker, None)
    files = [list(read_labelled(path)) for path in options.data]
    judged = []
    for prompts in files:
        pairs = decided_pairs(prompts, options.max_pairs_per_source, options.seed)
        groups = by_source([pair.source for pair in pairs], pairs)
        judged.append({source: group_of(group, blender) for source, group in groups.items()})
    negatives = negatives_of(files[0], options.negatives, options.seed)
    table = table_of(judged, {kind: group_of(pairs, blender) for kind, pairs in negatives.items()}, options)
    publish(__file__, [table, note(options)], options)


def arguments() -> argparse.Namespace:
    parser = judged_parser(__doc__, max_pairs=200, files="+")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="to try")
    parser.add_argument("--columns", nargs="*", default=["vicuna80"], help="sources of the first file shown alone")
    parser.add_argument("--negatives", type=int, default=150, help="synthetic negatives of each corruption")
    return parser.parse_args()


def group_of(pairs: Sequence[PreferencePair], blender: Blender) -> Group:
    own = blender.ranker.model.config.distinct_token_weight
    leads = [lead_of(pair, blender) for pair in pairs]
    logits = [result.logit - own * lead for result, lead in zip(compared(pairs, blender), leads, strict=True)]
    return Group(pairs, logits, leads)


def lead_of(pair: PreferencePair, blender: Blender) -> float:
    """Return the first candidate's relative lead in distinct tokens."""
    scorer = blender.scorer
    inputs = scorer.processor([pair.prompt], [pair.candidate_a], [pair.candidate_b])
    markers = scorer.model.config.markers
    return lead_in_distinct_tokens(inputs["input_ids"], inputs["attention_mask"].bool(), markers).item()


def table_of(
    judged: Sequence[Mapping[str, Group]], negatives: Mapping[str, Group], options: argparse.Namespace
) -> Table:
    first, others = judged[0], [pair for groups in judged[1:] for pair in groups.items()]
    single = {**{name: first[name] for name in options.columns}, **dict(others), **negatives}
    rows = [
        [
            weight,
            fmean(group.accuracy(weight) for group in first.values()),
            fmean(group.without_length(weight) for group in first.values()),
            *(group.accuracy(weight) for group in single.values()),
        ]
        for weight in options.weights
    ]
    return Table({"weight": "g", **dict.fromkeys(["accuracy", "without length", *single], ".3f")}, rows)


def note(options: argparse.Namespace) -> str:
    return (
        f"The first two columns are means over the sources of {options.data[0].name.split('.')[0]}, decided pairs; "
        "then single sources, and how often a good answer is preferred to a synthetic negative. At most "
        f"{options.max_pairs_per_source} pairs per source and {options.negatives} negatives of each corruption (seed "
        f"{options.seed}); chance is 0.5."
    )


if __name__ == "__main__":
    main()
