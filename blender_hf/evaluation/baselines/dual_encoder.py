"""A dual encoder as in SimCLS: how near a candidate lies to its prompt (Liu and Liu 2021, arXiv 2106.01890)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import AutoModel

from blender_hf.engine.scorer import DEFAULT_BATCH_TOKENS, MAX_PADDING, pack_by_tokens
from blender_hf.evaluation.loading import frame_of, load_with_tokenizer, longest_input
from blender_hf.inputs import Item
from blender_hf.modeling.padding import pad_right
from blender_hf.modeling.plain_text import PlainTextEncoder

MAX_TOKENS = 512


class DualEncoder:
    """A pointwise ranker: the cosine of the embedding of the prompt and that of the candidate.

    An embedding is the mean over the last hidden states of a text, cut at 512 tokens or what the encoder reads.

    Args:
        model: An encoder of transformers, on its device.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._plain = PlainTextEncoder(tokenizer)
        self._before, self._after = frame_of(tokenizer)
        self._room = longest_input(model, tokenizer, MAX_TOKENS) - len(self._before) - len(self._after)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "DualEncoder":
        """Load any encoder, trained by `simcls` or not; the options are those of `loading.load_with_tokenizer`."""
        return cls(*load_with_tokenizer(AutoModel, name, "encoder", **options))

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item, from -1 to 1."""
        texts = list(dict.fromkeys(text for item in items for text in (item.source, *item.texts)))
        vectors = dict(zip(texts, self._embed_all(texts), strict=True))
        return [tuple(float(vectors[item.source] @ vectors[text]) for text in item.texts) for item in items]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, cut and framed as the encoder reads them."""
        return [[*self._before, *ids[: self._room], *self._after] for ids in self._plain(texts)]

    def embed(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the embeddings of encoded texts, (texts, size), of length 1."""
        # Not `model.device`, which a model that is wrapped for training has not.
        batch = pad_right(rows, self.tokenizer.pad_token_id).to(next(self.model.parameters()).device)
        states = self.model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        return normalize((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1), dim=-1)

    @torch.inference_mode()
    def _embed_all(self, texts: Sequence[str]) -> list[torch.Tensor]:
        rows = self.encode(texts)
        kind = self.model.device.type
        limits = DEFAULT_BATCH_TOKENS.get(kind, 16384), MAX_PADDING.get(kind, 2048)
        found: dict[int, torch.Tensor] = {}
        for batch in pack_by_tokens([len(row) for row in rows], *limits):
            found |= zip(batch, self.embed([rows[index] for index in batch]).cpu(), strict=True)
        return [found[index] for index in range(len(rows))]
