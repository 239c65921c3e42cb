"""Do the probabilities come true? The temperature that makes them, and how far they are off."""

from collections.abc import Sequence

import numpy as np

# Factors by which a temperature may differ from 1; beyond them the logits carry no information.
TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: Sequence[float], labels: Sequence[float]) -> float:
    """Return the temperature under which judged pairs are most likely (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Args:
        logits: For each pair the mean logit of both orders, positive if a is better.
        labels: For each pair the probability, 0 to 1, that a is the better one.

    Returns:
        What to divide logits by: above 1 if the model is too sure of itself.

    Raises:
        ValueError: If there are no pairs, or not a label for each.
    """
    from scipy.optimize import minimize_scalar

    if len(logits) == 0 or len(logits) != len(labels):
        raise ValueError(f"{len(logits)} logits and {len(labels)} labels: give one of each for every pair")
    given, judged = np.asarray(logits), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        scaled = given / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - judged * scaled))

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded").x))


def expected_calibration_error(probabilities: Sequence[float], labels: Sequence[float], n_bins: int = 10) -> float:
    """Return the mean gap between what is said and what comes true, over bins of equal width, weighted by their pairs.

    A pair is taken from the side of the candidate that is said to be better, so probabilities run from 0.5 to 1.

    Args:
        probabilities: For each pair the probability that a is better.
        labels: For each pair the judged probability that a is the better one.
        n_bins: Number of bins between 0.5 and 1.

    Returns:
        From 0 (they come true) to 1.

    >>> expected_calibration_error([0.9, 0.1, 0.9, 0.9], [1.0, 0.0, 1.0, 0.0])
    0.15
    """
    said, judged = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    confident = np.where(said >= 0.5, said, 1 - said)
    right = np.where(said >= 0.5, judged, 1 - judged)
    bins = np.minimum(((confident - 0.5) * 2 * n_bins).astype(int), n_bins - 1)
    gaps = [abs(float(np.sum(confident[bins == b] - right[bins == b]))) for b in range(n_bins)]
    return round(sum(gaps) / max(len(said), 1), 12)
