"""GPT-Rank: the ranks that the verdicts on all pairs of a prompt give its candidates, and agreement with them.

As in the evaluation of the paper (LLM-Blender, section 5, and its `gpt_eval`): a win counts one, a loss minus one, a
tie zero, and equal sums share the better rank.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.errors import chosen
from blender_hf.modeling.ranking_math import ranks_of

from . import rankings

# The credit of a candidate against a model: from the label, 1 if the candidate is better, and for a tie whether both
# are good.
CreditRule = Callable[[float, bool | None], float]
CORRELATIONS: dict[str, Callable[[Sequence[float], Sequence[float]], float | None]] = {
    "Pearson": rankings.pearson,
    "Spearman": rankings.spearman,
    "Kendall": rankings.kendall,
}
BY_MODEL, BY_PROMPT, FOOTRULE = "by model", "by prompt", "footrule"


def _in_the_paper(label: float, tie_is_good: bool | None) -> float:
    """A win and any tie count one, and so does the model itself: the share in Table 2 of the paper."""
    return float(label >= 0.5)


def _as_win_rate(label: float, tie_is_good: bool | None) -> float:
    """A win counts one, "same good" one half, "same bad" nothing, and the model itself one half."""
    return 0.0 if tie_is_good is False else label


# By name: the rule, and the credit of the model itself. "paper" is that of Table 2; "win-rate" is that of the script
# that the authors published later (https://github.com/yuchenlin/LLM-Blender/issues/6), whose shares are lower.
RULES: dict[str, tuple[CreditRule, float]] = {"paper": (_in_the_paper, 1.0), "win-rate": (_as_win_rate, 0.5)}


def check_rule(rule: str) -> None:
    """Raise InputError unless a rule is one of `RULES`."""
    chosen(RULES, rule, "rule for what is at least as good")


def is_fully_judged(prompt: LabelledPrompt) -> bool:
    """Return whether every pair of candidates was judged."""
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
    """Return the credit of a candidate against a model's answer by one of `RULES`, 0 to 1, the mean over verdicts.

    None if the prompt has no answer of the model, or no verdict on both.
    """
    check_rule(rule)
    credit, of_itself = RULES[rule]
    if model not in prompt.models:
        return None
    other = prompt.models.index(model)
    if index == other:
        return of_itself
    found = [
        credit(_label_for(pair, index), pair.tie_is_good) for pair in prompt.pairs if {pair.a, pair.b} == {index, other}
    ]
    return fmean(found) if found else None


@dataclass
class RankAccumulator:
    """The ranks of candidates by a ranker and by the verdicts, prompt by prompt."""

    models: list[tuple[str | None, ...]] = field(default_factory=list)
    ranks: list[tuple[int, ...]] = field(default_factory=list)
    gold: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, models: tuple[str | None, ...], scores: Sequence[float], gold: tuple[int, ...]) -> None:
        """Add a prompt: the models of its candidates, their scores by the ranker, and their gold ranks."""
        self.models.append(models)
        self.ranks.append(ranks_of(scores))
        self.gold.append(gold)

    def correlations(self) -> dict[str, float]:
        """Return the correlations of both ranks, as far as they are defined: ranks must vary.

        "Pearson, by model" and its like are what the paper reports: for each model the correlation of its ranks over
        the prompts, and the mean over models. "by prompt" is the mean over prompts of the correlation of the ranks of
        their candidates. "footrule" is the sum of the distances of the ranks of a prompt, mean over prompts; 0 is best.
        """
        prompts = list(zip(self.ranks, self.gold, strict=True))
        by_model: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        for models, both in zip(self.models, prompts, strict=True):
            for model, rank, gold in zip(models, *both, strict=True):
                if model is not None:
                    by_model[model][0].append(rank)
                    by_model[model][1].append(gold)
        groups: dict[str, list[tuple[Sequence[float], Sequence[float]]]]
        groups = {BY_MODEL: list(by_model.values()), BY_PROMPT: list(prompts)}
        found = {
            f"{name}, {title}": [correlation(a, b) for a, b in columns]
            for title, columns in groups.items()
            for name, correlation in CORRELATIONS.items()
        }
        found[FOOTRULE] = [float(sum(abs(a - b) for a, b in zip(*both, strict=True))) for both in prompts]
        known = {name: [value for value in values if value is not None] for name, values in found.items()}
        return {name: fmean(values) for name, values in known.items() if values}


def _label_for(pair: JudgedPair, index: int) -> float:
    return pair.label if pair.a == index else 1 - pair.label
