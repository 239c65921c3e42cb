"""Judged pairs for the benchmarks: options, random draws, comparisons by a ranker, and metrics by source."""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from tqdm import tqdm

from blender_hf import Blender, Comparison
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.calibration import expected_calibration_error
from blender_hf.evaluation.pairwise import accuracy, by_source, flip_rate, length_rule
from blender_hf.modeling.ranking_math import probability_of
from blender_hf.training.pair_data import balance_sources, training_pairs
from blender_hf.training.synthetic_negatives import CORRUPTIONS, synthetic_negatives

Row = TypeVar("Row")
Judged = Sequence[tuple[PreferencePair, Comparison]]
Metrics = dict[str, float]

CHUNK = 64  # pairs between two steps of the progress bar


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; `doc` is the docstring of its module."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/ and the document that shows it")
    return parser


def judged_parser(
    doc: str | None, *, max_pairs: int | None = None, files: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser with the options of benchmarks on judged pairs; `files` is "+" to read several."""
    parser = parser_of(doc)
    parser.add_argument("data", type=Path, nargs=files, help="JSONL of judged pairs")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    if max_pairs is not None:
        parser.add_argument("--max-pairs-per-source", type=int, default=max_pairs, help="random sample of larger ones")
    return parser


def read_all(paths: Iterable[Path]) -> list[LabelledPrompt]:
    """Read the labelled prompts of several files."""
    return [prompt for path in paths for prompt in read_labelled(path)]


def sampled(rows: Iterable[Row], group_of: Callable[[Row], Hashable], most: int, seed: int) -> list[Row]:
    """Return a random sample of each group of rows, at most `most` of each, in the order of the groups."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[group_of(row)].append(row)
    rng = random.Random(seed)
    return [row for group in groups.values() for row in rng.sample(group, min(most, len(group)))]


def decided_pairs(prompts: Iterable[LabelledPrompt], most: int, seed: int) -> list[PreferencePair]:
    """Return a random sample of the pairs that are no ties, at most `most` of each source."""
    return balance_sources((pair for pair in training_pairs(prompts) if pair.label != 0.5), most=most, seed=seed)


def compared(pairs: Sequence[PreferencePair], blender: Blender) -> list[Comparison]:
    """Compare the two candidates of every pair."""
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    return [result for chunk in tqdm(chunks) for result in blender.iter_compare(pair.item for pair in chunk)]


def judged_by_source(pairs: Sequence[PreferencePair], blender: Blender) -> dict[str, Judged]:
    """Compare the two candidates of every pair, and group the results by source."""
    return by_source([pair.source for pair in pairs], list(zip(pairs, compared(pairs, blender), strict=True)))


def pair_metrics(judged: Judged) -> Metrics:
    """Return the metrics of one source; ties of logits or of lengths count half."""
    pairs, results = zip(*judged, strict=True)
    labels = [pair.label for pair in pairs]
    lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
    first, second = [result.logit_ab for result in results], [result.logit_ba for result in results]
    both = [result.logit for result in results]
    found = {
        "both orders": accuracy(both, labels),
        "one order": accuracy(first, labels),
        "without length": without_length(both, lengths, labels),
        "longer is better": accuracy(lengths, labels),
        "flips": flip_rate(first, second),
    }
    return {"pairs": len(judged), **{name: value or 0.0 for name, value in found.items()}}


def without_length(logits: Sequence[float], lengths: Sequence[float], labels: Sequence[float]) -> float:
    """Return the mean of the accuracies where the longer answer is better and where the shorter is.

    A length bias gains nothing: what it wins on one side, it loses on the other.
    """
    longer = [(length > 0) == (label > 0.5) for length, label in zip(lengths, labels, strict=True)]
    shares = []
    for side in (True, False):
        chosen = [k for k, value in enumerate(longer) if value == side and lengths[k] != 0]
        shares.append(accuracy([logits[k] for k in chosen], [labels[k] for k in chosen]) if chosen else 0.5)
    return fmean(share or 0.0 for share in shares)


def mean_over(rows: Mapping[str, Metrics]) -> Metrics:
    """Return the mean of each metric over the sources."""
    return {name: fmean(row[name] for row in rows.values()) for name in next(iter(rows.values()))}


def negatives_of(prompts: Sequence[LabelledPrompt], most: int, seed: int) -> dict[str, list[PreferencePair]]:
    """Return for each corruption pairs of a good answer and its synthetic negative."""
    return {kind: synthetic_negatives(prompts, most, seed, [kind]) for kind in CORRUPTIONS}


def against_negatives(
    prompts: Sequence[LabelledPrompt], blender: Blender, options: argparse.Namespace
) -> dict[str, Metrics]:
    """Return for each corruption the metrics of a ranker on synthetic negatives."""
    negatives = negatives_of(prompts, options.negatives, options.seed)
    return {
        kind: pair_metrics(list(zip(pairs, compared(pairs, blender), strict=True))) for kind, pairs in negatives.items()
    }


def calibration_of(groups: Mapping[str, Judged], temperature: float) -> Metrics:
    """Return the expected calibration error with the stored temperature and without it."""
    pairs, results = zip(*(row for group in groups.values() for row in group), strict=True)
    labels = [pair.label for pair in pairs]
    plain = [probability_of(result.logit) for result in results]
    return {
        "temperature": temperature,
        "error": expected_calibration_error([result.probability for result in results], labels),
        "error without": expected_calibration_error(plain, labels),
    }
