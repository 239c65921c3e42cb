"""Gold scores of candidates from their labels, 0 to 1, comparable within a source."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from statistics import fmean

import numpy as np

from blender_hf.data.labelled import LabelledPrompt, win_shares

Gold = tuple[float | None, ...]

# The baselines of alpaca_eval, which are candidates too. The judge of the newer one gives real probabilities.
NEW_BASELINE, OLD_BASELINE = "gpt4_1106_preview", "text_davinci_003_ref"


def of_wins(prompts: Sequence[LabelledPrompt]) -> list[Gold]:
    """Return the win shares of candidates, where every pair was judged."""
    return [win_shares(prompt) for prompt in prompts]


def of_two_judges(prompts: Sequence[LabelledPrompt]) -> list[Gold]:
    """Return the probability that a candidate beats the newer baseline of alpaca_eval.

    The newer judge gave it for some candidates; the older one compared others with a weaker baseline. A candidate that
    only the older one judged gets the newer one's mean over candidates with the same verdict.
    """
    newer = [against(prompt, NEW_BASELINE) for prompt in prompts]
    older = [against(prompt, OLD_BASELINE) for prompt in prompts]
    usual = means_by_verdict(newer, older)
    verdicts, means = list(usual), list(usual.values())

    def score(new: Mapping[int, float], old: Mapping[int, float], i: int) -> float | None:
        # Interpolated between known verdicts, for ties are rare.
        guessed = float(np.interp(old[i], verdicts, means)) if i in old and verdicts else None
        return new.get(i, guessed)

    return [
        tuple(score(new, old, i) for i in range(len(prompt.item.candidates)))
        for prompt, new, old in zip(prompts, newer, older, strict=True)
    ]


def against(prompt: LabelledPrompt, baseline: str) -> dict[int, float]:
    """Return the probability to beat a baseline, for each candidate compared with it."""
    found: dict[int, float] = {}
    for pair in prompt.pairs:
        if prompt.models[pair.a] == baseline:
            found |= {pair.b: 1 - pair.probability, pair.a: 0.5}  # the baseline ties with itself
    return found


def means_by_verdict(newer: Sequence[Mapping[int, float]], older: Sequence[Mapping[int, float]]) -> dict[float, float]:
    """Return the newer judge's mean for each verdict of the older one, rounded to one digit, on the same candidates."""
    both: dict[float, list[float]] = defaultdict(list)
    for new, old in zip(newer, older, strict=True):
        for i in new.keys() & old.keys():
            both[round(old[i], 1)].append(new[i])
    return {verdict: fmean(values) for verdict, values in sorted(both.items())}


def strengths_of(models: Sequence[Sequence[str | None]], golds: Sequence[Gold]) -> list[tuple[float, ...]]:
    """Return for each candidate of each prompt the mean gold score of its model's answers to the *other* prompts.

    No model has two candidates of a prompt. A model that answers no other prompt gets the mean over all answers.
    """
    by_model: dict[str | None, list[float]] = defaultdict(list)
    for names, gold in zip(models, golds, strict=True):
        for name, value in zip(names, gold, strict=True):
            if value is not None:
                by_model[name].append(value)
    everything = [value for values in by_model.values() for value in values]

    def strength(name: str | None, own: float | None) -> float:
        total, count = fsum(by_model[name]), len(by_model[name])
        if own is not None:
            total, count = total - own, count - 1
        return total / count if count else fmean(everything)

    return [tuple(map(strength, names, gold)) for names, gold in zip(models, golds, strict=True)]


GOLD_SCORES: dict[str, Callable[[Sequence[LabelledPrompt]], list[Gold]]] = {
    "vicuna80": of_wins,
    "alpaca_eval": of_two_judges,
}
