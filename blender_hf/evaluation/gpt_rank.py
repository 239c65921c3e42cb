"""GPT-Rank: the ranks that the verdicts on all pairs of a prompt give its candidates, and "at least as good as".

As in the evaluation of the paper (LLM-Blender, section 5, and its `gpt_eval`): a win counts one, a loss minus one, a
tie nothing, and equal sums share the better rank.
"""

import math
from collections.abc import Callable

from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.engine.aggregation import ranks_of
from blender_hf.errors import InputError

# What a verdict is worth to a candidate that is compared with a model: the label, 1 if it is the better one, and for a
# tie whether both are good.
GoodnessRule = Callable[[float, bool | None], float]


def _in_the_paper(label: float, tie_is_good: bool | None) -> float:
    """A win and any tie count one, and so does the model itself: the share of Table 2 of the paper."""
    return float(label >= 0.5)


def _as_win_rate(label: float, tie_is_good: bool | None) -> float:
    """A win counts one, "same good" one half, "same bad" nothing, and the model itself one half."""
    return 0.0 if tie_is_good is False else label


# By name: the rule, and what the model itself is worth. "paper" is that of Table 2; "win-rate" is that of the script
# that the authors published later (https://github.com/yuchenlin/LLM-Blender/issues/6), whose shares are lower.
RULES: dict[str, tuple[GoodnessRule, float]] = {"paper": (_in_the_paper, 1.0), "win-rate": (_as_win_rate, 0.5)}


def is_fully_judged(prompt: LabelledPrompt) -> bool:
    """Tell whether every two candidates of a prompt were judged."""
    judged = {frozenset((pair.a, pair.b)) for pair in prompt.pairs}
    return len(prompt.item.candidates) > 1 and len(judged) == math.comb(len(prompt.item.candidates), 2)


def gpt_ranks(prompt: LabelledPrompt) -> tuple[int, ...]:
    """Return the rank of each candidate, 1 is the best; equal sums of verdicts share the better rank."""
    sums = [0.0] * len(prompt.item.candidates)
    for pair in prompt.pairs:
        sums[pair.a] += 2 * pair.label - 1
        sums[pair.b] -= 2 * pair.label - 1
    return ranks_of(sums)


def at_least_as_good(prompt: LabelledPrompt, index: int, model: str, rule: str) -> float | None:
    """Return what a candidate is worth beside that of a model, 0 to 1.

    Args:
        prompt: The prompt.
        index: The candidate.
        model: Name of the model that it is compared with.
        rule: Name of one of `RULES`.

    Returns:
        Its worth, the mean over several verdicts; None if the prompt has no answer of the model, or no verdict.

    Raises:
        InputError: If there is no such rule.
    """
    if rule not in RULES:
        raise InputError(f"there is no rule {rule!r} for what is at least as good; use one of {', '.join(RULES)}")
    worth, of_itself = RULES[rule]
    if model not in prompt.models:
        return None
    other = prompt.models.index(model)
    if index == other:
        return of_itself
    found = [
        worth(_seen_from(pair, index), pair.tie_is_good) for pair in prompt.pairs if {pair.a, pair.b} == {index, other}
    ]
    return sum(found) / len(found) if found else None


def _seen_from(pair: JudgedPair, index: int) -> float:
    return pair.label if pair.a == index else 1 - pair.label
