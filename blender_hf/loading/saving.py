"""Writes a checkpoint in the form in which it is published, for transformers 4 and 5 alike."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from blender_hf.modeling.hub_mixins import PublishingMixin, make_portable

# Of `save_pretrained`, for whatever is saved: with them it goes up to the Hub too.
HUB_OPTIONS = ("push_to_hub", "repo_id", "token", "private", "revision", "create_pr", "commit_message")


def save_portable(model: PreTrainedModel, processor: ProcessorMixin, output: str | Path, **options: Any) -> None:
    """Save a model as safetensors, and everything that is needed to load it on either transformers.

    Args:
        model: The model.
        processor: Its processor, or its tokenizer.
        output: The folder.
        **options: Of `transformers.PreTrainedModel.save_pretrained`.
    """
    if isinstance(model, PublishingMixin):
        model.save_pretrained(output, processor=processor, **options)
        return
    model.save_pretrained(output, **options)
    processor.save_pretrained(output, **{name: options[name] for name in HUB_OPTIONS if name in options})
    make_portable(output)
