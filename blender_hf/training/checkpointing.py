"""Gradient checkpointing, which computes the states of a forward pass again instead of keeping them."""

import transformers
from transformers import TrainingArguments


def checkpoint_in_the_new_way(arguments: TrainingArguments) -> None:
    """Let transformers 4 checkpoint as 5 does.

    Its old way goes back twice through what DeBERTa's layers share, and gives LoRA adapters no gradient where the
    embeddings below them are not trained.

    Args:
        arguments: How a model is trained; changed in place.
    """
    if transformers.__version__.startswith("4.") and arguments.gradient_checkpointing:
        given = arguments.gradient_checkpointing_kwargs or {}
        arguments.gradient_checkpointing_kwargs = {"use_reentrant": False, **given}
