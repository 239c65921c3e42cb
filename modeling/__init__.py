"""The two model classes and their processors, as they travel to the Hub.

Every file of this folder is copied next to the weights of a published checkpoint, so that it loads with
`trust_remote_code=True` on a machine without this package. Hence the rule: a file here imports only torch,
transformers, the standard library, and its siblings by single-dot relative imports.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from .configuration_gen_fuser import GenFuserConfig
from .configuration_pair_ranker import PairRankerConfig
from .modeling_gen_fuser import GenFuser
from .modeling_pair_ranker import PairRanker, PairRankerOutput
from .processing_gen_fuser import FusionEncoding, GenFuserProcessor
from .processing_pair_ranker import PairEncoding, PairRankerProcessor


def _register_with_auto_classes() -> None:
    """Let the Auto classes find our models where this package is imported; repeating it is harmless."""
    AutoConfig.register(PairRankerConfig.model_type, PairRankerConfig, exist_ok=True)
    AutoConfig.register(GenFuserConfig.model_type, GenFuserConfig, exist_ok=True)
    AutoModel.register(PairRankerConfig, PairRanker, exist_ok=True)
    AutoModel.register(GenFuserConfig, GenFuser, exist_ok=True)
    AutoModelForSeq2SeqLM.register(GenFuserConfig, GenFuser, exist_ok=True)
    AutoProcessor.register(PairRankerConfig, PairRankerProcessor, exist_ok=True)
    AutoProcessor.register(GenFuserConfig, GenFuserProcessor, exist_ok=True)


def _travel_with_code() -> None:
    """Let `save_pretrained` and `push_to_hub` copy this folder next to the weights, for `trust_remote_code=True`."""
    PairRankerConfig.register_for_auto_class()
    GenFuserConfig.register_for_auto_class()
    PairRanker.register_for_auto_class("AutoModel")
    GenFuser.register_for_auto_class("AutoModelForSeq2SeqLM")
    PairRankerProcessor.register_for_auto_class()
    GenFuserProcessor.register_for_auto_class()


_register_with_auto_classes()
_travel_with_code()

__all__ = [
    "FusionEncoding",
    "GenFuser",
    "GenFuserConfig",
    "GenFuserProcessor",
    "PairEncoding",
    "PairRanker",
    "PairRankerConfig",
    "PairRankerOutput",
    "PairRankerProcessor",
]
