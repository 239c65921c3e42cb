"""A `transformers.Trainer` for rankers: pairs in both orders of presentation, grouped by length."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_utils import PredictionOutput

from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError, InputTypeError
from blender_hf.modeling import PairRankerProcessor

from .checkpointing import checkpoint_in_the_new_way
from .pair_data import training_pairs
from .ranker_metrics import pair_metrics
from .sampling import EpochLengthSampler, order_seed

Place = tuple[int, bool]  # a row, and whether its better candidate is presented first
# What a trainer takes as pairs: tokenised, as they are, or records in any of the package's formats.
Pairs = Iterable[PreferencePair] | Iterable[Mapping[str, Any]]


@dataclass
class PairRankerTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with what a ranker has besides; gradient accumulation, bf16, checkpoints,
    accelerate, DeepSpeed, FSDP and logging are those of transformers.
    """  # noqa: D205 (one sentence)

    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the head, which is new; None is that of the encoder."}
    )


class PairDataset(Dataset):
    """Pairs as token ids, in both orders of presentation; each text is tokenised once.

    Index `n` gives pair n with a first; index `(n, True)` with the better candidate first, `(n, False)` with it second.

    Args:
        pairs: The pairs.
        processor: The ranker's processor.
    """

    def __init__(self, pairs: Iterable[PreferencePair], processor: PairRankerProcessor) -> None:
        self.pairs = list(pairs)
        texts = list(dict.fromkeys(t for pair in self.pairs for t in (pair.prompt, pair.candidate_a, pair.candidate_b)))
        ids = dict(zip(texts, processor.encode_texts(texts), strict=True))
        self.n_truncated = 0
        self.examples = [self._encode(pair, ids, processor) for pair in self.pairs]

    def _encode(
        self, pair: PreferencePair, ids: dict[str, list[int]], processor: PairRankerProcessor
    ) -> dict[str, Any]:
        source, a, b = ids[pair.prompt], ids[pair.candidate_a], ids[pair.candidate_b]
        encoding = processor.encode_pair(source, a, b)
        cut = encoding.truncated_source + encoding.truncated_first + encoding.truncated_second
        self.n_truncated += cut > 0
        swapped = processor.encode_pair(source, b, a).input_ids
        return {"input_ids": encoding.input_ids, "swapped_ids": swapped, "labels": list(pair.targets)}

    def lengths(self) -> list[int]:
        """Return the number of tokens of each pair."""
        return [len(example["input_ids"]) for example in self.examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int | Place) -> dict[str, Any]:
        if not isinstance(index, tuple):
            return self.presented(index, swapped=False)
        row, better_first = index
        labels = self.examples[row]["labels"]
        a_is_better = sum(labels) >= len(labels) / 2
        return self.presented(row, swapped=a_is_better != better_first)

    def presented(self, row: int, *, swapped: bool) -> dict[str, Any]:
        """Return `input_ids` and `labels` of a pair, with a first or, `swapped`, with b."""
        example = self.examples[row]
        if not swapped:
            return {"input_ids": example["input_ids"], "labels": example["labels"]}
        return {"input_ids": example["swapped_ids"], "labels": [1 - label for label in example["labels"]]}


class PlaceSampler(EpochLengthSampler):
    """An `EpochLengthSampler` that says for each row whether the better candidate is presented first.

    It is in every other row, by the place in the epoch and not in the batch: by chance alone a small batch favours one
    place or the other, and most of its gradient goes into that; and a batch of one would always favour the same.
    """

    def __iter__(self) -> Iterator[Place]:  # type: ignore[override]
        # The other way in the next epoch, or rows that sorting puts in the same place would be presented in one way.
        return ((row, (place + self.seed + self.epoch) % 2 == 0) for place, row in enumerate(super().__iter__()))


class BothOrders(Dataset):
    """The presentations of a `PairDataset`, for evaluation: a first and then b first, pair by pair."""

    def __init__(self, dataset: PairDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 2 * len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset.presented(index // 2, swapped=index % 2 == 1)


class PairCollator:
    """Makes batches of presented pairs.

    Args:
        processor: The ranker's processor.
    """

    def __init__(self, processor: PairRankerProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, both (batch, length), and `labels`, (batch, n_tasks)."""
        batch = self.processor.pad([example["input_ids"] for example in examples])
        return {**batch, "labels": torch.tensor([example["labels"] for example in examples])}


class PairRankerTrainer(Trainer):
    """Trains a `PairRanker` on preference pairs with the multi-task binary cross-entropy of the paper (section 3.3).

    In training the better candidate is presented first in every other pair. `evaluate` and `predict` present each pair
    in both orders, a first and then b first, and report what `ranker_metrics.pair_metrics` says, and what
    `compute_metrics` does, which gets the logits of both orders, pair by pair; two lists of them are then in
    `last_logits`. Label smoothing draws the labels of training towards 0.5. The processor is saved with the model.

    Args:
        model: The ranker.
        args: How it is trained.
        train_dataset: Pairs to learn from: a `PairDataset`, or any iterable of `PreferencePair`, or of records in one
            of the formats of labelled data, such as a `datasets.Dataset` with `prompt`, `chosen` and `rejected`.
        eval_dataset: Pairs to evaluate on, in the same forms, or a mapping of several by their names.
        processing_class: The ranker's processor.
        **kwargs: Other arguments of `transformers.Trainer`.

    Raises:
        InputError: If the processor is missing, a record can't be used, or `batch_eval_metrics` is asked for.
        InputTypeError: If the pairs are of another type.
    """

    def __init__(
        self,
        model: Any = None,
        args: PairRankerTrainingArguments | None = None,
        train_dataset: PairDataset | Pairs | None = None,
        eval_dataset: PairDataset | Pairs | Mapping[str, PairDataset | Pairs] | None = None,
        processing_class: PairRankerProcessor | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise InputError("give the ranker's processor as processing_class=: it puts the pairs together")
        if args is not None:
            if args.batch_eval_metrics:
                raise InputError("batch_eval_metrics=True can't be: all pairs are measured together")
            args.remove_unused_columns = False  # the collator makes what the model takes
            checkpoint_in_the_new_way(args)
        self.processor = processing_class
        self.last_logits: tuple[list[float], list[float]] = ([], [])
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._as_pairs(train_dataset),
            eval_dataset=self._all_as_pairs(eval_dataset),
            data_collator=kwargs.pop("data_collator", None) or PairCollator(processing_class),
            **kwargs,
        )
        self.label_names = ["labels"]
        self.label_smoother = None  # that of transformers is for classes
        self._own_metrics = self.compute_metrics
        # Not `self.processing_class`: transformers would write the tokenizer's special tokens over the encoder's.
        self.callback_handler.processing_class = processing_class

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss, as `transformers.Trainer.compute_loss` does, of labels that are smoothed in training."""
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            inputs = {**inputs, "labels": inputs["labels"] * (1 - smoothing) + smoothing / 2}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def evaluate(
        self,
        eval_dataset: PairDataset | Pairs | Mapping[str, PairDataset | Pairs] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate in both orders of presentation, as `transformers.Trainer.evaluate` does in one.

        A name is one of the mapping that the trainer was given as `eval_dataset`.

        Raises:
            InputError: If there is nothing to evaluate on.
        """
        found = self._all_as_pairs(self.eval_dataset if eval_dataset is None else eval_dataset)
        if isinstance(found, Mapping):
            parts = [self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}") for name, part in found.items()]
            return {key: value for part in parts for key, value in part.items()}
        if found is None or not len(found):
            raise InputError("there is nothing to evaluate on: give an eval_dataset")
        self.compute_metrics = lambda prediction: self._metrics(found, prediction)
        return super().evaluate(BothOrders(found), ignore_keys, metric_key_prefix)

    def predict(
        self,
        test_dataset: PairDataset | Pairs,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
    ) -> PredictionOutput:
        """Return the logits of both orders of presentation, (2 * pairs,), and what `evaluate` says of them.

        Raises:
            InputError: If there are no pairs.
        """
        found = self._as_pairs(test_dataset)
        if found is None or not len(found):
            raise InputError("there is nothing to predict: give pairs as test_dataset")
        self.compute_metrics = lambda prediction: self._metrics(found, prediction)
        output = super().predict(BothOrders(found), ignore_keys, metric_key_prefix)
        return output._replace(predictions=_logits(output.predictions))

    def _metrics(self, dataset: PairDataset, prediction: EvalPrediction) -> dict[str, float]:
        self.last_logits = _both_orders(prediction)
        found = pair_metrics(dataset.pairs, *self.last_logits)
        if self._own_metrics is not None:
            found |= self._own_metrics(EvalPrediction(_logits(prediction.predictions), prediction.label_ids))
        return found

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        self.processor.save_pretrained(output_dir or self.args.output_dir)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the optimiser that the arguments name, with a rate of its own for the head."""
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = getattr(self.args, "head_learning_rate", None)
        if rate is not None:
            _split_off_head(optimizer, self.model, rate)
        return optimizer

    def _all_as_pairs(self, data: Any) -> PairDataset | dict[str, PairDataset] | None:
        """Return pairs, or several by their names; a name stands for those that were given first."""
        if isinstance(data, str):
            return self.eval_dataset[data]
        if isinstance(data, Mapping):
            return {name: self._as_pairs(part) for name, part in data.items()}
        return self._as_pairs(data)

    def _as_pairs(self, data: Any) -> PairDataset | None:
        return data if data is None or isinstance(data, PairDataset) else PairDataset(_pairs(data), self.processor)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> PlaceSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return PlaceSampler(self.args.train_batch_size, dataset.lengths(), order_seed(self.args))


def _pairs(data: Any) -> list[PreferencePair]:
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        raise InputTypeError(
            f"pairs must be a list of PreferencePair or of records, not {type(data).__name__}; a file is read with "
            "training_pairs(read_labelled(path))"
        )
    rows = list(data)
    if all(isinstance(row, PreferencePair) for row in rows):
        return rows
    return list(training_pairs(read_labelled(rows)))


def _logits(predictions: Any) -> Any:
    return predictions[0] if isinstance(predictions, tuple) else predictions


def _both_orders(prediction: EvalPrediction) -> tuple[list[float], list[float]]:
    found = _logits(prediction.predictions)
    return found[0::2].tolist(), found[1::2].tolist()


def _split_off_head(optimizer: torch.optim.Optimizer, model: torch.nn.Module, rate: float) -> None:
    """Move the weights of the head to groups with a rate of their own, the other options of their groups kept."""
    head = {id(weight) for name, weight in model.named_parameters() if "head." in name}
    for group in list(optimizer.param_groups):
        own = [weight for weight in group["params"] if id(weight) in head]
        if own:
            group["params"] = [weight for weight in group["params"] if id(weight) not in head]
            optimizer.add_param_group({**group, "params": own, "lr": rate})
