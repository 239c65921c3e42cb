"""Metrics by their name, as "name" or "name=model"."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from blender_hf.errors import InputError

from .bartscore import DEFAULT_MODEL as BART
from .bartscore import BartScore
from .bertscore import DEFAULT_MODEL as BERT
from .bertscore import BertScore
from .bleurt import DEFAULT_MODEL as BLEURT
from .bleurt import Bleurt
from .surface import SURFACE_METRICS, SurfaceMetric


class Metric(Protocol):
    """Scores candidates against references, higher is better; `key` names it with its model and settings."""

    key: str

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against the reference in the same place."""
        ...


def _bertscore(model: str, options: dict[str, Any]) -> Metric:
    name, layer = _split_layer(model)
    return BertScore(name, num_layers=layer, device=options.get("device"))


# What makes each metric that needs a model, from the model and the options of loading, and its default model.
MODEL_METRICS: dict[str, tuple[Callable[[str, dict[str, Any]], Metric], str]] = {
    "bertscore": (_bertscore, BERT),
    "bartscore": (lambda model, options: BartScore(model, **options), BART),
    "bleurt": (lambda model, options: Bleurt(model, **options), BLEURT),
}
METRICS = (*MODEL_METRICS, *SURFACE_METRICS)


def load_metric(spec: str, options: dict[str, Any] | None = None) -> tuple[str, Metric]:
    """Return the name of a metric and the metric.

    Args:
        spec: One of `METRICS`, or "bertscore=MODEL", "bertscore=MODEL@LAYER", "bartscore=MODEL", "bleurt=MODEL", where
            a model is a Hub id or a folder.
        options: How a model is loaded: `hub`, `device` and `dtype`, as in `loading.load_with_tokenizer`.

    Returns:
        The name, under which records have such scores, and the metric.

    Raises:
        InputError: If there is no such metric, or it takes no model.
        CheckpointError: If the model can't be loaded.
    """
    name, given, model = spec.partition("=")
    if name not in METRICS:
        raise InputError(f"there is no metric {name!r}; use one of {', '.join(METRICS)}")
    if name in SURFACE_METRICS:
        if given:
            raise InputError(f"{name} takes no model: write {name}, not {spec}")
        return name, SurfaceMetric(name)
    make, default = MODEL_METRICS[name]
    metric = make(model or default, options or {})
    metric.key += _state_of(_split_layer(model)[0])
    return name, metric


def _split_layer(model: str) -> tuple[str, int | None]:
    """Return a model and the layer behind its last @, if there is one."""
    name, _, layer = model.rpartition("@")
    return (name, int(layer)) if name and layer.isdecimal() else (model, None)


def _state_of(model: str) -> str:
    """Return when a local model was last changed, so that scores of another state are not taken for its."""
    files = [file for file in Path(model).iterdir() if file.is_file()] if model and Path(model).is_dir() else []
    return f" {max(file.stat().st_mtime_ns for file in files)}" if files else ""
