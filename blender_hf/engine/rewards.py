"""Rewards: one number a candidate, against a reference answer or against the other candidates of its prompt."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from blender_hf.errors import InputError, chosen
from blender_hf.inputs import Candidate, Item, as_candidate, as_columns, check_characters
from blender_hf.modeling.ranking_math import probability_of

from .results import Comparison, Ranking

# From a logit and the temperature to a reward: higher is better; a tie is 0, or 0.5 as a probability.
SCALES: dict[str, Callable[[float, float], float]] = {
    "logit": lambda logit, temperature: logit,
    "probability": probability_of,
    # The difference of both presentation orders, as llm-blender 0.0.2 returns it: twice our logit.
    "llm-blender": lambda logit, temperature: 2 * logit,
}
# Which candidate is the reference; of equal ones the first.
RULES: dict[str, Callable[[Sequence[str]], str]] = {
    "first": lambda texts: texts[0],
    "last": lambda texts: texts[-1],
    "longest": lambda texts: max(texts, key=len),
    "shortest": lambda texts: min(texts, key=len),
}


def references_of(items: Sequence[Item], single: bool, reference: Any, rule: str | None) -> list[Candidate]:
    """Return the reference of each item."""
    if (reference is None) == (rule is None):
        raise InputError("give either reference=, what to compare with, or rule=, which candidate it is")
    if rule is not None:
        return [Candidate(chosen(RULES, rule, "rule for the reference")(item.texts)) for item in items]
    rows = as_columns({"prompts": items, "reference": [reference] if single else reference})["reference"]
    return [as_candidate(value, f"{item.where}, reference") for item, value in zip(items, rows, strict=True)]


def duels(item: Item, reference: Candidate) -> list[Item]:
    """Return an item for each candidate, in which it (a) meets the reference (b)."""
    check_characters([reference.text], f"{item.where}, reference")
    pairs = [(candidate, reference) for candidate in item.candidates]
    return [replace(item, candidates=pair) for pair in pairs]


def duel_rewards(comparisons: Sequence[Comparison], scale: str) -> list[float]:
    """Return the rewards of candidates that met the reference."""
    return [chosen(SCALES, scale, "scale")(comparison.logit, comparison.temperature) for comparison in comparisons]


def group_rewards(ranking: Ranking, scale: str) -> list[float]:
    """Return for each candidate the mean of its comparisons with the others; a single one gets the reward of a tie."""
    turn, temperature = chosen(SCALES, scale, "scale"), ranking.temperature
    rows = [
        [turn(logit, temperature) for j, logit in enumerate(row) if j != i] or [turn(0.0, temperature)]
        for i, row in enumerate(ranking.inferred)
    ]
    return [math.fsum(row) / len(row) for row in rows]
