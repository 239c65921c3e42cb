"""The metrics of a ranker in training: logits of both orders in, numbers out."""

import logging
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.calibration import TEMPERATURES, expected_calibration_error, fit_temperature
from blender_hf.evaluation.pairwise import accuracy, by_source, flip_rate, length_rule
from blender_hf.modeling.ranking_math import mean_logit, probability_of

logger = logging.getLogger(__name__)
# Each source has a metric of each kind, and so has the mean over the sources.
KINDS = ("both orders", "one order", "longer is better", "flips")
MEAN = "mean over sources"
# What a `Trainer` calls the means over the sources.
NAMES = dict(zip(KINDS, ("accuracy", "accuracy_one_order", "accuracy_longer", "flip_rate"), strict=True))


def source_table(
    pairs: Sequence[PreferencePair], logits_ab: Sequence[float], logits_ba: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Return the metrics of each source on its decided pairs.

    The logits are positive for the candidate presented first: a in `logits_ab`, b in `logits_ba`. A row has the number
    of `pairs` and the fractions `KINDS`, and the last row is the mean; there is none if no pair is decided.
    """
    rows = [row for row in zip(pairs, logits_ab, logits_ba, strict=True) if row[0].label != 0.5]
    groups = by_source([pair.source for pair, _, _ in rows], rows)
    table = {source: _row(group) for source, group in groups.items()}
    if not table:
        return {}
    return {**table, MEAN: {"pairs": len(rows), **{kind: fmean(row[kind] for row in table.values()) for kind in KINDS}}}


def pair_metrics(
    pairs: Sequence[PreferencePair], logits_ab: Sequence[float], logits_ba: Sequence[float]
) -> dict[str, float]:
    """Return the metrics of an evaluation under the names that a `Trainer` logs; arguments as of `source_table`."""
    table = source_table(pairs, logits_ab, logits_ba)
    logits = [mean_logit(ab, ba) for ab, ba in zip(logits_ab, logits_ba, strict=True)]
    labels = [pair.label for pair in pairs]
    temperature = fitted_temperature(logits, labels)
    probabilities = [probability_of(logit, temperature) for logit in logits]
    means = {NAMES[kind]: value for kind, value in table.pop(MEAN, {}).items() if kind in NAMES}
    return {
        **means,
        "ece": expected_calibration_error(probabilities, labels),
        "temperature": temperature,
        **{f"accuracy_{source}": row["both orders"] for source, row in table.items()},
    }


def metric_names(pairs: Sequence[PreferencePair]) -> list[str]:
    """Return the names of the metrics that `pair_metrics` has for these pairs."""
    sources = sorted({pair.source for pair in pairs if pair.label != 0.5})
    return [*(NAMES.values() if sources else ()), "ece", "temperature", *(f"accuracy_{source}" for source in sources)]


def metrics_record(
    pairs: Sequence[PreferencePair],
    logits_ab: Sequence[float],
    logits_ba: Sequence[float],
    eval_metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Return what `metrics.json` has of an evaluation."""
    return {"eval": eval_metrics, "sources": source_table(pairs, logits_ab, logits_ba), "eval pairs": len(pairs)}


def fitted_temperature(logits: Sequence[float], labels: Sequence[float]) -> float:
    """Return `calibration.fit_temperature`, with a warning if it ends at a bound, where it is not a fit."""
    found = fit_temperature(logits, labels)
    lowest, highest = TEMPERATURES
    if not 1.01 * lowest < found < highest / 1.01:
        logger.warning(
            "the fitted temperature is %.4g, the end of its range: %s; probabilities of this ranker mean little",
            found,
            "its logits say nothing of these pairs" if found > 1 else "all pairs are right, or too few to fit it on",
        )
    return found


def _row(rows: Sequence[tuple[PreferencePair, float, float]]) -> dict[str, float]:
    pairs, ab, ba = zip(*rows, strict=True)
    labels = [pair.label for pair in pairs]
    lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
    evidence = ([mean_logit(*both) for both in zip(ab, ba, strict=True)], ab, lengths)
    accuracies = [accuracy(found, labels) or 0.0 for found in evidence]
    return {"pairs": len(rows), **dict(zip(KINDS, [*accuracies, flip_rate(ab, ba) or 0.0], strict=True))}
