"""Do the probabilities come true? The reliability curve and its errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blender_hf.engine.calibration import expected_calibration_error


@dataclass(frozen=True)
class Calibration:
    """What is said, and what comes true.

    Every decided pair is taken once, from the side of the candidate that is said to be better: from 0.5 to 1.

    Args:
        said: Mean probability of the pairs of each bin that is not empty.
        came_true: Share of these pairs in which the annotator prefers the same candidate.
        counts: How many pairs are in the bin.
        error: Expected calibration error, 0 to 1, over ten bins of equal width.
        brier: Mean squared gap between the probability and the verdict, 0 to 1; 0.25 for one that always says 0.5.
    """

    said: tuple[float, ...]
    came_true: tuple[float, ...]
    counts: tuple[int, ...]
    error: float
    brier: float


def calibration_of(probabilities: Sequence[float], labels: Sequence[float], n_bins: int = 10) -> Calibration | None:
    """Return the calibration over decided pairs, or None if there are none.

    Args:
        probabilities: For each pair the probability that a is better.
        labels: For each pair the verdict: 1 if a is better, 0 if b; a tie is left out.
        n_bins: Number of bins between 0.5 and 1.
    """
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    decided = [(p, label) for p, label in zip(probabilities, labels, strict=True) if label != 0.5]
    if not decided:
        return None
    said, judged = np.array(decided).T
    confident = np.where(said >= 0.5, said, 1 - said)
    right = np.where(said >= 0.5, judged, 1 - judged)
    # The curve's bins run from 0 to 1, so the half of interest is stretched over them and shrunk again.
    true, stretched = calibration_curve(right, (confident - 0.5) * 2, n_bins=n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], (confident - 0.5) * 2), minlength=n_bins)
    return Calibration(
        said=tuple(float(value) for value in stretched / 2 + 0.5),
        came_true=tuple(float(value) for value in true),
        counts=tuple(int(count) for count in counts if count),
        error=expected_calibration_error(list(said), list(judged), n_bins),
        brier=float(brier_score_loss(judged, said)),
    )
