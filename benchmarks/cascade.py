"""Measure what a cascade of two rankers saves and loses, for several bands of the cheap one's probability.

    python -m benchmarks.cascade dev.jsonl.gz --save

The expensive ranker is asked where the probability of the cheap one, in the mean of both presentation orders, lies in
the band. Half of the pairs fit the weights of a mixture of both, and all rows are measured on the other half.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from benchmarks.judged import compared, decided_pairs, judged_parser
from benchmarks.tables import Table, publish
from blender_hf import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.compositions import Cascade, Mixture
from blender_hf.engine.rankers import Ranker
from blender_hf.engine.results import Comparison
from blender_hf.evaluation.pairwise import accuracy
from blender_hf.inputs import Item

# How far from 0.5 the ends of a band are.
WIDTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


def main() -> None:
    parser = judged_parser(__doc__, max_pairs=40)
    parser.add_argument("--expensive", default="pair-ranker-base", help="Hub id or folder of the other ranker")
    options = parser.parse_args()
    pairs = decided_pairs(read_labelled(options.data), options.max_pairs_per_source, options.seed)
    names = (options.ranker, options.expensive)
    cheap, expensive = (cast(Ranker, Known(pairs, Blender.from_pretrained(name, None))) for name in names)
    table, weights = cascade_table(pairs[1::2], pairs[::2], cheap, expensive)
    data = options.data.name.split(".")[0]
    note = (
        f"{options.ranker} asks {options.expensive}; {len(pairs[1::2])} pairs of {data}, at most "
        f"{options.max_pairs_per_source} decided pairs per source in all (seed {options.seed}). The fitted weights of "
        f"the mixture are {weights[0]:.2f} and {weights[1]:.2f}."
    )
    publish(__file__, [table, note], options)


class Known:
    """The comparisons of a ranker that was asked once about each pair.

    Args:
        pairs: The pairs.
        blender: It compares them.
    """

    def __init__(self, pairs: Sequence[PreferencePair], blender: Blender) -> None:
        self._found: dict[tuple[str, ...], Comparison] = {}
        for pair, one in zip(pairs, compared(pairs, blender), strict=True):
            swapped = replace(one, logit_ab=one.logit_ba, logit_ba=one.logit_ab)
            self._found[pair.prompt, pair.candidate_a, pair.candidate_b] = one
            self._found[pair.prompt, pair.candidate_b, pair.candidate_a] = swapped

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: object = None) -> list[Comparison]:
        """Return the comparisons of items that were asked about."""
        return [self._found[(item.source, *item.texts)] for item in items]


def cascade_table(
    measured: Sequence[PreferencePair], fitted: Sequence[PreferencePair], cheap: Ranker, expensive: Ranker
) -> tuple[Table, tuple[float, ...]]:
    """Return the share of asked pairs and the accuracy of each band and of mixtures, and the fitted weights."""
    labels = [pair.label for pair in measured]
    items, cells = [pair.item for pair in measured], []

    def right(ranker: Mixture | Cascade) -> float | None:
        return accuracy([one.logit for one in Blender(ranker).ranker.compare(items)], labels)

    for width in WIDTHS:
        cascade = Cascade(cheap, expensive, (0.5 - width, 0.5 + width))
        found = right(cascade)
        cells.append([f"cascade:{cascade.band[0]:g}-{cascade.band[1]:g}", cascade.asked / cascade.compared, found])
    mixture = Mixture.fitted([cheap, expensive], [pair.item for pair in fitted], [pair.label for pair in fitted])
    for name, mixed in (("equal weights", Mixture([cheap, expensive])), ("fitted weights", mixture)):
        cells.append([f"mixture, {name}", 1.0, right(mixed)])
    return Table({"": "", "asked": ".0%", "accuracy": ".3f"}, cells), mixture.weights


if __name__ == "__main__":
    main()
