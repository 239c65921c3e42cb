"""Labels from other rankers: a student learns what its teachers would say, beside what the judges said.

A verdict of a judge is one bit, and often noise; a teacher's probability says of every pair how sure one may be, so a
student learns from few pairs what its teachers know (Hinton et al. 2015, arXiv 1503.02531), and a ranker that learns
something new keeps what it knew if it is its own teacher (Li and Hoiem 2016, arXiv 1606.09282).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from blender_hf.blender import Blender
from blender_hf.data.jobs import Log, digest_of, open_log
from blender_hf.data.preferences import PreferencePair
from blender_hf.labelling.settings import weights_digest
from blender_hf.modeling.ranking_math import probability_of

from .bags import bag_of_run
from .calibrate import compare_pairs

CHUNK = 256  # pairs between two moments at which the verdicts are saved


def distilled(
    pairs: Sequence[PreferencePair], teachers: Sequence[str], share: float, saved: Path
) -> list[PreferencePair]:
    """Mix the labels of pairs with the mean probability of teachers.

    A teacher that was trained on a bag of the prompts (`bag_share` of its run) has no say on those: what it has seen,
    it knows by heart. A pair that all teachers have seen keeps its label.

    The probability is that of a teacher's logit as it is, of both orders of presentation, without its temperature: what
    is sharper is learned faster, and the student gets a temperature of its own.

    Args:
        pairs: The judged pairs.
        teachers: Rankers: Hub ids or folders.
        share: Of the teachers in a label, 0 to 1.
        saved: File of the verdicts so far, which is made and read: an interrupted run asks nothing twice.

    Returns:
        The pairs in their order, with soft labels.
    """
    saved.parent.mkdir(parents=True, exist_ok=True)
    with open_log(saved) as log:
        verdicts = [_verdicts(pairs, teacher, log) for teacher in teachers]
    mixed = []
    for pair in pairs:
        key = _key(pair)
        said = [of_teacher[key] for of_teacher in verdicts if key in of_teacher]
        mixed.append(replace(pair, label=share * fmean(said) + (1 - share) * pair.label) if said else pair)
    return mixed


def _verdicts(pairs: Sequence[PreferencePair], teacher: str, log: Log) -> Mapping[str, float]:
    """Return a teacher's probability that a is better, by the key of a pair, for those that are new to it."""
    weights = weights_digest(teacher)
    found, bag = _read(log, teacher, weights), bag_of_run(teacher)
    new = [pair for pair in pairs if bag is None or pair.prompt not in bag]
    missing = list({key: pair for pair in new if (key := _key(pair)) not in found}.items())
    if not missing:
        return found
    # Pairs of similar length together, the longest first: if they don't fit into memory, it shows at once.
    missing.sort(key=lambda entry: -entry[1].n_characters())
    blender = Blender.from_pretrained(teacher, None)
    log.begin()
    for start in range(0, len(missing), CHUNK):
        keys, asked = zip(*missing[start : start + CHUNK], strict=True)
        results = compare_pairs(blender, asked)
        fresh = {key: probability_of(result.logit) for key, result in zip(keys, results, strict=True)}
        found |= fresh
        log.append(json.dumps({"teacher": teacher, "weights": weights, "probabilities": fresh}))
    return found


def _read(log: Log, teacher: str, weights: str | None) -> dict[str, float]:
    """Return the saved verdicts of a teacher; those of other weights are asked for again, if they are at hand."""
    found: dict[str, float] = {}
    for _, value in log.values():
        if value["teacher"] == teacher and weights in (None, value.get("weights")):
            found |= value["probabilities"]
    return found


def _key(pair: PreferencePair) -> str:
    return digest_of([pair.prompt, pair.candidate_a, pair.candidate_b])
