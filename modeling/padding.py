"""Batches of token ids of unequal length."""

from collections.abc import Sequence

import torch
from transformers import BatchEncoding


def pad_right(rows: Sequence[Sequence[int]], pad_token_id: int) -> BatchEncoding:
    """Return tensors `input_ids` and `attention_mask`, both (batch, length), padded on the right.

    Args:
        rows: Token ids; the longest row gives the length.
        pad_token_id: What stands after the end of a shorter row.

    Returns:
        The batch; `to(device)` moves it.
    """
    longest = max(map(len, rows), default=0)
    ids = [[*row, *[pad_token_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return BatchEncoding({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})
