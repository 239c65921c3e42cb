"""Figures with bootstrap confidence intervals; prompts are resampled, not pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blender_hf.errors import InputError

# What one prompt adds to each figure, by name: a numerator and a denominator. A figure is the ratio of their sums.
Ratios = Mapping[str, tuple[float, float]]

RESAMPLES = 1000
CONFIDENCE = 0.95
EDGES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# Resamples computed together, which bounds the memory.
CHUNK = 100


@dataclass(frozen=True)
class Figure:
    """A measured number."""

    value: float  # the number
    low: float | None  # lower end of its 95 % confidence interval; None if only one prompt contributes
    high: float | None  # upper end
    n: float  # number of pairs, prompts or triples it was measured on


def figures(rows: Sequence[Ratios], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Return each figure over all prompts, with the percentile interval of a bootstrap over prompts.

    The pairs of a prompt are not independent, so whole prompts are resampled (Efron and Tibshirani 1993, chapter 8).
    Each row has the ratios of one prompt; the figures stand in the order of their first appearance.
    """
    names, numerators, denominators = _columns(rows)
    if not names:
        return {}
    edges = np.nanquantile(_resampled(numerators, denominators, seed, resamples), EDGES, axis=0)
    values, counts = numerators.sum(axis=0) / denominators.sum(axis=0), denominators.sum(axis=0)
    spread = (denominators > 0).sum(axis=0) > 1
    return {
        name: Figure(float(values[k]), *_interval(edges[:, k], spread[k]), n=float(counts[k]))
        for k, name in enumerate(names)
    }


def mean_of_figures(
    groups: Sequence[Sequence[Ratios]], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Return the mean over groups, such as sources, of each figure that every group has, with its interval.

    Prompts are resampled within their groups. `n` is the number of groups.
    """
    columns = [_columns(rows) for rows in groups]
    shared = [name for name in columns[0][0] if all(name in names for names, _, _ in columns)] if columns else []
    found = {}
    for name in shared:
        values, samples, spread = [], [], False
        for group, (names, numerators, denominators) in enumerate(columns):
            k = names.index(name)
            values.append(numerators[:, k].sum() / denominators[:, k].sum())
            samples.append(_resampled(numerators[:, [k]], denominators[:, [k]], seed + group, resamples)[:, 0])
            spread |= bool((denominators[:, k] > 0).sum() > 1)
        edges = np.nanquantile(np.mean(samples, axis=0), EDGES)
        found[name] = Figure(float(np.mean(values)), *_interval(edges, spread), n=len(groups))
    return found


def paired_differences(
    first: Sequence[Ratios], second: Sequence[Ratios], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Return by how much each figure of the first is larger than that of the second, with its interval.

    Row n of both is about the same prompt. Each resample draws the same prompts for both, so that how hard these are
    cancels out: the interval is narrower than the two of the figures (Koehn 2004). Only figures of both are compared.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} rows and {len(second)} rows: give one of each for every prompt")
    sides = _columns(first), _columns(second)
    shared = [name for name in sides[0][0] if name in sides[1][0]]
    if not shared:
        return {}
    values, samples = [], []
    for names, numerators, denominators in sides:
        kept = [names.index(name) for name in shared]
        values.append(numerators[:, kept].sum(axis=0) / denominators[:, kept].sum(axis=0))
        # The same seed draws the same prompts.
        samples.append(_resampled(numerators[:, kept], denominators[:, kept], seed, resamples))
    edges = np.nanquantile(samples[0] - samples[1], EDGES, axis=0)
    measured = sides[0][2][:, [sides[0][0].index(name) for name in shared]]
    counts, spread = measured.sum(axis=0), (measured > 0).sum(axis=0) > 1
    return {
        name: Figure(float(values[0][k] - values[1][k]), *_interval(edges[:, k], spread[k]), n=float(counts[k]))
        for k, name in enumerate(shared)
    }


def _columns(rows: Sequence[Ratios]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of the figures, their numerators and their denominators, both (prompts, figures)."""
    names = list(dict.fromkeys(name for row in rows for name, (_, denominator) in row.items() if denominator))
    table = np.array([[row.get(name, (0.0, 0.0)) for name in names] for row in rows], dtype=float)
    table = table.reshape(len(rows), len(names), 2)
    return names, table[..., 0], table[..., 1]


def _interval(edges: np.ndarray, spread: bool) -> tuple[float | None, float | None]:
    return (float(edges[0]), float(edges[1])) if spread else (None, None)


def _resampled(numerators: np.ndarray, denominators: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return each figure in each resample, (resamples, figures); NaN where the denominator is zero."""
    rng = np.random.default_rng(seed)
    n = len(numerators)
    parts = []
    for start in range(0, resamples, CHUNK):
        # How often each prompt is drawn.
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, resamples - start)).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((weights @ numerators) / (weights @ denominators))
    return np.concatenate(parts)
