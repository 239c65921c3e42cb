"""The order of training: rows of like length together, new in each epoch, the same after an interruption."""

from collections.abc import Iterator, Sequence

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler


def order_seed(arguments: TrainingArguments) -> int:
    """Return the seed of the order of the data: that of all else if it has none of its own."""
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


class EpochLengthSampler(LengthGroupedSampler):
    """A `LengthGroupedSampler` whose order depends on the seed and the epoch alone.

    That of transformers goes on with its generator from epoch to epoch, and a run that is resumed begins it anew: it
    would see other rows than one that was never interrupted.

    Args:
        batch_size: Rows of a batch.
        lengths: The length of each row.
        seed: Of the order.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; accelerate calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()
