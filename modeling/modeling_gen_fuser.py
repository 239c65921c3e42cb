"""GenFuser: reads a prompt and its best candidates and writes one better answer.

Section 4 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561).
"""

from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig, T5ForConditionalGeneration
from transformers.utils import CONFIG_NAME

from .configuration_gen_fuser import GenFuserConfig, is_causal_type
from .configurations import keep_generation_config
from .fast_kernels import use_fast_products
from .fusion_generation import ExtractiveGenerationMixin, set_default_length
from .hub_mixins import PublishingMixin, StrictLoadingMixin
from .modeling_causal_gen_fuser import CausalGenFuser
from .tokenizer_files import settings_of

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .conversations import render_prompt  # noqa: F401
    from .fusion_encoding import Segment  # noqa: F401
    from .processing_causal_gen_fuser import CausalGenFuserProcessor  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .segmentation import split_segments  # noqa: F401
    from .tokenization import PlainTextEncoder  # noqa: F401

EMBEDDINGS, OUTPUT_LAYER = "shared.weight", "lm_head.weight"


class GenFuser(  # type: ignore[misc] # the mixins take more options
    StrictLoadingMixin, PublishingMixin, ExtractiveGenerationMixin, T5ForConditionalGeneration
):
    """A T5 that fuses candidates. Checkpoints of T5, Flan-T5, ByT5 and mT5 load unchanged.

    `generate` has all of its options (beams, sampling, streaming, cache) and one more, `segments`; see
    `ExtractiveGenerationMixin`. Training with `labels` is that of T5: the cross-entropy of the target's tokens, -100
    where there is none.
    """

    config: GenFuserConfig
    config_class = GenFuserConfig

    def __init__(self, config: GenFuserConfig) -> None:
        super().__init__(config)
        use_fast_products(self)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a fuser or a T5, or a causal language model as a `CausalGenFuser`; see `StrictLoadingMixin`.

        Where a repository states no answer length, as those of T5 do not, it is that of the paper instead of the 20
        tokens of transformers.
        """
        if _is_causal(pretrained_model_name_or_path, **kwargs):
            return CausalGenFuser.from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        keep_generation_config(model)
        set_default_length(model.generation_config)
        return loaded

    def tie_weights(  # type: ignore[override] # transformers 4 has no options, 5 has others
        self, missing_keys: set[str] | None = None, **kwargs: Any
    ) -> None:
        """Tie the embeddings as transformers does, but never an output layer that was loaded.

        transformers 5 assumes tied embeddings in every T5. While loading it finds out that they are not, and warns, but
        has forgotten it when weights are tied once more, as FSDP does. Only while loading are there missing keys.
        """
        if missing_keys is None:
            super().tie_weights(**kwargs)
            return
        scaled = getattr(self.config, "scale_decoder_outputs", True)
        if not scaled and missing_keys.isdisjoint((EMBEDDINGS, OUTPUT_LAYER)):
            self._tied_weights_keys = {
                name: other for name, other in self._tied_weights_keys.items() if name != OUTPUT_LAYER
            }
            self.all_tied_weights_keys.pop(OUTPUT_LAYER, None)
        super().tie_weights(missing_keys=missing_keys, **kwargs)


def _is_causal(where: Any, config: Any = None, **hub: Any) -> bool:
    """Return whether a checkpoint, or the configuration that it is loaded with, is of a causal language model."""
    if isinstance(config, PretrainedConfig):
        return is_causal_type(config.model_type)
    return is_causal_type(settings_of(where if config is None else config, CONFIG_NAME, **hub).get("model_type"))
