"""Metrics of a candidate against a reference, by name: surface metrics here, learned ones in `learned_metrics`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from blender_hf.errors import InputError, chosen, require

from .learned_metrics import BARTSCORE, BERTSCORE, BLEURT, BartScore, BertScore, Bleurt


class Metric(Protocol):
    """Scores candidates against references, higher is better; `key` identifies it with its model and settings."""

    key: str

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against the reference in the same place."""
        ...


class SurfaceMetric:
    """Scores the overlap of words or characters with the reference, from 0 to 100; see `SURFACE_METRICS`."""

    def __init__(self, name: str) -> None:
        self.key = name
        self._score = SURFACE_METRICS[name](name)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference."""
        return [self._score(*pair) for pair in zip(candidates, references, strict=True)]


def _rouge(name: str) -> Callable[[str, str], float]:
    scorer = require("rouge_score.rouge_scorer", "evaluate", name).RougeScorer([name], use_stemmer=True)
    return lambda candidate, reference: 100 * float(scorer.score(reference, candidate)[name].fmeasure)


def _sacrebleu(name: str) -> Callable[[str, str], float]:
    sacrebleu = require("sacrebleu.metrics", "evaluate", name)
    # The effective order is meant for single sentences.
    metric = sacrebleu.CHRF() if name == "chrf" else sacrebleu.BLEU(effective_order=True)
    return lambda candidate, reference: float(metric.sentence_score(candidate, [reference]).score)


def _bertscore(model: str, options: dict[str, Any]) -> Metric:
    name, layer = _split_layer(model)
    return BertScore(name, num_layers=layer, device=options.get("device"))


SURFACE_METRICS: dict[str, Callable[[str], Callable[[str, str], float]]] = {
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), _rouge),
    **dict.fromkeys(("chrf", "bleu"), _sacrebleu),
}
# By name: a function of the model and the options of loading, and the default model.
LEARNED_METRICS: dict[str, tuple[Callable[[str, dict[str, Any]], Metric], str]] = {
    "bertscore": (_bertscore, BERTSCORE),
    "bartscore": (lambda model, options: BartScore(model, **options), BARTSCORE),
    "bleurt": (lambda model, options: Bleurt(model, **options), BLEURT),
}
METRICS = (*LEARNED_METRICS, *SURFACE_METRICS)


def load_metric(spec: str, options: dict[str, Any] | None = None) -> tuple[str, Metric]:
    """Load a metric by name."""
    name, given, model = spec.partition("=")
    chosen(dict.fromkeys(METRICS), name, "metric")
    if name in SURFACE_METRICS:
        if given:
            raise InputError(f"{name} takes no model: write {name}, not {spec}")
        return name, SurfaceMetric(name)
    make, default = LEARNED_METRICS[name]
    metric = make(model or default, options or {})
    metric.key += _version_of(_split_layer(model)[0])
    return name, metric


def _split_layer(model: str) -> tuple[str, int | None]:
    """Return a model and the layer behind its last @, if there is one."""
    name, _, layer = model.rpartition("@")
    return (name, int(layer)) if name and layer.isdecimal() else (model, None)


def _version_of(model: str) -> str:
    """Return the time of a local model's last change, so that cached scores of an older version are not reused."""
    files = [file for file in Path(model).iterdir() if file.is_file()] if model and Path(model).is_dir() else []
    return f" {max(file.stat().st_mtime_ns for file in files)}" if files else ""
