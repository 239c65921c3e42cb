"""A `transformers.Seq2SeqTrainer` for fusers: candidates in, one answer out, grouped by length."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_utils import PredictionOutput

from blender_hf.engine.model_state import unwrapped
from blender_hf.errors import InputError
from blender_hf.modeling import CausalGenFuserProcessor, FusionProcessor, GenFuser
from blender_hf.modeling.segmentation import split_segments
from blender_hf.modeling.tokenization import pad_right

from .fusion_data import FusionExample
from .length_grouped import LengthGroupedTrainer

IGNORED = -100  # the label that the loss skips


class FusionDataset(Dataset):
    """Examples as token ids, laid out as the fuser will read them.

    Args:
        examples: The examples.
        processor: The fuser's processor.
        max_tokens: Longer examples, input and target together, are skipped and counted in `n_left_out`; `kept` has the
            indices of the others.
        by_segments: Whether a target is tokenised segment by segment, as extractive decoding writes it.
    """

    def __init__(
        self,
        examples: Iterable[FusionExample],
        processor: FusionProcessor,
        *,
        max_tokens: int | None = None,
        by_segments: bool = False,
    ) -> None:
        encoded = [encode_example(example, processor, by_segments=by_segments) for example in examples]
        self.kept = [index for index, row in enumerate(encoded) if max_tokens is None or _length(row) <= max_tokens]
        self.examples = [encoded[index] for index in self.kept]
        self.n_left_out = len(encoded) - len(self.examples)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, input and target together."""
        return [_length(example) for example in self.examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]


def encode_example(example: FusionExample, processor: FusionProcessor, *, by_segments: bool) -> dict[str, list[int]]:
    """Return the input and the target of an example as `input_ids` and `labels`, nothing of the target cut."""
    tokenize = processor.tokenizer
    target = [
        token
        for part in (split_segments(example.target) if by_segments else [example.target])
        for token in tokenize(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]
    encoding = processor.encode(example.conversation, example.candidates)
    return {"input_ids": encoding.input_ids, "labels": [*target, processor.end_id]}


class FusionCollator:
    """Batches encoded examples.

    Args:
        processor: The fuser's processor.
        model: The fuser, which knows how its decoder starts.

    >>> from blender_hf.loading.checkpoints import locate
    >>> from blender_hf.modeling import GenFuser, GenFuserProcessor
    >>> model, processor = (kind.from_pretrained(locate("gen-fuser-mini")) for kind in (GenFuser, GenFuserProcessor))
    >>> rows = [{"input_ids": [7, 8, 9], "labels": [5, 1]}, {"input_ids": [7], "labels": [4, 5, 1]}]
    >>> {name: tensor.tolist() for name, tensor in FusionCollator(processor, model)(rows).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'input_ids': [[7, 8, 9], [7, 0, 0]], 'attention_mask': [[1, 1, 1], [1, 0, 0]],
     'labels': [[5, 1, -100], [4, 5, 1]], 'decoder_input_ids': [[0, 5, 1], [0, 4, 5]]}
    """

    def __init__(self, processor: FusionProcessor, model: PreTrainedModel) -> None:
        self.processor = processor
        self.model = cast(GenFuser, model)

    def __call__(self, batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return a batch of tensors with a row an example."""
        inputs = self.processor.pad([example["input_ids"] for example in batch])
        targets = _padded([example["labels"] for example in batch])
        shifted = self.model.prepare_decoder_input_ids_from_labels(targets)
        return {**inputs, "labels": targets, "decoder_input_ids": shifted}


class CausalFusionCollator:
    """Batches encoded examples for a causal fuser, which reads input and target as one row.

    The logits are only those of the places from which tokens of a target are predicted (`logits_to_keep`), where the
    model can leave out the others: with a vocabulary of 50,000 tokens those of a prompt need more memory than all else.
    `labels` has the token after each of these places, -100 if it is of an input or there is none. So only an answer
    counts in the loss, and `token_loss` needs to shift nothing.

    Args:
        pad_token_id: The id that fills rows; any will do, since padding is masked.
        model: The fuser.
    """

    def __init__(self, pad_token_id: int, model: PreTrainedModel) -> None:
        self.pad_token_id = pad_token_id
        self.keeps_some = "logits_to_keep" in signature(unwrapped(model).forward).parameters

    def __call__(self, batch: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """Return a batch of tensors with a row an example, and how many logits the model computes of each row."""
        rows = pad_right([[*row["input_ids"], *row["labels"]] for row in batch], self.pad_token_id)
        following = [[*[IGNORED] * (len(row["input_ids"]) - 1), *row["labels"], IGNORED] for row in batch]
        first = min(len(row["input_ids"]) for row in batch) - 1 if self.keeps_some else 0
        labels = _padded(following)[:, first:]
        return {**rows, "labels": labels, **({"logits_to_keep": labels.shape[1]} if self.keeps_some else {})}


def collator_for(processor: FusionProcessor, model: PreTrainedModel) -> FusionCollator | CausalFusionCollator:
    """Return what batches the examples of a fuser of either kind."""
    if isinstance(processor, CausalGenFuserProcessor):
        return CausalFusionCollator(processor.pad_token_id, model)
    return FusionCollator(processor, model)


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows])


class GenFuserTrainer(LengthGroupedTrainer, Seq2SeqTrainer):
    """A `transformers.Seq2SeqTrainer` that groups examples of similar length; its datasets are `FusionDataset`s.

    The loss is the mean over the tokens of all batches that are accumulated for a step, so a batch of 8 and 4 batches
    of 2 give the same gradient. Label smoothing is an argument of the trainer.

    Args:
        **kwargs: The arguments of `transformers.Seq2SeqTrainer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        generates = cast(Seq2SeqTrainingArguments, self.args).predict_with_generate
        if generates and isinstance(kwargs.get("data_collator"), CausalFusionCollator):
            raise InputError(
                "predict_with_generate is for encoder-decoders: a causal fuser is evaluated by its loss, and what it "
                "writes by blender-hf evaluate"
            )
        if self.compute_loss_func is None:
            # T5 of transformers 5 ignores the number of tokens of a step, and that of 4 does not take it.
            self.compute_loss_func = partial(token_loss, label_smoothing=self.args.label_smoothing_factor)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `transformers.Seq2SeqTrainer.evaluate` does."""
        return super().evaluate(*args, **{**self._max_new_tokens(), **kwargs})

    def predict(self, *args: Any, **kwargs: Any) -> PredictionOutput:
        """Predict as `transformers.Seq2SeqTrainer.predict` does."""
        return super().predict(*args, **{**self._max_new_tokens(), **kwargs})

    def _max_new_tokens(self) -> dict[str, int]:
        """Return `generation_max_length` under the name that overrides the length of a fuser's own settings."""
        length = cast(Seq2SeqTrainingArguments, self.args).generation_max_length
        return {} if length is None else {"max_new_tokens": length}


def token_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, *, label_smoothing: float
) -> torch.Tensor:
    """Return the cross-entropy of a batch, summed over its tokens and divided by the number of tokens of the step.

    The `logits` are (batch, length, vocabulary), the labels (batch, length); -100 is skipped. Where it is not given,
    the number of tokens is that of this batch.
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
    """Ends training after so many minutes."""

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
