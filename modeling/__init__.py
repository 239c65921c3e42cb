"""The two model classes with their configurations and processors, and what they need, as they travel to the Hub.

The files of this folder that a published checkpoint needs are copied next to its weights, so that it loads with
`trust_remote_code=True` on a machine without this package. So they import only the standard library, torch,
transformers, what transformers itself requires, and their siblings by single-dot relative imports.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from .configuration_gen_fuser import GenFuserConfig
from .configuration_pair_ranker import PairRankerConfig
from .fusion_encoding import FusionEncoding, FusionProcessor
from .modeling_causal_gen_fuser import CausalGenFuser
from .modeling_gen_fuser import GenFuser
from .modeling_pair_ranker import PairRanker, PairRankerOutput
from .processing_causal_gen_fuser import CausalGenFuserProcessor
from .processing_gen_fuser import GenFuserProcessor
from .processing_pair_ranker import CandidateEncoding, PairEncoding, PairRankerProcessor


def _register_with_auto_classes() -> None:
    """Register our models with the Auto classes; repeating it is harmless."""
    AutoConfig.register(PairRankerConfig.model_type, PairRankerConfig, exist_ok=True)
    AutoConfig.register(GenFuserConfig.model_type, GenFuserConfig, exist_ok=True)
    AutoModel.register(PairRankerConfig, PairRanker, exist_ok=True)
    AutoModel.register(GenFuserConfig, GenFuser, exist_ok=True)
    AutoModelForSeq2SeqLM.register(GenFuserConfig, GenFuser, exist_ok=True)
    AutoProcessor.register(PairRankerConfig, PairRankerProcessor, exist_ok=True)
    AutoProcessor.register(GenFuserConfig, GenFuserProcessor, exist_ok=True)
    # Found by its name alone: a causal fuser has the configuration of its language model, whose processor it is not.
    AutoProcessor.register(CausalGenFuser, CausalGenFuserProcessor, exist_ok=True)


def _travel_with_code() -> None:
    """Let `save_pretrained` and `push_to_hub` copy the code next to the weights, for `trust_remote_code=True`."""
    PairRankerConfig.register_for_auto_class()
    GenFuserConfig.register_for_auto_class()
    PairRanker.register_for_auto_class("AutoModel")
    GenFuser.register_for_auto_class("AutoModelForSeq2SeqLM")
    PairRankerProcessor.register_for_auto_class()
    GenFuserProcessor.register_for_auto_class()
    CausalGenFuserProcessor.register_for_auto_class()


_register_with_auto_classes()
_travel_with_code()

__all__ = [
    "CandidateEncoding",
    "CausalGenFuser",
    "CausalGenFuserProcessor",
    "FusionEncoding",
    "FusionProcessor",
    "GenFuser",
    "GenFuserConfig",
    "GenFuserProcessor",
    "PairEncoding",
    "PairRanker",
    "PairRankerConfig",
    "PairRankerOutput",
    "PairRankerProcessor",
]
