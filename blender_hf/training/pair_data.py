"""Training pairs for a ranker from labelled prompts: which pairs of a prompt, and how many of a collection."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from statistics import fmean

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError

# A small collection is repeated, but not more often than this: beyond, it is learned by heart.
MOST_REPEATS = 3


def judged_pairs(prompt: LabelledPrompt) -> list[PreferencePair]:
    """Return the judged pairs of a prompt; the label is the judge's probability where there is one."""
    texts, source = prompt.item.texts, prompt.item.source
    return [
        PreferencePair(source, texts[pair.a], texts[pair.b], pair.probability, prompt.source) for pair in prompt.pairs
    ]


def scored_pairs(prompt: LabelledPrompt, metrics: Sequence[str]) -> list[PreferencePair]:
    """Return every pair of candidates with one label a quality function: 1 if a has more of it, 0.5 if as much.

    These are the labels of the paper's multi-task loss (section 3.3). A prompt that lacks a score gives no pairs.
    """
    columns = [prompt.complete_scores(metric) for metric in metrics]
    if any(column is None for column in columns):
        return []
    texts, source = prompt.item.texts, prompt.item.source
    return [
        PreferencePair(source, texts[a], texts[b], fmean(labels), prompt.source, labels)
        for a, b in combinations(range(len(texts)), 2)
        for labels in [tuple(_label(column[a], column[b]) for column in columns if column is not None)]
    ]


def _label(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def _all_pairs(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    if most is None or most >= len(pairs):
        return pairs
    # By lot, in their order: the first few would all be pairs of the first candidate.
    return [pairs[place] for place in sorted(rng.sample(range(len(pairs)), most))]


def _random(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    return rng.sample(pairs, len(pairs) if most is None else min(most, len(pairs)))


def _top_bottom(pairs: list[PreferencePair], most: int | None, rng: random.Random) -> list[PreferencePair]:
    """The best against the worst, the second against the last but one, and so on, as far as these were judged."""
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
    """Yield the pairs of prompts that a ranker is trained on.

    Args:
        prompts: The labelled prompts.
        metrics: Quality functions whose scores are the labels, one task each; empty takes the judged pairs.
        sampling: "all_pair"; "random", `pairs_per_prompt` of them; or "top_bottom", the best candidate against the
            worst, the second against the last but one, and so on.
        pairs_per_prompt: Most pairs of a prompt; None takes all (the paper has 5).
        seed: Of the random choice.

    Returns:
        An iterator of pairs of different texts.

    Raises:
        InputError: If there is no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise InputError(f"there is no sampling {sampling!r}; use one of {', '.join(SAMPLINGS)}")
    rng = random.Random(seed)
    for prompt in prompts:
        pairs = scored_pairs(prompt, metrics) if metrics else judged_pairs(prompt)
        different = [pair for pair in pairs if pair.candidate_a != pair.candidate_b]
        yield from SAMPLINGS[sampling](different, pairs_per_prompt, rng)


def balance_sources(
    pairs: Iterable[PreferencePair], *, most: int | None = None, least: int = 0, seed: int = 0
) -> list[PreferencePair]:
    """Choose how much of each collection is trained on, so that a large one does not drown the others.

    Args:
        pairs: The pairs.
        most: Most pairs of a collection, drawn at random; None takes all.
        least: A collection of fewer is repeated until it has so many, at most three times.
        seed: Of the draw.

    Returns:
        The chosen pairs.
    """
    by_source: dict[str, list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_source[pair.source].append(pair)
    rng = random.Random(seed)
    chosen: list[PreferencePair] = []
    for group in by_source.values():
        kept = rng.sample(group, len(group) if most is None else min(most, len(group)))
        while len(kept) < least and len(kept) < MOST_REPEATS * len(group):
            kept += rng.sample(group, min(len(group), least - len(kept), MOST_REPEATS * len(group) - len(kept)))
        chosen += kept
    return chosen


def balance_lengths(pairs: Sequence[PreferencePair], *, seed: int = 0) -> list[PreferencePair]:
    """Leave out pairs until, in each collection, the longer answer is as often the better one as the shorter.

    A ranker that is trained on the rest can't learn from any collection that longer is better. Ties, and pairs of the
    same length, stay.

    Args:
        pairs: The pairs.
        seed: Of the choice of those that are left out.

    Returns:
        The pairs that stay, in their order.
    """
    places: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        longer = len(pair.candidate_a) - len(pair.candidate_b)
        if longer and pair.label != 0.5:
            places[pair.source, (longer > 0) == (pair.label > 0.5)].append(place)
    rng = random.Random(seed)
    left_out: set[int] = set()
    for source in dict.fromkeys(source for source, _ in places):
        groups = [places[source, longer_won] for longer_won in (True, False)]
        fewest = min(map(len, groups))
        left_out.update(place for group in groups for place in rng.sample(group, len(group) - fewest))
    return [pair for place, pair in enumerate(pairs) if place not in left_out]
