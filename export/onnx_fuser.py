"""Runs a fuser in ONNX Runtime through Optimum, which has its loop of generation."""

from pathlib import Path

from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import GenerationConfig

from blender_hf.checkpoints import HubOptions, explained, hub_settings, locate
from blender_hf.modeling import GenFuserConfig, GenFuserProcessor
from blender_hf.modeling.generation_gen_fuser import PassageGenerationMixin

from .graph import FUSER_FILES, require_onnx_file
from .onnx_ranker import DEFAULT_PROVIDER, check_provider


class OnnxGenFuser(PassageGenerationMixin, ORTModelForSeq2SeqLM):
    """An exported fuser with the `generate` of `GenFuser`, `passages` included."""


def load_onnx_fuser(
    name: str | Path, options: HubOptions, provider: str | None = None
) -> tuple[OnnxGenFuser, GenFuserProcessor]:
    """Load an exported fuser and its processor.

    Args:
        name: A bundled name, a folder or a Hub id.
        options: How it is looked up.
        provider: Name of an execution provider of ONNX Runtime; None is that of the CPU.

    Returns:
        The fuser and its processor.

    Raises:
        CheckpointError: If a file is missing or damaged.
        InputError: If the provider does not exist.
    """
    check_provider(provider or DEFAULT_PROVIDER)
    where, hub = locate(name), hub_settings(options)
    encoder, _ = (require_onnx_file(name, options, file) for file in FUSER_FILES)
    settings = {
        "config": explained(lambda: GenFuserConfig.from_pretrained(where, **hub), name, "fuser"),
        "generation_config": explained(lambda: GenerationConfig.from_pretrained(where, **hub), name, "fuser"),
        "provider": provider or DEFAULT_PROVIDER,
    }
    processor = explained(lambda: GenFuserProcessor.from_pretrained(where, **hub), name, "fuser")
    return explained(lambda: OnnxGenFuser.from_pretrained(encoder.parent, **settings), name, "fuser"), processor
