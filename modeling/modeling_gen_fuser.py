"""GenFuser: reads a prompt and its best candidates and writes one better answer.

Section 4 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561).
"""

from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, T5ForConditionalGeneration

from .configuration_gen_fuser import GenFuserConfig
from .fast_products import use_fast_products
from .generation_gen_fuser import PassageGenerationMixin
from .loading import StrictLoadingMixin
from .publishing import PublishingMixin

if TYPE_CHECKING:
    # transformers 4 takes from a local folder only the files that this one names; this is what its imports import.
    from .passages import Passage  # noqa: F401

# The default of transformers 4, which every configuration there has; and the length of the paper's targets.
UNSTATED_LENGTH, TARGET_LENGTH = 20, 128
EMBEDDINGS, OUTPUT_LAYER = "shared.weight", "lm_head.weight"


def state_length(generation: GenerationConfig) -> None:
    """Let a configuration that states no length of the answer state that of the paper's targets."""
    if generation.max_new_tokens is None and generation.max_length in (None, UNSTATED_LENGTH):
        generation.max_new_tokens = TARGET_LENGTH


class GenFuser(StrictLoadingMixin, PublishingMixin, PassageGenerationMixin, T5ForConditionalGeneration):
    """A T5 that fuses candidates. Checkpoints of T5, Flan-T5, ByT5 and mT5 load as they are.

    `generate` has all of its options (beams, sampling, streaming, cache) and one more, `passages`; see
    `PassageGenerationMixin`. Training with `labels` is that of T5: the cross-entropy of the target's tokens, -100 where
    there is none.
    """

    config_class = GenFuserConfig

    def __init__(self, config: GenFuserConfig) -> None:
        super().__init__(config)
        use_fast_products(self)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a fuser or a T5; see `StrictLoadingMixin.from_pretrained`.

        Where a repository states no length of its answers, as those of T5 do not, it is that of the paper instead of
        the 20 tokens of transformers.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        generation = (loaded[0] if isinstance(loaded, tuple) else loaded).generation_config
        state_length(generation)
        return loaded

    def tie_weights(self, missing_keys: set[str] | None = None, **kwargs: Any) -> None:
        """Tie the embeddings as transformers does; an output layer of its own that was loaded stays one.

        transformers 5 takes all to be tied in every T5. It finds out at loading that they are not, warns, and has
        forgotten it when weights are tied once more, as FSDP does.

        Args:
            missing_keys: While a checkpoint is loaded, what it has not.
            **kwargs: Passed on to transformers.
        """
        loading = {} if missing_keys is None else {"missing_keys": missing_keys}
        scaled = getattr(self.config, "scale_decoder_outputs", True)
        if loading and not scaled and missing_keys.isdisjoint((EMBEDDINGS, OUTPUT_LAYER)):
            self._tied_weights_keys = {
                name: other for name, other in self._tied_weights_keys.items() if name != OUTPUT_LAYER
            }
            self.all_tied_weights_keys.pop(OUTPUT_LAYER, None)
        super().tie_weights(**loading, **kwargs)
