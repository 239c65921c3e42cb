"""From text to token ids: what the processors of both models, and other tokenizing code, share.

User text never becomes a special token.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, PretrainedConfig

from .tokenizer_files import PROBE

# Encoders whose table of absolute positions begins after the padding id.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
MPNET_PADDING = 1  # whatever its configuration states


class PlainTextEncoder:
    """Tokenizes text without adding special tokens and without parsing any from it.

    `split_special_tokens` alone is not enough: a full-width `［SEP］` is normalized (NFKC) to `[SEP]`, and a tokenizer
    whose special tokens are also ordinary pieces, as in SentencePiece, then finds the special one.

    Args:
        tokenizer: A tokenizer of transformers.
        markers: Further tokens that no text may become. `split_special_tokens` ignores those that were added without
            being declared special, such as `<|source|>` and the others of PairRM-hf.
        token_ids: Ids that no text may become, for tokens that are ordinary pieces, such as the sentinels of mT5.
    """

    def __init__(self, tokenizer: Any, markers: Sequence[str] = (), token_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special or token.content in markers}
        # Any text may contain what the tokenizer does not know.
        self._special = {*special, *tokenizer.all_special_ids, *token_ids} - {tokenizer.unk_token_id}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without truncation."""
        if not texts:
            return []
        rows = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            truncation=False,
            verbose=False,  # truncation happens, and is reported, later; the tokenizer's own warning is noise
        )["input_ids"]
        return [row if self._special.isdisjoint(row) else list(self._split_up(row)) for row in rows]

    def _split_up(self, ids: Sequence[int]) -> Iterator[int]:
        for token_id in ids:
            if token_id in self._special:
                yield from self._letters(self._tokenizer.convert_ids_to_tokens(token_id))
            else:
                yield token_id

    def _letters(self, token: str) -> Iterator[int]:
        for letter in token:
            ids = self._tokenizer(letter, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            yield from (token_id for token_id in ids if token_id not in self._special)


def pad_right(rows: Sequence[Sequence[int]], pad_token_id: int) -> BatchEncoding:
    """Return tensors `input_ids` and `attention_mask`, both (batch, length), of token ids padded on the right."""
    return _padded(rows, pad_token_id, [slice(0, len(row)) for row in rows])


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int) -> BatchEncoding:
    """Do as `pad_right`, with the padding on the left, for a decoder that continues its last token."""
    longest = max(map(len, rows), default=0)
    return _padded(rows, pad_token_id, [slice(longest - len(row), longest) for row in rows])


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int, places: Sequence[slice]) -> BatchEncoding:
    # Via numpy: torch is slow to convert lists of numbers.
    ids = np.full((len(rows), max(map(len, rows), default=0)), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        ids[index, place] = row
        mask[index, place] = 1
    return BatchEncoding({"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)})


def unknown_id(tokenizer: Any) -> int | None:
    """Return the id of what a tokenizer does not know; None if it has none, as GPT-2, which gives another token's."""
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


def unknown_in(text: str, ids: Sequence[int], unknown: int | None) -> int:
    """Return how many tokens of a text are unknown; a text of which the tokenizer leaves nothing counts as one."""
    if not ids:
        return int(bool(text.strip()))
    return 0 if unknown is None else ids.count(unknown)


def affixes(tokenizer: Any, n_texts: int = 1) -> tuple[list[int], ...]:
    """Return the ids that a tokenizer puts before, between and after texts, such as [CLS] and [SEP].

    That is (before, after) for one text, and (before, between, after) for a pair. It raises ValueError for a tokenizer
    that encodes a text differently with special tokens than without.
    """
    bare = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    rest = list(tokenizer(*[PROBE] * n_texts)["input_ids"])
    found = []
    for _ in range(n_texts):
        start = next((n for n in range(len(rest)) if bare and rest[n : n + len(bare)] == bare), None)
        if start is None:
            raise ValueError(f"the tokenizer encodes {PROBE!r} differently with special tokens than without")
        found.append(rest[:start])
        rest = rest[start + len(bare) :]
    return (*found, rest)


def n_positions(config: PretrainedConfig) -> int | None:
    """Return how many tokens a text model has positions for, or None if its configuration does not say."""
    text = config.get_text_config()
    stated = getattr(text, "max_position_embeddings", None)
    if stated is not None and text.model_type in POSITIONS_AFTER_PADDING:
        padding = MPNET_PADDING if text.model_type == "mpnet" else text.pad_token_id
        stated -= 0 if padding is None else padding + 1
    return stated if stated and stated > 0 else None
