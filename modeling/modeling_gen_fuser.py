"""GenFuser: reads a prompt and its best candidates and writes one better answer.

Section 4 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561).
"""

from collections.abc import Sequence
from typing import Any

from transformers import LogitsProcessorList, T5ForConditionalGeneration

from .configuration_gen_fuser import GenFuserConfig
from .generation_gen_fuser import PassageLogitsProcessor
from .loading import StrictLoadingMixin
from .publishing import PublishingMixin


class GenFuser(StrictLoadingMixin, PublishingMixin, T5ForConditionalGeneration):
    """A T5 that fuses candidates. Plain T5 and Flan-T5 checkpoints load as they are.

    `generate` has all of its options (beams, sampling, streaming, cache) and one more, `passages`. Training with
    `labels` is that of T5: the cross-entropy of the target's tokens, -100 where there is none.
    """

    config_class = GenFuserConfig

    def generate(self, *args: Any, passages: Sequence[Sequence[Sequence[int]]] | None = None, **kwargs: Any) -> Any:
        """Write fused answers.

        Args:
            *args: As in transformers.
            passages: For each row of the batch, the passages (token ids) that may be written. Given them, the answer is
                a sequence of whole passages, each at most once; see `PassageLogitsProcessor`.
            **kwargs: Options of `transformers.GenerationMixin.generate`.

        Returns:
            The token ids, (batch, length), or what `return_dict_in_generate` asks for.
        """
        if passages is not None:
            beams = kwargs.get("num_beams") or self.generation_config.num_beams or 1
            rows = beams if beams > 1 else kwargs.get("num_return_sequences") or 1
            faithful = PassageLogitsProcessor(passages, self.config.eos_token_id, rows_per_input=rows)
            kwargs["logits_processor"] = LogitsProcessorList([*(kwargs.get("logits_processor") or []), faithful])
        return super().generate(*args, **kwargs)
