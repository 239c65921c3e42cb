"""Fusers that are causal language models: Llama, Qwen3, SmolLM2 and others, whose checkpoints stay what they are.

Such a fuser is the language model itself, of which our processor asks for one answer from several candidates. So its
weights, names and configuration are those of the language model, and any library loads it.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig, PretrainedConfig, PreTrainedModel

from .configuration_gen_fuser import EXTRACTIVE_SETTINGS, GenFuserConfig, add_fusion_settings
from .configurations import keep_generation_config, load_config, read_alike, use_exact_attention
from .fast_kernels import use_fast_products
from .fusion_generation import ExtractiveGenerationMixin
from .hub_mixins import PublishingMixin, StrictLoadingMixin
from .processing_causal_gen_fuser import default_max_new_tokens
from .tokenizer_files import file_options

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .conversations import render_prompt  # noqa: F401
    from .fusion_encoding import Segment  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .segmentation import split_segments  # noqa: F401
    from .tokenization import PlainTextEncoder  # noqa: F401


class CausalGenFuser(  # type: ignore[misc] # the mixins take more options
    StrictLoadingMixin, PublishingMixin, ExtractiveGenerationMixin, PreTrainedModel
):
    """A causal language model that fuses candidates; `from_pretrained` returns it as a subclass of the model's class.

    `generate` has all of its options and one more, `segments`; see `ExtractiveGenerationMixin`. It returns the prompt
    with the new tokens, as that of every decoder; a streamer gets the new tokens alone. Training with `labels` is that
    of the language model.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a causal language model as a fuser; see `StrictLoadingMixin.from_pretrained`.

        Where a repository states no answer length, it is `default_max_new_tokens`.

        Args:
            pretrained_model_name_or_path: A Hub id or a folder; None if `config` and `state_dict` are given.
            *model_args: As in transformers.
            config: The configuration of the language model; None for that of the checkpoint.
            **kwargs: Options of `from_pretrained` in transformers, and settings of extractive decoding.

        Raises:
            OSError: If weights are missing, unexpected or of another shape.
            ValueError: If it is no causal language model, or a setting can't work.
        """
        given = {name: kwargs.pop(name) for name in EXTRACTIVE_SETTINGS if name in kwargs}
        if isinstance(config, PretrainedConfig):
            config = read_alike(config)
        else:
            where = pretrained_model_name_or_path if config is None else config
            config = load_config(where, **file_options(kwargs))
        add_fusion_settings(config, given)
        fuser_class: Any = causal_fuser_class(_language_model_of(config))
        loaded = super(CausalGenFuser, fuser_class).from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, **kwargs
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        use_exact_attention(model)
        use_fast_products(model)
        keep_generation_config(model)
        set_default_new_tokens(model.generation_config, config)
        return loaded

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (_language_model_of(self.config),), self.__dict__

    @property
    def _model_type(self) -> str:
        # By which the Hub lists it, in place of the type of the language model.
        return GenFuserConfig.model_type


@cache
def causal_fuser_class(language_model: type) -> type[CausalGenFuser]:
    """Return the class of fusers that are a language model of a class.

    It has the name and the module of that class, by which transformers and others recognise what a model is.
    """
    names: dict[str, Any] = {name: getattr(language_model, name) for name in ("__module__", "config_class")}
    names["__doc__"] = CausalGenFuser.__doc__
    return type(language_model.__name__, (CausalGenFuser, language_model), names)


def set_default_new_tokens(generation: GenerationConfig, config: PretrainedConfig) -> None:
    """Set an answer length in a configuration that states none; a `max_length` would count the prompt."""
    if generation.max_new_tokens is None:
        generation.max_new_tokens = default_max_new_tokens(config)
        generation.max_length = GenerationConfig().max_length


def _language_model_of(config: PretrainedConfig) -> type:
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if found is None:
        raise ValueError(f"a {config.model_type} is no causal language model of transformers, which a fuser is made of")
    return found


def _unpickled(language_model: type) -> Any:
    made: Any = causal_fuser_class(language_model)
    return made.__new__(made)
