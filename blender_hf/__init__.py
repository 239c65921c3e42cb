"""Rank the answers of several language models by pairwise comparison, and fuse the best into one.

Importing this package registers its models with the Auto classes of transformers, and the task "llm-blending" with
`transformers.pipeline`.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

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


def _is_command_line() -> bool:
    # Registering imports torch and all pipelines, which takes seconds; `blender-hf --help` has no use for either.
    # "-m" is what Python calls a program started by `python -m` while it imports the package around it.
    return Path(sys.argv[0] if sys.argv else "").stem in ("blender-hf", "-m")


if not _is_command_line():
    import_module(".pipeline", __name__).register()
