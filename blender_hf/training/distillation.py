"""Labels from other rankers: a student learns their probabilities besides the judges' verdicts.

A verdict is one bit, and often noise; a teacher's probability says of every pair how certain it is, so a student learns
from few pairs what its teachers know (Hinton et al. 2015, arXiv 1503.02531), and a ranker that learns something new
keeps what it knew if it is its own teacher (Li and Hoiem 2016, arXiv 1606.09282).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from blender_hf.blender import Blender
from blender_hf.data.jobs import Log, digest_of, open_log
from blender_hf.data.preferences import PreferencePair
from blender_hf.labelling.settings import weights_digest
from blender_hf.modeling.ranking_math import probability_of

from .loading import subsample_of_run

CHUNK = 256  # pairs between two writes to the cache


def distilled(
    pairs: Sequence[PreferencePair],
    teachers: Sequence[str],
    share: float,
    cache: Path,
    unjudged: Sequence[PreferencePair] = (),
) -> list[PreferencePair]:
    """Mix the labels of pairs with the mean probability of teachers; that of unjudged pairs is theirs alone.

    A teacher whose run was trained on a subsample of the prompts (`train_fraction`) is not asked about those: it has
    memorised their labels. Of pairs that all teachers have seen, a judged one keeps its label, and an unjudged one is
    left out.

    The probability is the sigmoid of a teacher's logit, of both orders of presentation, without its temperature: a
    sharper target is learned faster, and the student's own temperature is fitted later.
    """
    asked = [_probabilities([*pairs, *unjudged], teacher, cache) for teacher in teachers]

    def said(pair: PreferencePair) -> float | None:
        key = _key(pair)
        found = [of_teacher[key] for of_teacher in asked if key in of_teacher]
        return fmean(found) if found else None

    mixed = [
        pair if (found := said(pair)) is None else replace(pair, label=share * found + (1 - share) * pair.label)
        for pair in pairs
    ]
    return mixed + [replace(pair, label=found) for pair in unjudged if (found := said(pair)) is not None]


def _probabilities(pairs: Sequence[PreferencePair], teacher: str, cache: Path) -> Mapping[str, float]:
    """Return a teacher's probability that a is better, by the key of a pair, for those that it was not trained on."""
    weights = weights_digest(teacher)
    found, seen = _cached(cache, teacher, weights), subsample_of_run(teacher)
    new = [pair for pair in pairs if seen is None or pair.prompt not in seen]
    missing = list({key: pair for pair in new if (key := _key(pair)) not in found}.items())
    if not missing:
        return found
    # The pairs of a prompt together, whose candidates some teachers read once. The longest first: if they don't fit
    # into memory, it shows at once.
    longest: dict[str, int] = defaultdict(int)
    for _, pair in missing:
        longest[pair.prompt] = max(longest[pair.prompt], pair.n_characters())
    missing.sort(key=lambda entry: (-longest[entry[1].prompt], entry[1].prompt))
    blender = Blender.from_pretrained(teacher, None)
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Only the process that asks needs the lock: of several that train together, the others find nothing missing.
    with open_log(cache) as log:
        log.begin()
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            results = blender.iter_compare(pair.item for _, pair in chunk)
            fresh = {key: probability_of(result.logit) for (key, _), result in zip(chunk, results, strict=True)}
            found |= fresh
            log.append(json.dumps({"teacher": teacher, "weights": weights, "probabilities": fresh}))
    return found


def _cached(cache: Path, teacher: str, weights: str | None) -> dict[str, float]:
    """Return the cached probabilities of a teacher; those of other weights are asked for again, if it can be read."""
    found: dict[str, float] = {}
    for _, value in Log(cache).values():
        if value["teacher"] == teacher and weights in (None, value.get("weights")):
            found |= value["probabilities"]
    return found


def _key(pair: PreferencePair) -> str:
    return digest_of([pair.prompt, pair.candidate_a, pair.candidate_b])
