"""What every candidate of a prompt is worth by the labels, from 0 to 1, on one scale for all candidates of a source."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from statistics import fmean

import numpy as np
from questions import JudgedKey

from blender_hf.data.labelled import LabelledPrompt, win_shares

Worth = tuple[float | None, ...]
Soft = Mapping[JudgedKey, float]

# The baselines of alpaca_eval, which are candidates too, and of the two the one whose judge gives real probabilities.
NEW_BASELINE, OLD_BASELINE = "gpt4_1106_preview", "text_davinci_003_ref"


def of_wins(prompts: Sequence[LabelledPrompt], soft: Soft) -> list[Worth]:
    """Return the share of its pairs with all others that a candidate wins, where every pair was judged."""
    return [win_shares(prompt) for prompt in prompts]


def of_two_judges(prompts: Sequence[LabelledPrompt], soft: Soft) -> list[Worth]:
    """Return the probability that a candidate beats the newer baseline of alpaca_eval.

    The newer judge gave it for some candidates, the older one compared others with a weaker baseline. Where only the
    older one spoke, a candidate counts what the newer one gives in the mean to candidates of its verdict.
    """
    newer = [against(prompt, NEW_BASELINE, soft) for prompt in prompts]
    older = [against(prompt, OLD_BASELINE, soft) for prompt in prompts]
    usual = means_by_verdict(newer, older)
    verdicts, means = list(usual), list(usual.values())

    def worth(new: Mapping[int, float], old: Mapping[int, float], i: int) -> float | None:
        # Between two verdicts that are known, for a tie is rare.
        guessed = float(np.interp(old[i], verdicts, means)) if i in old and verdicts else None
        return new.get(i, guessed)

    return [
        tuple(worth(new, old, i) for i in range(len(prompt.item.candidates)))
        for prompt, new, old in zip(prompts, newer, older, strict=True)
    ]


def against(prompt: LabelledPrompt, baseline: str, soft: Soft) -> dict[int, float]:
    """Return for each candidate that was compared with a baseline the probability that it is the better one."""
    found: dict[int, float] = {}
    for pair in prompt.pairs:
        if prompt.models[pair.a] == baseline:
            # The baseline itself is as good as itself.
            found |= {pair.b: 1 - soft[prompt.id, pair.a, pair.b], pair.a: 0.5}
    return found


def means_by_verdict(newer: Sequence[Mapping[int, float]], older: Sequence[Mapping[int, float]]) -> dict[float, float]:
    """Return by the verdict of the older judge, to one digit, the mean of the newer one on the same candidates."""
    both: dict[float, list[float]] = defaultdict(list)
    for new, old in zip(newer, older, strict=True):
        for i in new.keys() & old.keys():
            both[round(old[i], 1)].append(new[i])
    return {verdict: fmean(values) for verdict, values in sorted(both.items())}


def strengths_of(models: Sequence[Sequence[str | None]], worths: Sequence[Worth]) -> list[tuple[float, ...]]:
    """Return for each candidate of each prompt the mean worth of its model's answers to the *other* prompts.

    Args:
        models: For each prompt the names of the models of its candidates; no model has two candidates.
        worths: For each prompt what its candidates are worth.

    Returns:
        One number a candidate; for a model that answers no other prompt, the mean over all answers.
    """
    by_model: dict[str | None, list[float]] = defaultdict(list)
    for names, worth in zip(models, worths, strict=True):
        for name, value in zip(names, worth, strict=True):
            if value is not None:
                by_model[name].append(value)
    everything = [value for values in by_model.values() for value in values]

    def strength(name: str | None, own: float | None) -> float:
        total, count = fsum(by_model[name]), len(by_model[name])
        if own is not None:
            total, count = total - own, count - 1
        return total / count if count else fmean(everything)

    return [tuple(map(strength, names, worth)) for names, worth in zip(models, worths, strict=True)]


WORTHS: dict[str, Callable[[Sequence[LabelledPrompt], Soft], list[Worth]]] = {
    "vicuna80": of_wins,
    "alpaca_eval": of_two_judges,
}
