"""Rank the answers of several language models by pairwise comparison, and fuse the best into one.

Where this package is imported, the Auto classes of transformers know its models, and `transformers.pipeline` knows the
task "llm-blending".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # editors and type checkers read these; at runtime `_HOMES` has them
    from .blender import Blender as Blender
    from .engine.aggregation import AGGREGATIONS as AGGREGATIONS
    from .engine.pairwise import AsyncPairwiseRanker as AsyncPairwiseRanker
    from .engine.pairwise import PairwiseRanker as PairwiseRanker
    from .engine.pointwise import PointwiseRanker as PointwiseRanker
    from .engine.results import Blend as Blend
    from .engine.results import Comparison as Comparison
    from .engine.results import Fusion as Fusion
    from .engine.results import Ranking as Ranking
    from .engine.results import Truncation as Truncation
    from .engine.schedules import Schedule as Schedule
    from .engine.scorer import Presentation as Presentation
    from .errors import BlenderError as BlenderError
    from .errors import CheckpointError as CheckpointError
    from .errors import GenerationError as GenerationError
    from .errors import HubError as HubError
    from .errors import InputError as InputError
    from .errors import InputTypeError as InputTypeError
    from .errors import ModelOutputError as ModelOutputError
    from .generation.candidates import Generated as Generated
    from .generation.candidates import generate as generate
    from .generation.specs import LocalLLM as LocalLLM
    from .generation.specs import RemoteLLM as RemoteLLM
    from .inputs import Candidate as Candidate
    from .inputs import Item as Item
    from .inputs import make_item as make_item
    from .judging.loading import load_judge as load_judge
    from .loading.checkpoints import locate as locate
    from .logs import quiet as quiet
    from .modeling import CausalGenFuser as CausalGenFuser
    from .modeling import CausalGenFuserProcessor as CausalGenFuserProcessor
    from .modeling import GenFuser as GenFuser
    from .modeling import GenFuserConfig as GenFuserConfig
    from .modeling import GenFuserProcessor as GenFuserProcessor
    from .modeling import PairRanker as PairRanker
    from .modeling import PairRankerConfig as PairRankerConfig
    from .modeling import PairRankerProcessor as PairRankerProcessor
    from .modeling.ranking_math import ranks_of as ranks_of
    from .pipeline import BlenderPipeline as BlenderPipeline

from .loading.registration import register

__version__ = "0.1.0"

# Where each public name lives. They are imported when they are asked for.
_HOMES = {
    "AGGREGATIONS": "engine.aggregation",
    "AsyncPairwiseRanker": "engine.pairwise",
    "Blend": "engine.results",
    "Blender": "blender",
    "BlenderError": "errors",
    "BlenderPipeline": "pipeline",
    "Candidate": "inputs",
    "CausalGenFuser": "modeling",
    "CausalGenFuserProcessor": "modeling",
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
    "PairwiseRanker": "engine.pairwise",
    "PointwiseRanker": "engine.pointwise",
    "Presentation": "engine.scorer",
    "Ranking": "engine.results",
    "RemoteLLM": "generation.specs",
    "Schedule": "engine.schedules",
    "Truncation": "engine.results",
    "generate": "generation.candidates",
    "load_judge": "judging.loading",
    "locate": "loading.checkpoints",
    "make_item": "inputs",
    "quiet": "logs",
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
