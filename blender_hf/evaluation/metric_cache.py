"""Missing scores of records: computed once, and cached in a file, since learned metrics take hours."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.value_cache import ValueCache, key_of_texts

from .metrics import Metric

# Prompts whose candidates are scored together.
WINDOW = 64
# Pairs between two writes: the most that a killed run loses.
WRITE_EVERY = 256


def fill_scores(
    prompts: Iterable[LabelledPrompt],
    metrics: Mapping[str, Metric],
    *,
    on_scored: Callable[[int], object] = lambda n: None,
) -> Iterator[LabelledPrompt]:
    """Yield the prompts, lazily and in order, with the scores that any of their candidates lacked."""
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


class CachedMetric:
    """A metric whose scores are cached in an SQLite file, where its `key` identifies them."""

    def __init__(self, metric: Metric, path: str | Path) -> None:
        self._metric = metric
        self.key = metric.key
        self._cache = ValueCache(path, "scores", "REAL")

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; each distinct pair is computed once, ever."""
        keys = [key_of_texts((self.key, *pair)) for pair in zip(candidates, references, strict=True)]
        known = self._cache.get(keys)
        missing = {key: n for n, key in enumerate(keys) if key not in known}
        places = list(missing.items())
        for start in range(0, len(places), WRITE_EVERY):
            part = places[start : start + WRITE_EVERY]
            found = self._metric([candidates[n] for _, n in part], [references[n] for _, n in part])
            scores = {key: score for (key, _), score in zip(part, found, strict=True)}
            self._cache.put(scores)
            known |= scores
        return [known[key] for key in keys]
