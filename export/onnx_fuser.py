"""Fusers in ONNX Runtime, through Optimum, which has the generation loop."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PretrainedConfig
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from blender_hf.errors import BlenderError
from blender_hf.loading.checkpoints import HubOptions, explained, hub_settings, locate
from blender_hf.modeling import FusionProcessor, GenFuserConfig, GenFuserProcessor
from blender_hf.modeling.configuration_gen_fuser import add_fusion_settings
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.fusion_generation import ExtractiveGenerationMixin, set_default_length
from blender_hf.modeling.modeling_causal_gen_fuser import set_default_new_tokens
from blender_hf.modeling.tokenizer_files import settings_of

from .graph import NEEDS_OPTIMUM, checkpoint_of, find_setting_file, fuser_files, is_causal_fuser, require_onnx_file
from .onnx_ranker import DEFAULT_PROVIDER, check_provider, provider_options
from .provenance import check_weights, read_metadata

try:
    from optimum.onnxruntime import ORTModelForCausalLM, ORTModelForSeq2SeqLM
except ModuleNotFoundError:
    raise BlenderError(f"a fuser in ONNX Runtime needs Optimum: {NEEDS_OPTIMUM}") from None


class OnnxGenerationMixin(ExtractiveGenerationMixin):
    """Adds the `generate` of `GenFuser`, `segments` included, in the process that loaded the fuser."""

    process: int | None = None  # the one that it was loaded in, which has its threads

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Write fused answers, in the process that loaded the fuser; see `ExtractiveGenerationMixin`."""
        if self.process not in (None, os.getpid()):
            raise BlenderError(
                "a fuser in ONNX Runtime can't run in a fork of the process that loaded it: load it in each process, "
                "or start processes by multiprocessing.get_context('spawn')"
            )
        return super().generate(*args, **kwargs)


class OnnxGenFuser(OnnxGenerationMixin, ORTModelForSeq2SeqLM):
    """An exported fuser."""


class OnnxCausalGenFuser(OnnxGenerationMixin, ORTModelForCausalLM):
    """An exported fuser that is a causal language model."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        # optimum-onnx 0.1.0 takes hidden_size / num_attention_heads for it, which it is not in Qwen3.
        if (size := getattr(config, "head_dim", None)) is not None:
            self.embed_size_per_head = size


@dataclass(frozen=True)
class Kind:
    """What loads a fuser of one kind."""

    model_class: Any
    load_config: Callable[..., PretrainedConfig]
    set_default_length: Callable[[GenerationConfig, PretrainedConfig], None]


def _causal_config(where: str, **hub: Any) -> PretrainedConfig:
    config = load_config(where, **hub)
    add_fusion_settings(config, {})
    return config


ENCODER_DECODER = Kind(
    OnnxGenFuser, GenFuserConfig.from_pretrained, lambda generation, config: set_default_length(generation)
)
CAUSAL = Kind(OnnxCausalGenFuser, _causal_config, set_default_new_tokens)


def load_onnx_fuser(
    name: str | Path, options: HubOptions, provider: str | None = None
) -> tuple[OnnxGenFuser | OnnxCausalGenFuser, FusionProcessor]:
    """Load an exported fuser and its processor; the provider None is that of the CPU."""
    provider = provider or DEFAULT_PROVIDER
    check_provider(provider)
    where, hub = locate(name), hub_settings(options)
    stated = explained(lambda: settings_of(where, CONFIG_NAME, **hub), name, "fuser", options)
    kind = CAUSAL if is_causal_fuser(stated) else ENCODER_DECODER
    paths = [require_onnx_file(name, options, file) for file in fuser_files(stated)]
    checkpoint = checkpoint_of(paths[0], name, options)
    for path in paths:
        check_weights(read_metadata(path), path, checkpoint)
    config = explained(lambda: kind.load_config(where, **hub), name, "fuser", options)
    settings = {
        "config": config,
        "generation_config": explained(lambda: _generation_config(name, options, config, kind), name, "fuser", options),
        "provider": provider,
        "provider_options": provider_options(provider),
        # Optimum looks for a configuration, which a download has only at the top.
        "subfolder": paths[0].parent.relative_to(checkpoint).as_posix().removeprefix("."),
    }
    processor = explained(lambda: GenFuserProcessor.from_pretrained(where, **hub), name, "fuser", options)
    model = explained(lambda: kind.model_class.from_pretrained(checkpoint, **settings), name, "fuser", options)
    model.process = os.getpid()
    return model, processor


def _generation_config(name: str | Path, options: HubOptions, config: PretrainedConfig, kind: Kind) -> GenerationConfig:
    """Return the generation settings of `GenFuser.from_pretrained`, answer length included.

    Those at the top of a checkpoint take precedence, as in torch, over those of the export beside its graphs.
    """
    path = find_setting_file(name, options, GENERATION_CONFIG_NAME)
    if path is None:
        found = GenerationConfig.from_model_config(config)
    else:
        found = GenerationConfig.from_pretrained(path.parent)
    kind.set_default_length(found, config)
    return found
