"""What a way to choose among the candidates of a prompt adds to the main table of the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.inputs import Candidate

from .gpt_rank import at_least_as_good, gpt_ranks
from .judges import Judge, Question
from .metrics.named import Metric
from .rankings import chosen_of

GPT_RANK, TOP_3 = "GPT-Rank", "top 3 (%)"
TOP = 3
# A verdict of a judge whose probability is as near to one half is a tie.
TIE_THRESHOLD = 0.05


@dataclass(frozen=True)
class TableSettings:
    """What the main table measures.

    Args:
        metrics: Names of the scores that have a column.
        bases: Names of the models that everything is compared with, by the title of their column.
        rule: Name of a rule of `gpt_rank.RULES`: what counts as at least as good.
    """

    metrics: tuple[str, ...]
    bases: Mapping[str, str]
    rule: str = "paper"

    def column(self, base: str) -> str:
        """Return the title of the column of a model that everything is compared with."""
        return f">= {base} (%)"


def choice_shares(
    prompt: LabelledPrompt, chosen: Sequence[int], settings: TableSettings
) -> dict[str, tuple[float, float]]:
    """Return what choosing adds to each figure; of several candidates that are chosen alike, the mean.

    Args:
        prompt: A prompt, every two of whose candidates were judged.
        chosen: Indices of the chosen candidates.
        settings: What is measured.
    """
    added = {}
    for metric in settings.metrics:
        scores = prompt.complete_scores(metric)
        if scores is not None:
            added[metric] = (fmean(scores[index] for index in chosen), 1.0)
    return added | _judged_shares(prompt, chosen, settings)


def blend_shares(
    prompt: LabelledPrompt,
    text: str,
    settings: TableSettings,
    metrics: Mapping[str, Metric],
    judge: Judge | None,
) -> dict[str, tuple[float, float]]:
    """Return what an answer adds to each figure.

    An answer that is one of the candidates has their scores and verdicts. A new one has the scores of the metrics that
    can be computed, and the verdicts of the judge, if there is one: it then stands among the others as one more.

    Args:
        prompt: A prompt, every two of whose candidates were judged.
        text: The answer.
        settings: What is measured.
        metrics: What computes scores, by name.
        judge: Says how a new answer stands beside each candidate.
    """
    if text in prompt.item.texts:
        return choice_shares(prompt, [prompt.item.texts.index(text)], settings)
    added = {
        name: (metrics[name]([text], [prompt.reference])[0], 1.0)
        for name in settings.metrics
        if name in metrics and prompt.reference is not None
    }
    if judge is None:
        return added
    more = with_answer(prompt, text, judge)
    return added | _judged_shares(more, [len(more.item.candidates) - 1], settings)


def with_answer(prompt: LabelledPrompt, text: str, judge: Judge) -> LabelledPrompt:
    """Return the prompt with one more candidate, which a judge compared with each other one."""
    item = replace(prompt.item, candidates=(*prompt.item.candidates, Candidate(text)))
    new, grown = len(prompt.item.candidates), replace(prompt, item=item, scores={})
    question = Question(grown, tuple((index, new) for index in range(new)), everything=False)
    [opinion] = judge.answer([question], judge.prepare([question]))
    comparisons = opinion.comparisons if opinion is not None else {}
    leanings = {pair: comparison.probability - 0.5 for pair, comparison in comparisons.items()}
    verdicts = {pair: 0.5 if abs(p) <= TIE_THRESHOLD else float(p > 0) for pair, p in leanings.items()}
    pairs = tuple(JudgedPair(*pair, verdict) for pair, verdict in verdicts.items())
    return replace(grown, pairs=(*prompt.pairs, *pairs))


def single_models(prompt: LabelledPrompt) -> dict[str, list[int]]:
    """Return by the name of each model the place of its answer."""
    return {model: [index] for index, model in enumerate(prompt.models) if model is not None}


def oracles(prompt: LabelledPrompt, metrics: Sequence[str]) -> dict[str, list[int]]:
    """Return by metric the candidates that stand first by its scores, and by GPT-Rank."""
    by_metric = {metric: prompt.complete_scores(metric) for metric in metrics}
    found = {metric: chosen_of(scores) for metric, scores in by_metric.items() if scores is not None}
    return {**found, GPT_RANK: chosen_of([-rank for rank in gpt_ranks(prompt)])}


def _judged_shares(
    prompt: LabelledPrompt, chosen: Sequence[int], settings: TableSettings
) -> dict[str, tuple[float, float]]:
    ranks = gpt_ranks(prompt)
    added = {GPT_RANK: (fmean(ranks[index] for index in chosen), 1.0)}
    for title, model in settings.bases.items():
        worth = [at_least_as_good(prompt, index, model, settings.rule) for index in chosen]
        known = [100 * value for value in worth if value is not None]
        if known:
            added[settings.column(title)] = (fmean(known), 1.0)
    added[TOP_3] = (fmean(100.0 * (ranks[index] <= TOP) for index in chosen), 1.0)
    return added
