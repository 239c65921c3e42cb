"""BARTScore: how likely a sequence-to-sequence model writes the reference after the candidate (Yuan et al. 2021).

arXiv 2106.11520, equation 2, from hypothesis to reference, which is the direction of MixInstruct's scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, BatchEncoding
from transformers.modeling_outputs import SequenceClassifierOutput

from blender_hf.engine.scorer import BatchScorer
from blender_hf.evaluation.loading import frame_of, load_with_tokenizer, longest_input
from blender_hf.modeling.padding import pad_right
from blender_hf.modeling.plain_text import PlainTextEncoder

DEFAULT_MODEL = "facebook/bart-large-cnn"
MAX_TOKENS = 1024
# The logits of a batch have a column for each word of the vocabulary, so batches are small.
BATCH_TOKENS = 4096
IGNORED = -100


@dataclass(frozen=True)
class SourceAndTarget:
    """A text that is read and one that is to be written, as token ids."""

    source: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


class _MeanLikelihood(torch.nn.Module):
    """Gives the mean log-likelihood of the tokens of each target."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.device = model.device

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        logits = self.model(**inputs, labels=labels).logits.float()  # (batch, length, vocabulary)
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        return SequenceClassifierOutput(logits=-losses.sum(dim=1) / (labels != IGNORED).sum(dim=1))


class BartScore(BatchScorer[SourceAndTarget]):
    """Mean log-likelihood of the tokens of the reference, given the candidate.

    Args:
        model: Hub id or folder of a sequence-to-sequence model.
        max_batch_tokens: Most tokens of a batch, padding included.
        **options: Those of `loading.load_with_tokenizer`.

    Raises:
        CheckpointError: If the model can't be loaded.
    """

    def __init__(
        self, model: str | Path = DEFAULT_MODEL, *, max_batch_tokens: int = BATCH_TOKENS, **options: Any
    ) -> None:
        loaded, tokenizer = load_with_tokenizer(AutoModelForSeq2SeqLM, model, "model of BARTScore", **options)
        super().__init__(_MeanLikelihood(loaded), max_batch_tokens=max_batch_tokens)
        self.key = f"bartscore {model}"
        self._pad_token_id = tokenizer.pad_token_id
        self._plain = PlainTextEncoder(tokenizer)
        self._before, self._after = frame_of(tokenizer)
        self._room = longest_input(loaded, tokenizer, MAX_TOKENS) - len(self._before) - len(self._after)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference: 0 is certain, lower is less likely."""
        sources, targets = self._encode(candidates), self._encode(references)
        return self.logits([SourceAndTarget(*pair) for pair in zip(sources, targets, strict=True)])

    def pad(self, rows: Sequence[SourceAndTarget]) -> BatchEncoding:
        """Make a batch of tensors."""
        batch = pad_right([row.source for row in rows], self._pad_token_id)
        return BatchEncoding({**batch, "labels": pad_right([row.target for row in rows], IGNORED)["input_ids"]})

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(*self._before, *ids[: self._room], *self._after) for ids in self._plain(list(texts))]
