"""Baselines as pointwise rankers: the simplest rules, and those of the paper."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForMaskedLM, BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import MaskedLMOutput

from blender_hf.engine.model_state import evaluating
from blender_hf.engine.scorer import DEFAULT_BATCH_TOKENS, MAX_PADDING, BatchScorer, pack_by_tokens
from blender_hf.inputs import Item
from blender_hf.modeling.tokenization import pad_right

from .text_models import TextEncoder, load_with_tokenizer

MAX_TOKENS = 512
# Tokens of a batch of masked texts, whose logits have a column for each token of the vocabulary.
BATCH_TOKENS = 2048


class LengthRanker:
    """The rule that the longer answer is better: the score is the number of characters."""

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item."""
        return [tuple(float(len(text)) for text in item.texts) for item in items]


@dataclass(frozen=True)
class RandomRanker:
    """Random scores from a seeded hash, 0 to 1: always the same for the same candidate of the same prompt."""

    seed: int = 0

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item."""
        return [tuple(self._score(item.source, text) for text in item.texts) for item in items]

    def _score(self, source: str, text: str) -> float:
        return random.Random(f"{self.seed}\n{source}\n{text}").random()


class DualEncoder:
    """The cosine of the embeddings of prompt and candidate, as in SimCLS (Liu and Liu 2021, arXiv 2106.01890).

    An embedding is the mean of the last hidden states of a text, cut at 512 tokens or the encoder's limit.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.encode = TextEncoder(model, tokenizer, MAX_TOKENS)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "DualEncoder":
        """Load any encoder; the options are those of `text_models.load_with_tokenizer`."""
        return cls(*load_with_tokenizer(AutoModel, name, "encoder", **options))

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item, from -1 to 1."""
        texts = list(dict.fromkeys(text for item in items for text in (item.source, *item.texts)))
        vectors = dict(zip(texts, self._embed_all(texts), strict=True))
        return [tuple(float(vectors[item.source] @ vectors[text]) for text in item.texts) for item in items]

    def embed(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the embeddings of encoded texts, (texts, size), of length 1."""
        # A model that is wrapped for training has no `device`.
        batch = pad_right(rows, self.tokenizer.pad_token_id or 0).to(next(self.model.parameters()).device)
        states = self.model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        return normalize((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1), dim=-1)

    @torch.inference_mode()
    def _embed_all(self, texts: Sequence[str]) -> list[torch.Tensor]:
        rows = self.encode(texts)
        kind = next(self.model.parameters()).device.type
        limits = DEFAULT_BATCH_TOKENS.get(kind, 16384), MAX_PADDING.get(kind, 2048)
        found: dict[int, torch.Tensor] = {}
        with evaluating(self.model):
            for batch in pack_by_tokens([len(row) for row in rows], *limits):
                found |= zip(batch, self.embed([rows[index] for index in batch]).cpu(), strict=True)
        return [found[index] for index in range(len(rows))]


@dataclass(frozen=True)
class MaskedRow:
    """A text with one masked token."""

    ids: tuple[int, ...]
    place: int  # index of the mask
    target: int  # the token under it

    def __len__(self) -> int:
        return len(self.ids)


class _MaskedLikelihood(torch.nn.Module):
    """Returns the log-likelihood of the masked token of each row."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.device = model.device

    def forward(self, places: torch.Tensor, targets: torch.Tensor, **inputs: torch.Tensor) -> MaskedLMOutput:
        logits = self.model(**inputs).logits  # (batch, length, vocabulary)
        hidden = logits[torch.arange(len(places)), places].float().log_softmax(dim=-1)
        return MaskedLMOutput(logits=hidden.gather(1, targets[:, None]).squeeze(1))


class MlmScorer(BatchScorer[MaskedRow]):
    """MLM-Scoring (Salazar et al. 2020, arXiv 1910.14659): the mean log-likelihood of a candidate's masked tokens.

    The paper sums them to a pseudo-log-likelihood; the mean keeps short answers from winning by length. The prompt is
    not read, as in the paper.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(_MaskedLikelihood(model), max_batch_tokens=BATCH_TOKENS)
        self._tokenizer = tokenizer
        self._encode = TextEncoder(model, tokenizer, MAX_TOKENS)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "MlmScorer":
        """Load any masked language model; the options are those of `text_models.load_with_tokenizer`."""
        return cls(*load_with_tokenizer(AutoModelForMaskedLM, name, "masked language model", **options))

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item: 0 is certain, lower is less likely; an empty text scores as a guess."""
        texts = list(dict.fromkeys(text for item in items for text in item.texts))
        rows = self.masked_rows(texts)
        found = iter(self.logits([row for group in rows for row in group]))
        likelihoods = {text: [next(found) for _ in group] for text, group in zip(texts, rows, strict=True)}
        guess = -math.log(len(self._tokenizer))
        means = {text: fmean(values) if values else guess for text, values in likelihoods.items()}
        return [tuple(means[text] for text in item.texts) for item in items]

    def masked_rows(self, texts: Sequence[str]) -> list[list[MaskedRow]]:
        """Return each text once for each of its tokens, with that token masked."""
        before, after, mask = len(self._encode.before), len(self._encode.after), self._tokenizer.mask_token_id
        return [
            [MaskedRow((*ids[:k], mask, *ids[k + 1 :]), k, ids[k]) for k in range(before, len(ids) - after)]
            for ids in self._encode(texts)
        ]

    def pad(self, rows: Sequence[MaskedRow]) -> BatchEncoding:
        """Make a batch of tensors."""
        batch = pad_right([row.ids for row in rows], self._tokenizer.pad_token_id or 0)
        places, targets = zip(*((row.place, row.target) for row in rows), strict=True)
        return BatchEncoding({**batch, "places": torch.tensor(places), "targets": torch.tensor(targets)})
