"""Training pairs for a ranker from labelled prompts: which pairs of a prompt, and how many of a source."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import chosen
from blender_hf.inputs import Item

# How often a small source is repeated at most: beyond, a ranker memorises it.
MAX_REPEATS = 3


def judged_pairs(prompt: LabelledPrompt) -> list[PreferencePair]:
    """Return the judged pairs of a prompt; the label is the judge's probability where there is one."""
    return [PreferencePair(_item_of(prompt, pair.a, pair.b), pair.probability, prompt.source) for pair in prompt.pairs]


def scored_pairs(prompt: LabelledPrompt, metrics: Sequence[str]) -> list[PreferencePair]:
    """Return every pair of candidates with one label a quality function: 1 if a scores higher, 0.5 if both are equal.

    These are the labels of the paper's multi-task loss (section 3.3). A prompt that lacks a score gives no pairs.
    """
    columns = [prompt.complete_scores(metric) for metric in metrics]
    if any(column is None for column in columns):
        return []
    return [
        PreferencePair(_item_of(prompt, a, b), fmean(labels), prompt.source, labels)
        for a, b in combinations(range(len(prompt.item.candidates)), 2)
        for labels in [tuple(_label(column[a], column[b]) for column in columns if column is not None)]
    ]


def _item_of(prompt: LabelledPrompt, a: int, b: int) -> Item:
    return replace(prompt.item, candidates=(prompt.item.candidates[a], prompt.item.candidates[b]))


def _label(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def _all_pairs(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    if most is None or most >= len(pairs):
        return pairs
    # Random ones, in their order: the first few would all be pairs of the first candidate.
    return [pairs[index] for index in sorted(rng.sample(range(len(pairs)), most))]


def _random(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    return rng.sample(pairs, len(pairs) if most is None else min(most, len(pairs)))


def _top_bottom(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    """Pair the best with the worst, the second with the last but one, and so on, as far as these were judged."""
    won: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        won[pair.candidate_a].append(pair.label)
        won[pair.candidate_b].append(1 - pair.label)
    order = sorted(won, key=lambda text: -fmean(won[text]))
    wanted = [{order[k], order[-1 - k]} for k in range(len(order) // 2)][:most]
    return [pair for texts in wanted for pair in pairs if {pair.candidate_a, pair.candidate_b} == texts]


# The sub-sampling of the paper (appendix on training): which pairs of a prompt are trained on.
SAMPLINGS: dict[str, Callable[[list[PreferencePair], int | None, random.Random], list[PreferencePair]]] = {
    "all_pair": _all_pairs,
    "random": _random,
    "top_bottom": _top_bottom,
}


def training_pairs(
    prompts: Iterable[LabelledPrompt],
    *,
    metrics: Sequence[str] = (),
    sampling: str = "all_pair",
    pairs_per_prompt: int | None = None,
    seed: int = 0,
) -> Iterator[PreferencePair]:
    """Yield the pairs of different texts that a ranker is trained on."""
    chosen(dict.fromkeys(SAMPLINGS), sampling, "sampling")
    rng = random.Random(seed)
    for prompt in prompts:
        pairs = scored_pairs(prompt, metrics) if metrics else judged_pairs(prompt)
        different = [pair for pair in pairs if pair.candidate_a != pair.candidate_b]
        yield from SAMPLINGS[sampling](different, pairs_per_prompt, rng)


def unjudged_pairs(
    prompts: Iterable[LabelledPrompt], judged: Iterable[PreferencePair], *, most: int | None = None, seed: int = 0
) -> list[PreferencePair]:
    """Return the pairs of different texts that nobody judged, of prompts that have a judged pair, for teachers.

    Their label, 0.5, says nothing. A prompt gets at most `most` pairs with the judged ones; random ones are left out.
    """
    known: dict[str, set[frozenset[str]]] = defaultdict(set)
    for pair in judged:
        known[pair.prompt].add(frozenset(pair.item.texts))
    rng = random.Random(seed)
    found: list[PreferencePair] = []
    for prompt in prompts:
        seen = known.get(prompt.item.source)
        if seen is None:
            continue
        texts = list(dict.fromkeys(prompt.item.texts))
        indices = [prompt.item.texts.index(text) for text in texts]
        pairs = [
            PreferencePair(_item_of(prompt, a, b), 0.5, prompt.source)
            for a, b in combinations(indices, 2)
            if frozenset((prompt.item.texts[a], prompt.item.texts[b])) not in seen
        ]
        chosen = _all_pairs(pairs, None if most is None else max(0, most - len(seen)), rng)
        seen.update(frozenset(pair.item.texts) for pair in chosen)  # a prompt may have several records
        found += chosen
    return found


def balance_sources(
    pairs: Iterable[PreferencePair], *, most: int | None = None, least: int = 0, seed: int = 0
) -> list[PreferencePair]:
    """Choose how many pairs of each source are trained on, so that a large one does not drown the others.

    At most `most` pairs of a source are drawn at random; a source of fewer than `least` is repeated until it has so
    many, three times at most.
    """
    by_source: dict[str, list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_source[pair.source].append(pair)
    rng = random.Random(seed)
    chosen: list[PreferencePair] = []
    for group in by_source.values():
        kept = rng.sample(group, len(group) if most is None else min(most, len(group)))
        while len(kept) < least and len(kept) < MAX_REPEATS * len(group):
            kept += rng.sample(group, min(len(group), least - len(kept), MAX_REPEATS * len(group) - len(kept)))
        chosen += kept
    return chosen


def balance_lengths(pairs: Sequence[PreferencePair], *, seed: int = 0) -> list[PreferencePair]:
    """Leave out random pairs until, in each source, the longer answer is better as often as the shorter.

    A ranker can't learn from the remaining pairs, which keep their order, that longer is better. Ties, and pairs of the
    same length, stay.
    """
    indices: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        longer = len(pair.candidate_a) - len(pair.candidate_b)
        if longer and pair.label != 0.5:
            indices[pair.source, (longer > 0) == (pair.label > 0.5)].append(index)
    rng = random.Random(seed)
    left_out: set[int] = set()
    for source in dict.fromkeys(source for source, _ in indices):
        groups = [indices[source, longer_won] for longer_won in (True, False)]
        fewest = min(map(len, groups))
        left_out.update(index for group in groups for index in rng.sample(group, len(group) - fewest))
    return [pair for index, pair in enumerate(pairs) if index not in left_out]
