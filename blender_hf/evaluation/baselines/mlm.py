"""MLM-Scoring: how likely a masked language model finds a candidate (Salazar et al. 2020, arXiv 1910.14659)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, BatchEncoding
from transformers.modeling_outputs import MaskedLMOutput

from blender_hf.engine.scorer import BatchScorer
from blender_hf.evaluation.loading import frame_of, load_with_tokenizer, longest_input
from blender_hf.inputs import Item
from blender_hf.modeling.padding import pad_right
from blender_hf.modeling.plain_text import PlainTextEncoder

# As many tokens of a candidate are scored; each of them is a row of its own.
MAX_TOKENS = 512
# The logits of a batch have a column for each word of the vocabulary, so batches are small.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class MaskedRow:
    """A text with one masked token.

    Args:
        ids: The token ids, the mask among them.
        place: Where the mask is.
        target: The token that it hides.
    """

    ids: tuple[int, ...]
    place: int
    target: int

    def __len__(self) -> int:
        return len(self.ids)


class _HiddenToken(torch.nn.Module):
    """Gives the log-likelihood of the hidden token of each row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.device = model.device

    def forward(self, places: torch.Tensor, targets: torch.Tensor, **inputs: torch.Tensor) -> MaskedLMOutput:
        logits = self.model(**inputs).logits  # (batch, length, vocabulary)
        hidden = logits[torch.arange(len(places)), places].float().log_softmax(dim=-1)
        return MaskedLMOutput(logits=hidden.gather(1, targets[:, None]).squeeze(1))


class MlmScorer(BatchScorer[MaskedRow]):
    """A pointwise ranker without training: the mean log-likelihood of a candidate's tokens, each masked in turn.

    The sum of them is the pseudo-log-likelihood of the source; the mean is taken so that short answers do not win by
    being short. The prompt is not read, as in the paper.

    Args:
        model: A masked language model, on its device, in evaluation mode.
        tokenizer: Its tokenizer.
        max_batch_tokens: Most tokens of a batch, padding included.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_batch_tokens: int = BATCH_TOKENS) -> None:
        super().__init__(_HiddenToken(model), max_batch_tokens=max_batch_tokens)
        self._tokenizer = tokenizer
        self._plain = PlainTextEncoder(tokenizer)
        self._before, self._after = frame_of(tokenizer)
        self._room = longest_input(model, tokenizer, MAX_TOKENS) - len(self._before) - len(self._after)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "MlmScorer":
        """Load any masked language model; the options are those of `loading.load_with_tokenizer`."""
        return cls(*load_with_tokenizer(AutoModelForMaskedLM, name, "masked language model", **options))

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item: 0 is certain, lower is less likely; an empty text gets that of a guess."""
        texts = list(dict.fromkeys(text for item in items for text in item.texts))
        rows = [self._rows(ids[: self._room]) for ids in self._plain(texts)]
        found = iter(self.logits([row for group in rows for row in group]))
        likelihoods = {text: [next(found) for _ in group] for text, group in zip(texts, rows, strict=True)}
        guess = -math.log(len(self._tokenizer))
        means = {text: fmean(values) if values else guess for text, values in likelihoods.items()}
        return [tuple(means[text] for text in item.texts) for item in items]

    def pad(self, rows: Sequence[MaskedRow]) -> BatchEncoding:
        """Make a batch of tensors."""
        batch = pad_right([row.ids for row in rows], self._tokenizer.pad_token_id)
        places, targets = zip(*((row.place, row.target) for row in rows), strict=True)
        return BatchEncoding({**batch, "places": torch.tensor(places), "targets": torch.tensor(targets)})

    def _rows(self, ids: Sequence[int]) -> list[MaskedRow]:
        whole, first = (*self._before, *ids, *self._after), len(self._before)
        mask = self._tokenizer.mask_token_id
        return [
            MaskedRow((*whole[: first + k], mask, *whole[first + k + 1 :]), first + k, target)
            for k, target in enumerate(ids)
        ]
