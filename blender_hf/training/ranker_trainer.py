"""A `transformers.Trainer` for rankers: pairs in both orders of presentation, grouped by length."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments

from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError
from blender_hf.modeling import PairRankerProcessor

from .ranker_metrics import pair_metrics
from .sampling import EpochLengthSampler


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

    Args:
        pairs: The pairs.
        processor: The ranker's processor.
    """

    def __init__(self, pairs: Sequence[PreferencePair], processor: PairRankerProcessor) -> None:
        self.pairs = list(pairs)
        texts = list(dict.fromkeys(t for pair in pairs for t in (pair.prompt, pair.candidate_a, pair.candidate_b)))
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

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index]


class BothOrders(Dataset):
    """The presentations of a `PairDataset`, for evaluation: a first and then b first, pair by pair."""

    def __init__(self, dataset: PairDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 2 * len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.dataset[index // 2]
        if index % 2 == 0:
            return {"input_ids": example["input_ids"], "labels": example["labels"]}
        return {"input_ids": example["swapped_ids"], "labels": [1 - label for label in example["labels"]]}


class PairCollator:
    """Makes batches of pairs.

    In training the better candidate stands first in every other pair: by chance alone a small batch favours one place
    or the other, and most of its gradient goes into that. What has one order only is left in it.

    Args:
        processor: The ranker's processor.
    """

    def __init__(self, processor: PairRankerProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, both (batch, length), and `labels`, (batch, n_tasks)."""
        presented = [_presented(example, first=place % 2 == 0) for place, example in enumerate(examples)]
        batch = self.processor.pad([ids for ids, _ in presented])
        return {**batch, "labels": torch.tensor([labels for _, labels in presented])}


def _presented(example: dict[str, Any], *, first: bool) -> tuple[list[int], list[float]]:
    labels = example["labels"]
    a_is_better = sum(labels) >= len(labels) / 2
    if "swapped_ids" not in example or a_is_better == first:
        return example["input_ids"], labels
    return example["swapped_ids"], [1 - label for label in labels]


class PairRankerTrainer(Trainer):
    """Trains a `PairRanker` on preference pairs with the multi-task binary cross-entropy of the paper (section 3.3).

    `evaluate` presents each pair in both orders and reports what `ranker_metrics.pair_metrics` says; the logits of
    both, two lists, are then in `last_logits`.

    Args:
        model: The ranker.
        args: How it is trained.
        train_dataset: Pairs to learn from: a `PairDataset`, or a sequence of `PreferencePair`.
        eval_dataset: Pairs to evaluate on, in the same forms.
        processing_class: The ranker's processor.
        **kwargs: Other arguments of `transformers.Trainer`.

    Raises:
        InputError: If the processor is missing.
    """

    def __init__(
        self,
        model: Any = None,
        args: PairRankerTrainingArguments | None = None,
        train_dataset: PairDataset | Sequence[PreferencePair] | None = None,
        eval_dataset: PairDataset | Sequence[PreferencePair] | None = None,
        processing_class: PairRankerProcessor | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise InputError("give the ranker's processor as processing_class=: it puts the pairs together")
        if args is not None:
            args.remove_unused_columns = False  # the collator makes what the model takes
            _checkpoint_in_the_new_way(args)
        self.processor = processing_class
        self.last_logits: tuple[list[float], list[float]] = ([], [])
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._as_pairs(train_dataset),
            eval_dataset=self._as_pairs(eval_dataset),
            data_collator=kwargs.pop("data_collator", None) or PairCollator(processing_class),
            **kwargs,
        )
        self.label_names = ["labels"]

    def evaluate(
        self,
        eval_dataset: PairDataset | Sequence[PreferencePair] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate in both orders of presentation, as `transformers.Trainer.evaluate` does in one."""
        dataset = self._as_pairs(self.eval_dataset if eval_dataset is None else eval_dataset)
        if dataset is None:
            raise InputError("there is nothing to evaluate on: give an eval_dataset")
        self.compute_metrics = lambda prediction: self._metrics(dataset, prediction)
        return super().evaluate(BothOrders(dataset), ignore_keys, metric_key_prefix)

    def _metrics(self, dataset: PairDataset, prediction: EvalPrediction) -> dict[str, float]:
        self.last_logits = _both_orders(prediction)
        return pair_metrics(dataset.pairs, *self.last_logits)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the optimiser that the arguments name, with a rate of its own for the head."""
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = getattr(self.args, "head_learning_rate", None)
        if rate is not None:
            _split_off_head(optimizer, self.model, rate)
        return optimizer

    def _as_pairs(self, data: PairDataset | Sequence[PreferencePair] | None) -> PairDataset | None:
        return data if data is None or isinstance(data, PairDataset) else PairDataset(data, self.processor)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochLengthSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return EpochLengthSampler(self.args.train_batch_size, dataset.lengths(), self.args.seed)


def _checkpoint_in_the_new_way(args: TrainingArguments) -> None:
    """Let transformers 4 checkpoint as 5 does: its old way goes back twice through what DeBERTa's layers share."""
    if transformers.__version__.startswith("4.") and args.gradient_checkpointing:
        args.gradient_checkpointing_kwargs = {"use_reentrant": False, **(args.gradient_checkpointing_kwargs or {})}


def _both_orders(prediction: EvalPrediction) -> tuple[list[float], list[float]]:
    found = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return found[0::2].tolist(), found[1::2].tolist()


def _split_off_head(optimizer: torch.optim.Optimizer, model: torch.nn.Module, rate: float) -> None:
    """Move the weights of the head to groups with a rate of their own, the other options of their groups kept."""
    head = {id(weight) for name, weight in model.named_parameters() if "head." in name}
    for group in list(optimizer.param_groups):
        own = [weight for weight in group["params"] if id(weight) in head]
        if own:
            group["params"] = [weight for weight in group["params"] if id(weight) not in head]
            optimizer.add_param_group({**group, "params": own, "lr": rate})
