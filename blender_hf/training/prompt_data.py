"""The training data of a ranker that encodes each candidate once: prompts with all of their pairs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.scorer import tokenised
from blender_hf.modeling import CandidateEncoding, PairRankerProcessor
from blender_hf.modeling.ranking_math import compare_encodings

from .frozen_layers import FrozenLayers


@dataclass(frozen=True)
class PromptExample:
    """A prompt with its pairs: the rows that these compare, and the labels of each pair."""

    rows: dict[int, CandidateEncoding]  # by their number in the data set
    pairs: list[tuple[int, int]]  # the rows of a and of b
    labels: list[tuple[float, ...]]  # one a task: the probability that a is better


class PromptDataset(Dataset):
    """Prompts as token ids, each with all of its pairs, so that each candidate is read once per step.

    A pair that is given twice counts twice.

    Args:
        pairs: The pairs, in any order.
        processor: The ranker's processor.
    """

    def __init__(self, pairs: Iterable[PreferencePair], processor: PairRankerProcessor) -> None:
        self.pairs = list(pairs)
        self.n_truncated = 0
        self.row_pairs: list[tuple[int, int]] = []
        ids = tokenised((text for pair in self.pairs for text in (pair.prompt, *pair.item.texts)), processor)
        # Candidates of a prompt that are the same tokens are one row.
        rows: dict[tuple[str, CandidateEncoding], int] = {}
        groups: dict[str, list[int]] = defaultdict(list)
        for number, pair in enumerate(self.pairs):
            first, second = (processor.encode_candidate(ids[pair.prompt], ids[text]) for text in pair.item.texts)
            self.n_truncated += any((first.truncated_source, first.truncated_candidate, second.truncated_candidate))
            a, b = (rows.setdefault((pair.prompt, row), len(rows)) for row in (first, second))
            self.row_pairs.append((a, b))
            groups[pair.prompt].append(number)
        self.rows = [row for _, row in rows]
        self._groups = list(groups.values())

    def lengths(self) -> list[int]:
        """Return the number of tokens of the longest row of each prompt."""
        return [max(len(self.rows[row]) for n in group for row in self.row_pairs[n]) for group in self._groups]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> PromptExample:
        group = self._groups[index]
        pairs = [self.row_pairs[number] for number in group]
        rows = {row: self.rows[row] for pair in pairs for row in pair}
        return PromptExample(rows, pairs, [self.pairs[number].targets for number in group])


class CandidateRows(Dataset):
    """The candidates of a `PromptDataset` one by one, for evaluation: the number of a row and the row.

    They are in the order of their lengths, so that little is spent on padding.
    """

    def __init__(self, dataset: PromptDataset) -> None:
        self.rows = dataset.rows
        self._order = sorted(range(len(self.rows)), key=lambda row: -len(self.rows[row]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, CandidateEncoding]:
        row = self._order[index]
        return row, self.rows[row]


class PromptCollator:
    """Batches prompts with their pairs, or single candidates for evaluation.

    Args:
        processor: The ranker's processor.
        shares_prompts: Whether prompts are read once for all of their candidates; else each row has its prompt.
        frozen: Layers whose states a batch of prompts carries, as `states`; each row has its prompt then.

    >>> from blender_hf.loading.checkpoints import locate
    >>> processor = PairRankerProcessor.from_pretrained(locate("pair-ranker-mini"))
    >>> pairs = [("2 + 2?", "4", "5", 1.0), ("Hi", "Hello there", "No", 0.75), ("2 + 2?", "four", "5", 0.9)]
    >>> dataset = PromptDataset((PreferencePair.of(*pair) for pair in pairs), processor)
    >>> batch = PromptCollator(processor, shares_prompts=True)([dataset[0], dataset[1]])
    >>> tuple(batch["input_ids"].shape), tuple(batch["prompt_ids"].shape), batch["prompt_index"].tolist()
    ((5, 5), (2, 7), [0, 0, 0, 1, 1])
    >>> batch["pairs"].tolist()
    [[0, 1], [2, 1], [3, 4]]
    """

    def __init__(
        self, processor: PairRankerProcessor, *, shares_prompts: bool, frozen: FrozenLayers | None = None
    ) -> None:
        self.processor = processor
        self.shares_prompts = shares_prompts and frozen is None
        self.frozen = frozen

    def __call__(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return a batch of tensors with a row a candidate."""
        if isinstance(examples[0], PromptExample):
            return self._prompts(examples)
        numbers, rows = zip(*examples, strict=True)
        return {**self._whole(rows), "labels": torch.tensor(numbers)}

    def _prompts(self, examples: Sequence[PromptExample]) -> dict[str, torch.Tensor]:
        rows = {number: row for example in examples for number, row in example.rows.items()}
        places = {number: place for place, number in enumerate(rows)}
        inputs = self._apart(examples) if self.shares_prompts else self._whole(list(rows.values()))
        if self.frozen is not None:
            inputs["states"] = self.frozen.states_of(list(rows.values()))
        return {
            **inputs,
            "pairs": torch.tensor([[places[row] for row in pair] for example in examples for pair in example.pairs]),
            "labels": torch.tensor([labels for example in examples for labels in example.labels]),
        }

    def _whole(self, rows: Sequence[CandidateEncoding]) -> dict[str, torch.Tensor]:
        return dict(self.processor.pad([row.input_ids for row in rows]))

    def _apart(self, examples: Sequence[PromptExample]) -> dict[str, torch.Tensor]:
        """Return the tensors of prompts and of candidates apart."""
        prompts = self.processor.pad([next(iter(example.rows.values())).prompt_ids for example in examples])
        candidates = self.processor.pad([row.candidate_ids for example in examples for row in example.rows.values()])
        index = [number for number, example in enumerate(examples) for _ in example.rows]
        return {
            **candidates,
            "prompt_ids": prompts["input_ids"],
            "prompt_mask": prompts["attention_mask"],
            "prompt_index": torch.tensor(index),
        }


def mean_over_pairs(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
    """Return the loss of `PairRanker.forward`, as the mean over all labels of a step, of its batches and processes.

    The signature is that of `compute_loss_func` of transformers.
    """
    logits = outputs["task_logits"]
    found = functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
    return found / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def task_logits_of(dataset: PromptDataset, encodings: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the logits of the pairs of a data set, (pairs, tasks), from the encodings of rows with these numbers."""
    of_rows = np.empty_like(encodings)
    of_rows[numbers] = encodings
    first, second = np.array(dataset.row_pairs).T
    return compare_encodings(of_rows[first], of_rows[second])
