"""From the rankings of many prompts to a table of the language models that answered them.

Each comparison of two models counts as a win with its probability and a loss with the rest. The strengths are those of
Bradley and Terry (1952); their intervals come from drawing the prompts again with replacement (Efron 1979).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from blender_hf.engine.aggregation import fit_bradley_terry
from blender_hf.engine.results import Ranking

N_DRAWS = 400
# A tie against everybody, of this weight, keeps the strengths finite where two models never met, directly or through
# others, and changes little where they did.
PRIOR = 0.02


@dataclass(frozen=True)
class Standing:
    """A model's place in the table."""

    model: str  # its name
    n_prompts: int  # how many prompts it answered
    wins: int  # comparisons that it won
    ties: int  # comparisons within the tie threshold
    losses: int  # comparisons that it lost
    win_rate: float  # share, 0 to 1, of its comparisons that it won, a tie counting one half
    strength: float  # Bradley-Terry score: the difference of two is the logit of one beating the other. They sum to 0.
    low: float  # lower end of the 95 % interval of the strength
    high: float  # upper end

    def to_dict(self) -> dict[str, Any]:
        """Return the standing as a plain dictionary."""
        return asdict(self)


def leaderboard(rankings: Sequence[Ranking], tie_threshold: float, seed: int = 0) -> tuple[Standing, ...]:
    """Return the models by falling strength.

    Args:
        rankings: One a prompt; candidates that do not name their model are skipped.
        tie_threshold: How far from 0.5 a probability may be and still be a tie.
        seed: Of the draws behind the intervals.

    Returns:
        The standings, none if fewer than two models met.
    """
    models = sorted({model for ranking in rankings for model in ranking.models if model})
    chances = np.stack([_chances(ranking, models) for ranking in rankings]) if rankings else np.empty(0)
    if len(models) < 2 or not np.isfinite(chances).any():
        return ()
    won = np.nan_to_num(chances)
    strengths = fit_strengths(won.sum(axis=0))
    draws = np.random.default_rng(seed).integers(len(rankings), size=(N_DRAWS, len(rankings)))
    counts = np.stack([np.bincount(draw, minlength=len(rankings)) for draw in draws]).astype(float)
    low, high = np.quantile(fit_strengths(np.einsum("dp,pij->dij", counts, won)), [0.025, 0.975], axis=0)
    answered = [sum(model in ranking.models for ranking in rankings) for model in models]
    standings = [
        _standing(model, answered[i], chances[:, i], tie_threshold, (strengths[i], low[i], high[i]))
        for i, model in enumerate(models)
    ]
    return tuple(sorted(standings, key=lambda standing: (-standing.strength, standing.model)))


def fit_strengths(wins: np.ndarray) -> np.ndarray:
    """Fit Bradley-Terry scores to (..., models, models) wins of the row over the column: (..., models) logits.

    >>> fit_strengths(np.array([[0.0, 7300.0], [2700.0, 0.0]])).round(2).tolist()
    [0.5, -0.5]
    """
    return fit_bradley_terry(wins + PRIOR / 2)


def _chances(ranking: Ranking, models: Sequence[str]) -> np.ndarray:
    """Return the probability that each model beats each other, (models, models), NaN where they did not meet."""
    found: dict[tuple[int, int], list[float]] = {}
    place = {model: index for index, model in enumerate(models)}
    named = [(candidate, place[model]) for candidate, model in enumerate(ranking.models) if model]
    for (a, i), (b, j) in combinations(named, 2):
        if i != j and not math.isnan(ranking.comparisons[a][b]):
            found.setdefault((i, j), []).append(ranking.probability(a, b))
            found.setdefault((j, i), []).append(ranking.probability(b, a))
    chances = np.full((len(models), len(models)), np.nan)
    for pair, values in found.items():
        chances[pair] = math.fsum(values) / len(values)
    return chances


def _standing(
    model: str, n_prompts: int, chances: np.ndarray, tie_threshold: float, strength: tuple[float, float, float]
) -> Standing:
    met = chances[np.isfinite(chances)]
    ties = int((abs(met - 0.5) <= tie_threshold).sum())
    wins = int((met > 0.5 + tie_threshold).sum())
    rate = (wins + ties / 2) / len(met) if len(met) else 0.5
    return Standing(model, n_prompts, wins, ties, len(met) - wins - ties, rate, *(float(value) for value in strength))
