"""Tokenising text from outside, which never becomes a special token."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class PlainTextEncoder:
    """Tokenises texts without adding special tokens and without reading any out of them.

    `split_special_tokens` alone is not enough: a full-width `［SEP］` is normalised (NFKC) to `[SEP]`, and a tokenizer
    that has its special tokens among its pieces, as SentencePiece has, then finds the special one.

    Args:
        tokenizer: A tokenizer of transformers.
        markers: More tokens that no text may become. `split_special_tokens` does not know those that were added without
            being called special, as `<|source|>` and the others of PairRM-hf were.
        token_ids: Ids that no text may become, where those are pieces like any other, as the sentinels of mT5 are.
    """

    def __init__(self, tokenizer: Any, markers: Sequence[str] = (), token_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special or token.content in markers}
        # What a tokenizer does not know is "unknown" in any text.
        self._special = {*special, *tokenizer.all_special_ids, *token_ids} - {tokenizer.unk_token_id}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, nothing cut."""
        if not texts:
            return []
        rows = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            truncation=False,
            verbose=False,  # what is too long is cut later, and said; the tokenizer's own warning is noise
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
