"""Batches of examples of similar length, in an order that a resumed run repeats: what all trainers share."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthSampler(LengthGroupedSampler):
    """A `LengthGroupedSampler` whose order depends only on the seed and the epoch.

    The generator of transformers' sampler carries over from epoch to epoch; a resumed run would restart it and see
    other rows than an uninterrupted one.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; accelerate calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class LengthGroupedTrainer(Trainer):
    """A `transformers.Trainer`, or a mixin for a subclass of it, that batches examples of similar length.

    Its datasets have a method `lengths()`, the number of tokens of each example, and its collator makes the tensors.
    """

    sampler_class = EpochLengthSampler

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("args") is not None:
            kwargs["args"].remove_unused_columns = False  # the collator makes what the model takes
            _use_non_reentrant_checkpointing(kwargs["args"])
        super().__init__(**kwargs)

    def lengths_of(self, dataset: Any) -> Sequence[int]:
        """Return the number of tokens of each example of a dataset."""
        return dataset.lengths()

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochLengthSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return self.sampler_class(self.args.train_batch_size, self.lengths_of(dataset), seed)


def _use_non_reentrant_checkpointing(arguments: TrainingArguments) -> None:
    """Use non-reentrant gradient checkpointing on transformers 4, as 5 does by default.

    The reentrant kind runs the backward pass twice through what DeBERTa's layers share, and gives LoRA adapters no
    gradient where the embeddings below them are frozen.
    """
    given = arguments.gradient_checkpointing_kwargs or {}
    if transformers.__version__.startswith("4.") and arguments.gradient_checkpointing and isinstance(given, dict):
        arguments.gradient_checkpointing_kwargs = {"use_reentrant": False, **given}
