"""Measure rankers on pairs that any person decides at once, by what is wrong with the worse answer.

    python -m benchmarks.obvious --rankers length pair-ranker-mini --save

The pairs are in obvious_pairs.jsonl, written by hand for this test and never to be trained on. The `source` of a record
is its category. In each category the better answer is the longer one in about half of the pairs, and the first in half.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.judged import CHUNK, parser_of
from benchmarks.tables import Cell, Table, interval, publish
from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.results import Comparison
from blender_hf.evaluation.bootstrap import Figure, figures
from blender_hf.evaluation.loading import load_predictor
from blender_hf.evaluation.pairwise import credits
from blender_hf.evaluation.predictors import Predictor, Query

PAIRS = Path(__file__).with_name("obvious_pairs.jsonl")
ALL = "all pairs"
# What a ranker is to reach, over all pairs.
AIM = 0.95


@dataclass(frozen=True)
class Verdict:
    """What a ranker says of a pair."""

    prompt: LabelledPrompt
    comparison: Comparison

    @property
    def good(self) -> int:
        """Index of the better candidate."""
        return 0 if self.prompt.pairs[0].label == 1 else 1

    @property
    def credit(self) -> float:
        """1 if the better candidate wins, 0 if the worse one does, 0.5 for a tie."""
        [credit] = credits([self.comparison.logit], [self.prompt.pairs[0].label])
        return credit or 0.0

    @property
    def against_empty(self) -> bool:
        """Whether the worse candidate is empty: it has no letter and no digit."""
        return not any(map(str.isalnum, self.prompt.item.texts[1 - self.good]))

    @property
    def lead_in_length(self) -> int:
        """By how many characters the better candidate is longer."""
        lengths = [len(text) for text in self.prompt.item.texts]
        return lengths[self.good] - lengths[1 - self.good]

    def text(self) -> str:
        """Return the pair for a reader."""
        good, bad = (self.prompt.item.texts[index] for index in (self.good, 1 - self.good))
        return f"{self.prompt.id}: {self.prompt.item.source!r}\n  better: {good!r}\n  worse:  {bad!r}"


def main() -> None:
    options = arguments()
    prompts = list(read_labelled(options.data))
    verdicts = {name: verdicts_of(load(name, prompts), prompts) for name in options.rankers}
    if options.misses:
        print(misses(verdicts), end="\n\n")
    found = {name: by_category(of_ranker, options.seed) for name, of_ranker in verdicts.items()}
    publish(__file__, [table_of(found), note(options), habits_table(verdicts)], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=PAIRS, help="JSONL of pairs, with the category as the source")
    parser.add_argument(
        "--rankers", nargs="+", default=["length", "pair-ranker-mini"], help="as in `blender-hf evaluate --ranker`"
    )
    parser.add_argument("--misses", action="store_true", help="print the pairs that each ranker gets wrong")
    return parser.parse_args()


def load(name: str, prompts: Sequence[LabelledPrompt]) -> Predictor:
    return load_predictor(name, prompts, lambda spec: Blender.from_pretrained(spec, None))


def verdicts_of(predictor: Predictor, prompts: Sequence[LabelledPrompt]) -> list[Verdict]:
    """Compare the two candidates of every prompt."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        queries = [Query.about(prompt, complete=False) for prompt in prompts[start : start + CHUNK]]
        for query, prediction in zip(queries, predictor.predict(queries), strict=True):
            if prediction is not None:
                found.append(Verdict(query.prompt, prediction.comparisons[0, 1]))
    return found


def by_category(verdicts: Sequence[Verdict], seed: int) -> dict[str, Figure]:
    """Return the accuracy in each category and over all pairs."""
    rows = [{verdict.prompt.source: (verdict.credit, 1.0), ALL: (verdict.credit, 1.0)} for verdict in verdicts]
    found = figures(rows, seed=seed)
    return {**{name: figure for name, figure in found.items() if name != ALL}, ALL: found[ALL]}


def table_of(found: Mapping[str, Mapping[str, Figure]]) -> Table:
    first = next(iter(found.values()))
    rows: list[list[Cell]] = [
        [
            category,
            int(figure.n),
            # A category is too small for an interval.
            *(interval(of[category]) if category == ALL else of[category].value for of in found.values()),
        ]
        for category, figure in first.items()
    ]
    return Table({"the worse answer": "", "pairs": "d", **dict.fromkeys(found, ".3f|.3f")}, rows)


def habits_table(verdicts: Mapping[str, Sequence[Verdict]]) -> Table:
    """Return how often an empty answer wins, and what each ranker makes of places and lengths."""
    habits = {name: habits_of(of_ranker) for name, of_ranker in verdicts.items()}
    rows = [[name, *(of[name] for of in habits.values())] for name in next(iter(habits.values()))]
    return Table({"": "", **dict.fromkeys(habits, ".3f")}, rows)


def habits_of(verdicts: Sequence[Verdict]) -> dict[str, Cell]:
    """Return the habits of a ranker; places and lengths say nothing of the quality."""
    empty = [verdict for verdict in verdicts if verdict.against_empty]
    longer = [verdict.credit for verdict in verdicts if verdict.lead_in_length > 0]
    shorter = [verdict.credit for verdict in verdicts if verdict.lead_in_length < 0]
    return {
        "empty answers that win or tie": f"{sum(verdict.credit < 1 for verdict in empty)} of {len(empty)}",
        "first candidate preferred": _mean([v.credit if v.good == 0 else 1 - v.credit for v in verdicts]),
        "longer candidate preferred": _mean([*longer, *(1 - credit for credit in shorter)]),
        "right where the better answer is longer": _mean(longer),
        "right where it is shorter": _mean(shorter),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def misses(verdicts: Mapping[str, Sequence[Verdict]]) -> str:
    """Return the pairs that each ranker gets wrong or can't decide."""
    parts = []
    for name, of_ranker in verdicts.items():
        wrong = [verdict for verdict in of_ranker if verdict.credit < 1]
        parts.append("\n".join([f"{name} misses {len(wrong)}:", *(verdict.text() for verdict in wrong)]))
    return "\n\n".join(parts)


def note(options: argparse.Namespace) -> str:
    return (
        "The share of pairs in which the better answer wins, both orders read; chance is 0.5. The aim over all pairs "
        f"is {AIM:.2f}; the interval is that of a bootstrap over pairs (95 %, seed {options.seed}). `length` is the "
        "rule that the longer answer is better."
    )


if __name__ == "__main__":
    main()
