"""A `transformers.Trainer` for rankers: pairs in both orders of presentation, or prompts with all of their pairs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import EvalPrediction, TrainingArguments
from transformers.trainer_utils import PredictionOutput

from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.scorer import tokenised
from blender_hf.errors import InputError, InputTypeError
from blender_hf.modeling import PairRankerProcessor

from .frozen_layers import FrozenLayers
from .length_grouped import EpochLengthSampler, LengthGroupedTrainer
from .pair_data import training_pairs
from .prompt_data import (
    CandidateRows,
    PromptCollator,
    PromptDataset,
    TokenBatches,
    mean_over_pairs,
    task_logits_of,
)
from .prompt_rows import arrangement_of
from .ranker_metrics import pair_metrics

Predicted = EvalPrediction | PredictionOutput
# A pair to present, and whether its better candidate comes first.
Presented = tuple[int, bool]


@dataclass
class PairRankerTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with what a ranker has besides."""

    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the head, which is new; None is that of the encoder."}
    )
    max_batch_tokens: int | None = field(
        default=None,
        metadata={"help": "Separate: a batch is as many prompts as have so many tokens with their candidates."},
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
        ids = tokenised((text for pair in self.pairs for text in (pair.prompt, *pair.item.texts)), processor)
        self.n_truncated = 0
        self._both_orders: list[tuple[list[int], list[int]]] = []
        for pair in self.pairs:
            source, a, b = ids[pair.prompt], ids[pair.candidate_a], ids[pair.candidate_b]
            encoding = processor.encode_pair(source, a, b)
            self.n_truncated += any((encoding.truncated_source, encoding.truncated_first, encoding.truncated_second))
            self._both_orders.append((encoding.input_ids, processor.encode_pair(source, b, a).input_ids))

    def lengths(self) -> list[int]:
        """Return the number of tokens of each pair."""
        return [len(input_ids) for input_ids, _ in self._both_orders]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | Presented) -> dict[str, Any]:
        if not isinstance(index, tuple):
            return self.presented(index, swapped=False)
        row, better_first = index
        targets = self.pairs[row].targets
        a_is_better = sum(targets) >= len(targets) / 2
        return self.presented(row, swapped=a_is_better != better_first)

    def presented(self, row: int, *, swapped: bool) -> dict[str, Any]:
        """Return `input_ids` and `labels` of a pair, with a first or, `swapped`, with b."""
        labels = [1 - label if swapped else label for label in self.pairs[row].targets]
        return {"input_ids": self._both_orders[row][swapped], "labels": labels}


class BetterFirstSampler(EpochLengthSampler):
    """An `EpochLengthSampler` that chooses for each row whether the better candidate is presented first.

    It alternates over the epoch, not the batch: by chance a small batch favours one position, which then dominates its
    gradient, and a batch of one would always favour the same.
    """

    def __iter__(self) -> Iterator[Presented]:
        # The other way in the next epoch, or rows that sorting puts at the same position would be presented in one way.
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
    """Batches presented pairs.

    Args:
        processor: The ranker's processor.

    >>> from blender_hf.loading.checkpoints import locate
    >>> processor = PairRankerProcessor.from_pretrained(locate("pair-ranker-mini"))
    >>> pairs = [("2 + 2?", "4", "5", 1.0), ("Hi", "Hello there", "No", 0.75)]
    >>> dataset = PairDataset((PreferencePair.of(*pair) for pair in pairs), processor)
    >>> batch = PairCollator(processor)([dataset[0, True], dataset[1, False]])
    >>> {name: tuple(tensor.shape) for name, tensor in batch.items()}
    {'input_ids': (2, 15), 'attention_mask': (2, 15), 'labels': (2, 1)}
    >>> batch["labels"].tolist()
    [[1.0], [0.25]]
    """

    def __init__(self, processor: PairRankerProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch of tensors with a row a pair."""
        batch = self.processor.pad([example["input_ids"] for example in examples])
        return {**batch, "labels": torch.tensor([example["labels"] for example in examples])}


@dataclass(frozen=True)
class Reading:
    """What the trainer does with pairs for one way of reading candidates (`PairRankerConfig.candidate_encoding`)."""

    dataset: type[PairDataset] | type[PromptDataset]
    # maps a data set to what the model is run on in an evaluation
    evaluated: Callable[[Any], Dataset]
    sampler: type[EpochLengthSampler]
    # as `transformers.Trainer` takes it; None is the model's own
    loss: Callable[..., torch.Tensor] | None
    # maps a data set and the predictions for it to the logits of both orders of presentation, pair by pair, and what
    # is measured besides
    measured: Callable[[Any, Predicted], tuple[np.ndarray, dict[str, float]]]


def _measured_in_both_orders(dataset: PairDataset, prediction: Predicted) -> tuple[np.ndarray, dict[str, float]]:
    predictions = prediction.predictions
    return predictions[0] if isinstance(predictions, tuple) else predictions, {}


def _measured_by_encodings(dataset: PromptDataset, prediction: Predicted) -> tuple[np.ndarray, dict[str, float]]:
    task_logits = task_logits_of(
        dataset, cast(np.ndarray, prediction.predictions), cast(np.ndarray, prediction.label_ids)
    )
    labels = [pair.targets for pair in dataset.pairs]
    loss = functional.binary_cross_entropy_with_logits(torch.from_numpy(task_logits), torch.tensor(labels))
    logits = task_logits.mean(axis=-1)
    return np.stack([logits, -logits], axis=1).ravel(), {"loss": float(loss)}


READINGS = {
    "joint": Reading(PairDataset, BothOrders, BetterFirstSampler, None, _measured_in_both_orders),
    "separate": Reading(PromptDataset, CandidateRows, EpochLengthSampler, mean_over_pairs, _measured_by_encodings),
}


class PairRankerTrainer(LengthGroupedTrainer):
    """Trains a `PairRanker` on preference pairs with the multi-task binary cross-entropy of the paper (section 3.3).

    In training the better candidate is presented first in every other pair. `evaluate` and `predict` present each pair
    in both orders, a first and then b first, and report `ranker_metrics.pair_metrics` besides `compute_metrics`, which
    gets the logits of both orders, pair by pair; `last_logits` has them in two lists. Label smoothing draws the labels
    of training towards 0.5. The processor is saved with the model.

    A ranker that encodes each candidate by itself has no orders of presentation. An example is a prompt with all of its
    pairs, so `per_device_train_batch_size` counts prompts, `per_device_eval_batch_size` candidates, and the loss of a
    step is the mean over its pairs, with gradient accumulation and several processes too.

    Pairs are a `PairDataset`, or any iterable of `PreferencePair`, or of records in one of the formats of labelled
    data, such as a `datasets.Dataset` with `prompt`, `chosen` and `rejected`.

    Args:
        model: The ranker.
        args: How it is trained, a `PairRankerTrainingArguments`.
        train_dataset: Pairs to learn from.
        eval_dataset: Pairs to evaluate on, or a mapping of several by their names.
        processing_class: The ranker's processor.
        frozen: Layers whose computed states are read in place of running them; see `FrozenLayers.compute`.
        **kwargs: Other arguments of `transformers.Trainer`.

    Raises:
        InputError: If the processor is missing, a record can't be used, `batch_eval_metrics` is set, or one process
            would train a ranker with separate encodings on several GPUs.
        InputTypeError: If the pairs are of another type.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PairRankerProcessor | None = None,
        frozen: FrozenLayers | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise InputError("give the ranker's processor as processing_class=: it puts the pairs together")
        if args is not None and args.batch_eval_metrics:
            raise InputError("batch_eval_metrics=True is not supported: all pairs are measured together")
        self.processor = processing_class
        self.frozen = frozen
        self.last_logits: tuple[list[float], list[float]] = ([], [])
        shown = _model_of(model, kwargs.get("model_init"))
        self.reading = READINGS["joint" if shown is None else shown.config.candidate_encoding]
        self.sampler_class = self.reading.sampler
        if self.reading.loss is not None:
            if args is not None and args.n_gpu > 1:
                raise InputError(
                    f"one process can't train a ranker with separate encodings on {args.n_gpu} GPUs: start it with "
                    "`accelerate launch`, or show it one of them with CUDA_VISIBLE_DEVICES"
                )
            kwargs.setdefault("compute_loss_func", self.reading.loss)
        collator = kwargs.pop("data_collator", None) or self._collator(shown, args)
        super().__init__(
            model=model,
            args=args,
            train_dataset=None
            if train_dataset is None
            else self._batched(self._as_pairs(train_dataset), args, collator),
            eval_dataset=None if eval_dataset is None else self._all_as_pairs(eval_dataset),
            data_collator=collator,
            **kwargs,
        )
        self.label_names = ["labels"]
        self.label_smoother = None  # that of transformers is for classes
        self._own_metrics = self.compute_metrics
        # Not `self.processing_class`: transformers would write the tokenizer's special tokens over the encoder's.
        self.callback_handler.processing_class = processing_class

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss, as `transformers.Trainer.compute_loss` does, with labels smoothed in training."""
        inputs = dict(inputs)
        states = inputs.pop("states", None)
        if self.frozen is not None:
            self.frozen.states = states
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            inputs = {**inputs, "labels": inputs["labels"] * (1 - smoothing) + smoothing / 2}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate in both orders of presentation, as `transformers.Trainer.evaluate` does in one.

        A name is one of the mapping that the trainer was given as `eval_dataset`.

        Raises:
            InputError: If there is nothing to evaluate on.
        """
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        found = None if chosen is None else self._all_as_pairs(chosen)
        if isinstance(found, Mapping):
            parts = [self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}") for name, part in found.items()]
            return {key: value for part in parts for key, value in part.items()}
        if found is None or not len(found):
            raise InputError("there is nothing to evaluate on: give an eval_dataset")
        self.compute_metrics = lambda prediction: self._metrics(found, prediction)
        return super().evaluate(self.reading.evaluated(found), ignore_keys, metric_key_prefix)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Return loss, logits and labels of a batch; of single candidates their encodings and their numbers."""
        if self.reading.dataset is PairDataset:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if self.frozen is not None:
            self.frozen.states = None
        inputs = self._prepare_inputs(inputs)
        numbers = inputs.pop("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, model(**inputs)["encodings"].float(), numbers

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Return the logits of both orders of presentation, (2 * pairs,), and their metrics as `evaluate` does.

        Without orders, the second logit of a pair is the first, negated.

        Raises:
            InputError: If there are no pairs.
        """
        found = self._as_pairs(test_dataset)
        if not len(found):
            raise InputError("there is nothing to predict: give pairs as test_dataset")
        self.compute_metrics = lambda prediction: self._metrics(found, prediction)
        output = super().predict(self.reading.evaluated(found), ignore_keys, metric_key_prefix)
        logits, _ = self.reading.measured(found, output)
        return output._replace(predictions=logits, label_ids=_labels(found))

    def _metrics(self, dataset: Any, prediction: EvalPrediction) -> dict[str, float]:
        logits, found = self.reading.measured(dataset, prediction)
        self.last_logits = logits[0::2].tolist(), logits[1::2].tolist()
        found |= pair_metrics(dataset.pairs, *self.last_logits)
        if self._own_metrics is not None:
            found |= self._own_metrics(EvalPrediction(logits, _labels(dataset)))
        return found

    def _batched(self, dataset: Any, args: TrainingArguments | None, collator: Any) -> Any:
        """Return prompts in batches of as many tokens as the arguments say, or as they are."""
        most = getattr(args, "max_batch_tokens", None)
        if args is None or most is None:
            return dataset
        if not isinstance(dataset, PromptDataset) or not isinstance(collator, PromptCollator):
            raise InputError("max_batch_tokens is for candidate_encoding=separate; use per_device_train_batch_size")
        if most < 1 or args.per_device_train_batch_size != 1:
            raise InputError(
                f"max_batch_tokens={most} with per_device_train_batch_size={args.per_device_train_batch_size}: the "
                "former is a number of tokens above 0, of a batch; set the latter, then a number of these, to 1"
            )
        seed = args.seed if args.data_seed is None else args.data_seed
        return TokenBatches(dataset, most, collator.arrangement, seed)

    def _collator(self, model: Any, args: TrainingArguments | None) -> Any:
        if self.reading.dataset is PairDataset:
            return PairCollator(self.processor)
        if self.frozen is not None:
            return PromptCollator(self.processor, self.frozen.arrangement, frozen=self.frozen)
        checkpoints = any(getattr(args, f"{kind}_checkpointing", False) for kind in ("activation", "gradient"))
        return PromptCollator(self.processor, arrangement_of(model, checkpoints=checkpoints))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # newer releases call this in every process
            self.processor.save_pretrained(output_dir or self.args.output_dir)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the optimiser that the arguments name, with a learning rate of its own for the head."""
        before = self.optimizer
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = getattr(self.args, "head_learning_rate", None)
        if rate is not None and optimizer is not before:  # a second `train` keeps that of the first
            _split_off_head(optimizer, cast(torch.nn.Module, self.model), rate)
        return optimizer

    def _all_as_pairs(self, data: Any) -> Any:
        """Return pairs, or several by their names; a name is one of those that were given at first."""
        if isinstance(data, str):
            return cast(dict[str, Any], self.eval_dataset)[data]
        if isinstance(data, Mapping):
            return {name: self._as_pairs(part) for name, part in data.items()}
        return self._as_pairs(data)

    def _as_pairs(self, data: Any) -> PairDataset | PromptDataset:
        kind = self.reading.dataset
        return data if isinstance(data, kind) else kind(_pairs(data), self.processor)


def _pairs(data: Any) -> list[PreferencePair]:
    if isinstance(data, PairDataset | PromptDataset):
        return data.pairs
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        raise InputTypeError(
            f"pairs must be a list of PreferencePair or of records, not {type(data).__name__}; a file is read with "
            "training_pairs(read_labelled(path))"
        )
    rows = list(data)
    if all(isinstance(row, PreferencePair) for row in rows):
        return rows
    return list(training_pairs(read_labelled(rows)))


def _labels(dataset: PairDataset | PromptDataset) -> np.ndarray:
    """Return the labels of both orders of presentation, (2 * pairs, tasks)."""
    labels = np.array([pair.targets for pair in dataset.pairs], dtype=np.float32)
    return np.stack([labels, 1 - labels], axis=1).reshape(2 * len(labels), -1)


def _model_of(model: Any, model_init: Callable[..., Any] | None) -> Any:
    """Return a model, or one that `model_init` makes, which may take a trial, to see how it reads candidates."""
    if model is None and model_init is not None:
        return model_init(*[None] * len(signature(model_init).parameters))
    return model


def _split_off_head(optimizer: torch.optim.Optimizer, model: torch.nn.Module, rate: float) -> None:
    """Move the weights of the head to groups with their own learning rate and the other options of their groups."""
    head = {id(weight) for name, weight in model.named_parameters() if "head." in name}
    for group in list(optimizer.param_groups):
        own = [weight for weight in group["params"] if id(weight) in head]
        if own:
            group["params"] = [weight for weight in group["params"] if id(weight) not in head]
            optimizer.add_param_group({**group, "params": own, "lr": rate})
