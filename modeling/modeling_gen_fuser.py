"""GenFuser: reads a prompt and its best candidates and writes one better answer.

Section 4 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561).
"""

from transformers import T5ForConditionalGeneration

from .configuration_gen_fuser import GenFuserConfig
from .generation_gen_fuser import PassageGenerationMixin
from .loading import StrictLoadingMixin
from .publishing import PublishingMixin


class GenFuser(StrictLoadingMixin, PublishingMixin, PassageGenerationMixin, T5ForConditionalGeneration):
    """A T5 that fuses candidates. Plain T5 and Flan-T5 checkpoints load as they are.

    `generate` has all of its options (beams, sampling, streaming, cache) and one more, `passages`; see
    `PassageGenerationMixin`. Training with `labels` is that of T5: the cross-entropy of the target's tokens, -100 where
    there is none.
    """

    config_class = GenFuserConfig
