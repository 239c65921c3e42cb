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
from blender_hf.engine.separate import ItemTokens
from blender_hf.modeling import CandidateEncoding, PairRankerProcessor
from blender_hf.modeling.ranking_math import compare_encodings

from .frozen_layers import FrozenLayers
from .prompt_rows import Arrangement, n_tokens, whole_rows

# Among so many prompts, those of similar length are batched.
SHUFFLED_TOGETHER = 400


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
        tokens = ItemTokens((pair.item for pair in self.pairs), processor)
        # Candidates of a prompt that are the same tokens are one row.
        rows: dict[tuple[str, CandidateEncoding], int] = {}
        # A conversation may have the text of another prompt, and be read differently.
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
        for number, pair in enumerate(self.pairs):
            first, second = tokens.rows(pair.item)
            self.n_truncated += any((first.truncated_source, first.truncated_candidate, second.truncated_candidate))
            a, b = (rows.setdefault((pair.prompt, row), len(rows)) for row in (first, second))
            self.row_pairs.append((a, b))
            groups[pair.prompt, first.prompt_ids].append(number)
        self.rows = [row for _, row in rows]
        self._groups = list(groups.values())

    def lengths(self) -> list[int]:
        """Return the number of tokens of the longest row of each prompt."""
        return [max(map(len, rows)) for rows in self._rows_of_groups()]

    def n_tokens(self, arrangement: Arrangement) -> list[int]:
        """Return how many tokens of each prompt and its candidates are read."""
        return [n_tokens(rows, arrangement) for rows in self._rows_of_groups()]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> PromptExample:
        group = self._groups[index]
        pairs = [self.row_pairs[number] for number in group]
        rows = {row: self.rows[row] for pair in pairs for row in pair}
        return PromptExample(rows, pairs, [self.pairs[number].targets for number in group])

    def _rows_of_groups(self) -> list[list[CandidateEncoding]]:
        places = ({row: None for n in group for row in self.row_pairs[n]} for group in self._groups)
        return [[self.rows[row] for row in rows] for rows in places]


class TokenBatches(Dataset):
    """The prompts of a `PromptDataset` in batches of at most some number of tokens; each example is a list of prompts.

    Prompts of similar length are batched; which ones depends on the seed alone, so that a resumed run has the same.

    Args:
        dataset: The prompts.
        max_tokens: How many tokens of prompts and candidates a batch has, if it is not one prompt that has more.
        arrangement: How they are put into rows.
        seed: Of the choice among similar prompts.
    """

    def __init__(self, dataset: PromptDataset, max_tokens: int, arrangement: Arrangement, seed: int) -> None:
        self.dataset = dataset
        self.pairs, self.n_truncated = dataset.pairs, dataset.n_truncated
        sizes = dataset.n_tokens(arrangement)
        order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
        self._batches: list[list[int]] = []
        self._sizes: list[int] = []
        for start in range(0, len(order), SHUFFLED_TOGETHER):
            self._batch(
                sorted(order[start : start + SHUFFLED_TOGETHER], key=lambda index: -sizes[index]), sizes, max_tokens
            )

    def _batch(self, order: Sequence[int], sizes: Sequence[int], max_tokens: int) -> None:
        width = 0  # of the longest prompt of the batch, to which the others are padded
        for index in order:
            if not width or (len(self._batches[-1]) + 1) * width > max_tokens:
                self._batches.append([])
                self._sizes.append(0)
                width = sizes[index]
            self._batches[-1].append(index)
            self._sizes[-1] += sizes[index]

    def lengths(self) -> list[int]:
        """Return the number of tokens of each batch."""
        return self._sizes

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[PromptExample]:
        return [self.dataset[number] for number in self._batches[index]]


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
        arrangement: How prompts and candidates are put into rows; single candidates are whole rows.
        frozen: Layers whose states a batch of prompts carries, as `states`.

    >>> from blender_hf.loading.checkpoints import locate
    >>> from blender_hf.training.prompt_rows import behind_prompts
    >>> processor = PairRankerProcessor.from_pretrained(locate("pair-ranker-mini"))
    >>> pairs = [("2 + 2?", "4", "5", 1.0), ("Hi", "Hello there", "No", 0.75), ("2 + 2?", "four", "5", 0.9)]
    >>> dataset = PromptDataset((PreferencePair.of(*pair) for pair in pairs), processor)
    >>> batch = PromptCollator(processor, behind_prompts)([dataset[0], dataset[1]])
    >>> tuple(batch["input_ids"].shape), tuple(batch["prompt_ids"].shape), batch["prompt_index"].tolist()
    ((5, 5), (2, 7), [0, 0, 0, 1, 1])
    >>> batch["pairs"].tolist()
    [[0, 1], [2, 1], [3, 4]]
    """

    def __init__(
        self, processor: PairRankerProcessor, arrangement: Arrangement, *, frozen: FrozenLayers | None = None
    ) -> None:
        self.processor = processor
        self.arrangement = arrangement
        self.frozen = frozen

    def __call__(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return a batch of tensors."""
        if isinstance(examples[0], list):
            examples = [example for batch in examples for example in batch]
        if isinstance(examples[0], PromptExample):
            return self._prompts(examples)
        numbers, rows = zip(*examples, strict=True)
        return {**whole_rows([rows], self.processor), "labels": torch.tensor(numbers)}

    def _prompts(self, examples: Sequence[PromptExample]) -> dict[str, torch.Tensor]:
        places = {number: place for place, number in enumerate(row for example in examples for row in example.rows)}
        groups = [list(example.rows.values()) for example in examples]
        inputs = self.arrangement(groups, self.processor)
        if self.frozen is not None:
            inputs["states"] = self.frozen.states_of(groups)
        return {
            **inputs,
            "pairs": torch.tensor([[places[row] for row in pair] for example in examples for pair in example.pairs]),
            "labels": torch.tensor([labels for example in examples for labels in example.labels]),
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
