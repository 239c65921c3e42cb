"""Writes a trained checkpoint in the form in which it is published."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from blender_hf.loading.saving import save_portable


def save_checkpoint(model: PreTrainedModel, processor: ProcessorMixin, output: str | Path) -> None:
    """Save weights in float16 as safetensors, and everything that is needed to load them on either transformers.

    Args:
        model: The trained model; it is turned to evaluation mode and float16.
        processor: Its processor.
        output: The folder.
    """
    save_portable(model.eval().to(torch.float16), processor, output)
