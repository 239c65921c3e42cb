"""Batches of token ids of unequal length."""

from collections.abc import Sequence

import numpy as np
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
    # By way of numpy: torch is slow to read lists of numbers.
    ids = np.full((len(rows), max(map(len, rows), default=0)), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return BatchEncoding({"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)})
