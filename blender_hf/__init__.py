"""Rank the answers of several language models by pairwise comparison, and fuse the best into one.

Where this package is imported, the Auto classes of transformers know its models, and `transformers.pipeline` knows the
task "llm-blending".
"""

from importlib import import_module
from typing import Any

from .loading.registration import register

__version__ = "0.1.0"

# Where each public name lives. They are imported when they are asked for.
_HOMES = {
    "AGGREGATIONS": "engine.aggregation",
    "Blend": "engine.results",
    "Blender": "blender",
    "BlenderError": "errors",
    "BlenderPipeline": "pipeline",
    "Candidate": "inputs",
    "CheckpointError": "errors",
    "Comparison": "engine.results",
    "Fusion": "engine.results",
    "GenFuser": "modeling",
    "GenFuserConfig": "modeling",
    "GenFuserProcessor": "modeling",
    "Generated": "generation.candidates",
    "GenerationError": "errors",
    "HubError": "errors",
    "InputError": "errors",
    "InputTypeError": "errors",
    "Item": "inputs",
    "LocalLLM": "generation.specs",
    "ModelOutputError": "errors",
    "PairRanker": "modeling",
    "PairRankerConfig": "modeling",
    "PairRankerProcessor": "modeling",
    "PointwiseRanker": "engine.pointwise",
    "Ranking": "engine.results",
    "RemoteLLM": "generation.specs",
    "Schedule": "engine.schedules",
    "Truncation": "engine.results",
    "generate": "generation.candidates",
    "locate": "loading.checkpoints",
    "make_item": "inputs",
    "ranks_of": "modeling.ranking_math",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
