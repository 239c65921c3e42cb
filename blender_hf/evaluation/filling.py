"""Scores of metrics that records lack: what is there is used, what is missing is computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from blender_hf.data.labelled import LabelledPrompt

from .metrics.named import Metric

# Prompts whose candidates are scored together.
WINDOW = 64


def fill_scores(
    prompts: Iterable[LabelledPrompt],
    metrics: Mapping[str, Metric],
    *,
    on_scored: Callable[[int], object] = lambda n: None,
) -> Iterator[LabelledPrompt]:
    """Yield the prompts with the scores of metrics that any of their candidates lacked, lazily and in order.

    Args:
        prompts: The prompts. One without a reference stays as it is.
        metrics: The metrics by the name of their scores.
        on_scored: Called with the number of prompts that were worked on, for progress.

    Returns:
        An iterator of prompts.
    """
    source = iter(prompts)
    while batch := list(islice(source, WINDOW)):
        for name, metric in metrics.items():
            batch = _filled(batch, name, metric)
        yield from batch
        on_scored(len(batch))


def _filled(prompts: Sequence[LabelledPrompt], name: str, metric: Metric) -> list[LabelledPrompt]:
    lacking = [n for n, prompt in enumerate(prompts) if prompt.reference and prompt.complete_scores(name) is None]
    texts = [text for n in lacking for text in prompts[n].item.texts]
    references = [prompts[n].reference or "" for n in lacking for _ in prompts[n].item.texts]
    scores = iter(metric(texts, references))
    filled = list(prompts)
    for n in lacking:
        own = tuple(next(scores) for _ in prompts[n].item.texts)
        filled[n] = replace(prompts[n], scores={**prompts[n].scores, name: own})
    return filled
