"""Writes a checkpoint in the form in which it is published, for transformers 4 and 5 alike."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from .modeling.publishing import make_portable


def save_portable(model: PreTrainedModel, processor: ProcessorMixin, output: str | Path, **options: Any) -> None:
    """Save a model as safetensors, and everything that is needed to load it on either transformers.

    Args:
        model: The model.
        processor: Its processor.
        output: The folder.
        **options: Of `transformers.PreTrainedModel.save_pretrained`.
    """
    model.save_pretrained(output, **options)
    processor.save_pretrained(output)
    make_portable(output)
