"""Fusers in ONNX Runtime, through Optimum, which has the generation loop."""

import os
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from blender_hf.errors import BlenderError
from blender_hf.loading.checkpoints import HubOptions, explained, hub_settings, locate
from blender_hf.modeling import GenFuserConfig, GenFuserProcessor
from blender_hf.modeling.fusion_generation import ExtractiveGenerationMixin, set_default_length

from .graph import FUSER_FILES, NEEDS_OPTIMUM, checkpoint_of, find_setting_file, require_onnx_file
from .onnx_ranker import DEFAULT_PROVIDER, check_provider, provider_options
from .provenance import check_weights, read_metadata

try:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
except ModuleNotFoundError:
    raise BlenderError(f"a fuser in ONNX Runtime needs Optimum: {NEEDS_OPTIMUM}") from None


class OnnxGenFuser(ExtractiveGenerationMixin, ORTModelForSeq2SeqLM):
    """An exported fuser with the `generate` of `GenFuser`, `segments` included."""

    process: int | None = None  # the one that it was loaded in, which has its threads

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Write fused answers, in the process that loaded the fuser; see `ExtractiveGenerationMixin`."""
        if self.process not in (None, os.getpid()):
            raise BlenderError(
                "a fuser in ONNX Runtime can't run in a fork of the process that loaded it: load it in each process, "
                "or start processes by multiprocessing.get_context('spawn')"
            )
        return super().generate(*args, **kwargs)


def load_onnx_fuser(
    name: str | Path, options: HubOptions, provider: str | None = None
) -> tuple[OnnxGenFuser, GenFuserProcessor]:
    """Load an exported fuser and its processor; the provider None is that of the CPU."""
    provider = provider or DEFAULT_PROVIDER
    check_provider(provider)
    where, hub = locate(name), hub_settings(options)
    paths = [require_onnx_file(name, options, file) for file in FUSER_FILES]
    checkpoint = checkpoint_of(paths[0], name, options)
    for path in paths:
        check_weights(read_metadata(path), path, checkpoint)
    config = explained(lambda: GenFuserConfig.from_pretrained(where, **hub), name, "fuser", options)
    settings = {
        "config": config,
        "generation_config": explained(lambda: _generation_config(name, options, config), name, "fuser", options),
        "provider": provider,
        "provider_options": provider_options(provider),
        # Optimum looks for a configuration, which a download has only at the top.
        "subfolder": paths[0].parent.relative_to(checkpoint).as_posix().removeprefix("."),
    }
    processor = explained(lambda: GenFuserProcessor.from_pretrained(where, **hub), name, "fuser", options)
    model = explained(lambda: OnnxGenFuser.from_pretrained(checkpoint, **settings), name, "fuser", options)
    model.process = os.getpid()
    return model, processor


def _generation_config(name: str | Path, options: HubOptions, config: GenFuserConfig) -> GenerationConfig:
    """Return the generation settings of `GenFuser.from_pretrained`, answer length included.

    Those at the top of a checkpoint take precedence, as in torch, over those of the export beside its graphs.
    """
    path = find_setting_file(name, options, GENERATION_CONFIG_NAME)
    if path is None:
        found = GenerationConfig.from_model_config(config)
    else:
        found = GenerationConfig.from_pretrained(path.parent)
    set_default_length(found)
    return found
