"""Figures with confidence intervals, from what each prompt adds to them: prompts are drawn again, not pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# By the name of a figure what a prompt adds above and below the line: the figure is the sum above over the sum below.
Shares = Mapping[str, tuple[float, float]]

RESAMPLES = 1000
CONFIDENCE = 0.95
EDGES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# Draws that are worked on together, so that memory stays small with many prompts.
CHUNK = 100


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Args:
        value: The number.
        low: Lower end of its 95 % confidence interval; None where one prompt alone adds to it, which has no spread.
        high: Upper end.
        n: What it was measured on: pairs, prompts or triples.
    """

    value: float
    low: float | None
    high: float | None
    n: float


def figures(rows: Sequence[Shares], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Return each figure over all prompts, with the percentile interval of a bootstrap over prompts.

    The pairs of a prompt are not independent, so whole prompts are drawn (Efron and Tibshirani 1993, chapter 8).

    Args:
        rows: What each prompt adds.
        seed: Of the draws.
        resamples: How many draws.

    Returns:
        The figures that any prompt adds to, in the order of their first appearance.
    """
    names, above, below = _columns(rows)
    if not names:
        return {}
    edges = np.nanquantile(_drawn(above, below, seed, resamples), EDGES, axis=0)
    values, counts = above.sum(axis=0) / below.sum(axis=0), below.sum(axis=0)
    spread = (below > 0).sum(axis=0) > 1
    return {
        name: Figure(float(values[k]), *_interval(edges[:, k], spread[k]), n=float(counts[k]))
        for k, name in enumerate(names)
    }


def mean_of_figures(
    groups: Sequence[Sequence[Shares]], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Return the mean over groups, such as sources, of each figure that every group has, with its interval.

    Prompts are drawn inside their groups. `n` is the number of groups.
    """
    columns = [_columns(rows) for rows in groups]
    shared = [name for name in columns[0][0] if all(name in names for names, _, _ in columns)] if columns else []
    found = {}
    for name in shared:
        values, draws, spread = [], [], False
        for place, (names, above, below) in enumerate(columns):
            k = names.index(name)
            values.append(above[:, k].sum() / below[:, k].sum())
            draws.append(_drawn(above[:, [k]], below[:, [k]], seed + place, resamples)[:, 0])
            spread |= bool((below[:, k] > 0).sum() > 1)
        edges = np.nanquantile(np.mean(draws, axis=0), EDGES)
        found[name] = Figure(float(np.mean(values)), *_interval(edges, spread), n=len(groups))
    return found


def _columns(rows: Sequence[Shares]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of the figures, and what each prompt adds above and below the line, (prompts, figures)."""
    names = list(dict.fromkeys(name for row in rows for name, (_, below) in row.items() if below))
    table = np.array([[row.get(name, (0.0, 0.0)) for name in names] for row in rows], dtype=float)
    table = table.reshape(len(rows), len(names), 2)
    return names, table[..., 0], table[..., 1]


def _interval(edges: np.ndarray, spread: bool) -> tuple[float | None, float | None]:
    return (float(edges[0]), float(edges[1])) if spread else (None, None)


def _drawn(above: np.ndarray, below: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return each figure in each draw, (draws, figures); NaN where a draw has nothing below the line."""
    rng = np.random.default_rng(seed)
    n = len(above)
    parts = []
    for start in range(0, resamples, CHUNK):
        # How often each prompt is drawn.
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, resamples - start)).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((weights @ above) / (weights @ below))
    return np.concatenate(parts)
