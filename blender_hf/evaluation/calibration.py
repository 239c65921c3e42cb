"""Calibration: whether predicted probabilities match observed frequencies, and the temperature that makes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Range of fitted temperatures; at either end the logits carry no information.
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Calibration:
    """The reliability curve of decided pairs and its errors.

    Every pair is counted once, from the side of its predicted winner, so probabilities run from 0.5 to 1.

    Args:
        said: Mean predicted probability in each bin that is not empty.
        came_true: Share of the pairs of the bin whose predicted winner the annotator prefers.
        counts: Number of pairs in the bin.
        error: Expected calibration error, 0 to 1, over bins of equal width.
        brier: Mean squared error of the probabilities, 0 to 1; 0.25 for a constant 0.5.
    """

    said: tuple[float, ...]
    came_true: tuple[float, ...]
    counts: tuple[int, ...]
    error: float
    brier: float


def calibration_of(probabilities: Sequence[float], labels: Sequence[float], n_bins: int = 10) -> Calibration | None:
    """Return the calibration over the pairs whose label is not 0.5, as in the next function; None if there are none."""
    decided = [(p, label) for p, label in zip(probabilities, labels, strict=True) if label != 0.5]
    if not decided:
        return None
    predicted, judged = np.array(decided).T
    confidence, right, bins = _binned(predicted, judged, n_bins)
    counts = np.bincount(bins)
    filled = np.flatnonzero(counts)
    said = 0.5 + np.bincount(bins, weights=confidence - 0.5)[filled] / counts[filled]
    came_true = np.bincount(bins, weights=right)[filled] / counts[filled]
    return Calibration(
        said=tuple(map(float, said)),
        came_true=tuple(map(float, came_true)),
        counts=tuple(map(int, counts[filled])),
        error=expected_calibration_error(predicted, judged, n_bins),
        brier=float(np.mean((judged - predicted) ** 2)),
    )


def expected_calibration_error(
    probabilities: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray, n_bins: int = 10
) -> float:
    """Return the mean gap between confidence and accuracy, over bins of equal width, weighted by their pairs.

    >>> expected_calibration_error([0.9, 0.1, 0.9, 0.9], [1.0, 0.0, 1.0, 0.0])
    0.15
    """
    confidence, right, bins = _binned(probabilities, labels, n_bins)
    gaps = [abs(float(np.sum(confidence[bins == b] - right[bins == b]))) for b in range(n_bins)]
    return round(sum(gaps) / max(len(bins), 1), 12)


def fit_temperature(logits: Sequence[float], labels: Sequence[float]) -> float:
    """Return the maximum-likelihood temperature for judged pairs (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Logits, the means of both presentation orders, are divided by it: it is above 1 if the model is overconfident.
    A label is the probability, 0 to 1, that the first candidate is the better one.
    """
    from scipy.optimize import minimize_scalar

    if len(logits) == 0 or len(logits) != len(labels):
        raise ValueError(f"{len(logits)} logits and {len(labels)} labels: give one of each for every pair")
    given, judged = np.asarray(logits), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        scaled = given / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - judged * scaled))

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded").x))


def _binned(
    probabilities: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray, n_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, from the side of each predicted winner, its probability, its label, and the bin it falls into."""
    predicted, judged = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    confidence = np.where(predicted >= 0.5, predicted, 1 - predicted)
    right = np.where(predicted >= 0.5, judged, 1 - judged)
    return confidence, right, np.minimum(((confidence - 0.5) * 2 * n_bins).astype(int), n_bins - 1)
