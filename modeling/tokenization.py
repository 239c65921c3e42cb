"""From text to token ids: what the processors of both models, and other tokenizing code, share.

User text never becomes a special token, and a tokenizer does what its files state on transformers 4 and 5 alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

FILE_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# A string that any tokenizer encodes, to find what it adds around it.
PROBE = "a"
# Encoders whose table of absolute positions begins after the padding id.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "longformer",
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
    # Via numpy: torch is slow to convert lists of numbers.
    ids = np.full((len(rows), max(map(len, rows), default=0)), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
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


def load_tokenizer(where: Any, **hub: Any) -> Any:
    """Load a tokenizer, as `transformers.AutoTokenizer` does, with the normalization that its files state."""
    tokenizer = AutoTokenizer.from_pretrained(where, **hub)
    restore_normalizer(tokenizer, where, **hub)
    return tokenizer


def restore_normalizer(tokenizer: Any, where: Any, **hub: Any) -> None:
    """Give a SentencePiece tokenizer the normalization that its files state, where loading lost it.

    The table of DeBERTa (nmt_nfkc) turns "…" into "...", a full-width letter into a plain one, and a no-break space
    into a space. `DebertaV2Tokenizer` of transformers 5 (seen in 5.24) is built from the vocabulary alone, with NFC
    instead, even where tokenizer.json has the table; such characters become unknown tokens and the logits change.

    The tokenizer was just loaded from `where` with the options `hub`, and is changed in place.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    from_sentencepiece = str(tokenizer.vocab_files_names.get("vocab_file")).endswith(".model")
    if backend is None or not from_sentencepiece or _has_table(backend.normalizer):
        return
    if (path := _tokenizer_json(where, **hub)) is not None:
        backend.normalizer = Tokenizer.from_file(path).normalizer
    elif getattr(tokenizer, "vocab_file", None):
        backend.normalizer = _normalizer_from_model_file(tokenizer)


def restore_prefix_space(tokenizer: Any, where: Any, **hub: Any) -> None:
    """Let a byte-level tokenizer prepend a space to a text if its tokenizer.json says so.

    transformers 4 (seen in 4.57) overrules that file where tokenizer_config.json says nothing; 5 does not. The tokens,
    and so the fused texts, would differ. It is changed in place, so that both files agree when it is saved.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "add_prefix_space" in tokenizer.init_kwargs or not _is_byte_level(backend):
        return
    path = _tokenizer_json(where, **hub)
    stated = None if path is None else Tokenizer.from_file(path)
    if stated is not None and _is_byte_level(stated):
        backend.pre_tokenizer = stated.pre_tokenizer
        tokenizer.add_prefix_space = stated.pre_tokenizer.add_prefix_space
        tokenizer.init_kwargs["add_prefix_space"] = tokenizer.add_prefix_space


def _tokenizer_json(where: Any, **hub: Any) -> str | None:
    """Return the path of a checkpoint's tokenizer.json, or None if it has none."""
    options = {name: value for name, value in hub.items() if name in FILE_OPTIONS and value is not None}
    return cached_file(where, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **options)


def _has_table(normalizer: Normalizer | None) -> bool:
    return normalizer is not None and b'"Precompiled"' in normalizer.__getstate__()


def _normalizer_from_model_file(tokenizer: PreTrainedTokenizerBase) -> Normalizer:
    """Read the normalization from the SentencePiece model by the rules of transformers 4, which 5 still has."""
    # Here, not above: it is slow to import, and few need it.
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    converter = SLOW_TO_FAST_CONVERTERS[type(tokenizer).__name__](tokenizer)
    return converter.normalizer(converter.proto)


def _is_byte_level(backend: Tokenizer) -> bool:
    return isinstance(backend.pre_tokenizer, ByteLevel)
