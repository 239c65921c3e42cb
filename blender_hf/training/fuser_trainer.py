"""A `transformers.Seq2SeqTrainer` for fusers: candidates in, one answer out, grouped by length."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import PredictionOutput

from blender_hf.modeling import GenFuser, GenFuserProcessor
from blender_hf.modeling.processing_gen_fuser import split_passages

from .checkpointing import checkpoint_in_the_new_way
from .fusion_data import FusionExample
from .sampling import EpochLengthSampler, order_seed

IGNORED = -100  # what the loss does not look at


class FusionDataset(Dataset):
    """Examples as token ids, laid out as the fuser will read them.

    Args:
        examples: The examples.
        processor: The fuser's processor.
        max_tokens: Longer examples, input and target together, are left out and counted in `n_left_out`; `kept` has
            the indices of the others.
        by_passages: Whether a target is tokenised passage by passage, as faithful decoding writes it.
    """

    def __init__(
        self,
        examples: Iterable[FusionExample],
        processor: GenFuserProcessor,
        *,
        max_tokens: int | None = None,
        by_passages: bool = False,
    ) -> None:
        encoded = [encode_example(example, processor, by_passages=by_passages) for example in examples]
        self.kept = [place for place, row in enumerate(encoded) if max_tokens is None or _length(row) <= max_tokens]
        self.examples = [encoded[place] for place in self.kept]
        self.n_left_out = len(encoded) - len(self.examples)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, input and target together."""
        return [_length(example) for example in self.examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]


def encode_example(example: FusionExample, processor: GenFuserProcessor, *, by_passages: bool) -> dict[str, list[int]]:
    """Return the input and the target of an example as `input_ids` and `labels`, nothing of the target cut."""
    tokenize = processor.tokenizer
    target = [
        token
        for part in (split_passages(example.target) if by_passages else [example.target])
        for token in tokenize(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]
    encoding = processor.encode(example.prompt, example.candidates)
    return {"input_ids": encoding.input_ids, "labels": [*target, tokenize.eos_token_id]}


class FusionCollator:
    """Makes batches of examples.

    Args:
        processor: The fuser's processor.
        model: The fuser, which knows how its decoder starts.
    """

    def __init__(self, processor: GenFuserProcessor, model: GenFuser) -> None:
        self.processor = processor
        self.model = model

    def __call__(self, batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask`, `labels` and `decoder_input_ids`, (batch, length) each.

        -100 fills the labels up; the loss with label smoothing needs the input of the decoder apart.
        """
        inputs = self.processor.pad([example["input_ids"] for example in batch])
        longest = max(len(example["labels"]) for example in batch)
        labels = [example["labels"] + [IGNORED] * (longest - len(example["labels"])) for example in batch]
        targets = torch.tensor(labels)
        shifted = self.model.prepare_decoder_input_ids_from_labels(targets)
        return {**inputs, "labels": targets, "decoder_input_ids": shifted}


class GenFuserTrainer(Seq2SeqTrainer):
    """A `transformers.Seq2SeqTrainer` that groups examples of similar length; label smoothing is its argument.

    The loss is the mean over the tokens of all batches that are accumulated for a step, so 8 examples at once and 4
    times 2 give the same gradient.

    Args:
        **kwargs: The arguments of `transformers.Seq2SeqTrainer`; the data sets are `FusionDataset`s.
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("args") is not None:
            kwargs["args"].remove_unused_columns = False  # the collator makes what the model takes
            checkpoint_in_the_new_way(kwargs["args"])
        super().__init__(**kwargs)
        if self.compute_loss_func is None:
            # T5 of transformers 5 takes the number of tokens of a step and passes it over, and of 4 knows none.
            self.compute_loss_func = partial(token_loss, label_smoothing=self.args.label_smoothing_factor)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `transformers.Seq2SeqTrainer.evaluate` does."""
        return super().evaluate(*args, **{**self._length_of_answers(), **kwargs})

    def predict(self, *args: Any, **kwargs: Any) -> PredictionOutput:
        """Predict as `transformers.Seq2SeqTrainer.predict` does."""
        return super().predict(*args, **{**self._length_of_answers(), **kwargs})

    def _length_of_answers(self) -> dict[str, int]:
        """Return `generation_max_length` by the name that a fuser's own settings, which have a length, yield to."""
        length = self.args.generation_max_length
        return {} if length is None else {"max_new_tokens": length}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochLengthSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return EpochLengthSampler(self.args.train_batch_size, dataset.lengths(), order_seed(self.args))


def token_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, *, label_smoothing: float
) -> torch.Tensor:
    """Return the cross-entropy of a batch, as its share of the mean over all tokens of a step.

    Args:
        outputs: What the model returned; `logits`, (batch, length, vocabulary).
        labels: (batch, length); -100 is not looked at.
        num_items_in_batch: How many tokens all batches of the step have together; None takes those of this batch.
        label_smoothing: Share of the target that is spread over the vocabulary, 0 to 1.
    """
    summed = cross_entropy(
        outputs["logits"].flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    if num_items_in_batch is None:
        return summed / labels.ne(IGNORED).sum()
    # With several GPUs of one process, each has a part of the number.
    return summed / torch.as_tensor(num_items_in_batch, device=summed.device).sum()


class StopAfter(TrainerCallback):
    """Ends training after so many minutes.

    Args:
        minutes: How many.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._end = time.monotonic() + 60 * self.minutes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the time is up."""
        control.should_training_stop = control.should_training_stop or time.monotonic() > self._end


def _length(example: dict[str, list[int]]) -> int:
    return len(example["input_ids"]) + len(example["labels"])
