"""The last hidden states of a DeBERTa at a few places of each sequence, without what these do not need.

The result is that of the whole encoder. But whoever reads three states of a sequence needs the last layer for these
alone, all the others being only its keys and values; and on a CPU, where each token costs, padding is not computed.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from .fast_deberta import FastEncoder, Group, Packed
from .fast_products import is_traced


def reads_places(backbone: Any) -> bool:
    """Tell whether `states_at` can run now: not while the model is traced, nor where gradients are wanted."""
    return not torch.is_grad_enabled() and not is_traced() and can_read_places(backbone)


def can_read_places(backbone: Any) -> bool:
    """Tell whether this is an encoder for `states_at`."""
    encoder = getattr(backbone, "encoder", None)
    # A convolution looks at the neighbours of a token, which in a row of several sequences may be another's.
    return isinstance(encoder, FastEncoder) and encoder.conv is None


def states_at(
    backbone: Any,
    places: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what an encoder says at some places of each sequence.

    Args:
        backbone: A `DebertaV2Model` for which `reads_places`.
        places: (batch, n). Which tokens are asked for.
        input_ids: (batch, length).
        attention_mask: (batch, length). Zero for padding.
        token_type_ids: (batch, length). For encoders that have segments.

    Returns:
        The last hidden states, (batch, n, hidden).
    """
    run = _states_of_packed if _packs(input_ids, attention_mask) else _states_of_padded
    return run(backbone, places, input_ids, attention_mask, token_type_ids)


def _packs(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> bool:
    """Tell whether the tokens can stand in one row: where each counts, if padding is on the right, and not all."""
    if input_ids.device.type != "cpu":
        return False
    lengths = attention_mask.sum(dim=1, keepdim=True)
    return bool(lengths.all()) and torch.equal(attention_mask.bool(), torch.arange(input_ids.shape[1]) < lengths)


def _states_of_padded(
    backbone: Any,
    places: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    encoder = backbone.encoder
    hidden = backbone.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, mask=attention_mask)
    mask, positions = encoder.get_attention_mask(attention_mask), encoder.get_rel_pos(hidden)
    asked = places[:, :, None]
    same = {"relative_pos": positions, "rel_embeddings": encoder.get_rel_embedding()}
    for layer in encoder.layer[:-1]:
        hidden, _ = layer(hidden, mask, **same)
    queries = hidden.gather(1, asked.expand(-1, -1, hidden.shape[-1]))
    return encoder.layer[-1](hidden, mask._replace(places=asked), query_states=queries, **same)[0]


def _states_of_packed(
    backbone: Any,
    places: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    encoder = backbone.encoder
    inside = torch.arange(input_ids.shape[1]).expand_as(input_ids)  # (batch, length)
    real, lengths = attention_mask.bool(), attention_mask.sum(dim=1)
    ends = lengths.cumsum(0)  # (batch,)
    hidden = backbone.embeddings(
        input_ids=input_ids[real][None],
        token_type_ids=None if token_type_ids is None else token_type_ids[real][None],
        position_ids=inside[real][None],
    )
    reverse = (ends[:, None] - 1 - inside)[real]  # (tokens,)
    groups = _groups_of(encoder, lengths.tolist())
    packed = Packed(groups, reverse, _used_by(groups))
    embeddings = encoder.get_rel_embedding()
    for layer in encoder.layer[:-1]:
        hidden, _ = layer(hidden, packed, rel_embeddings=embeddings)
    queries = hidden[:, (places + (ends - lengths)[:, None]).flatten()]
    last = packed._replace(groups=_at_places(groups, places))
    states, _ = encoder.layer[-1](hidden, last, query_states=queries, rel_embeddings=embeddings)
    return states[0].unflatten(0, places.shape)


def _used_by(groups: Sequence[Group]) -> slice | None:
    """Return which rows of the embeddings of positions any of the groups uses, or None without relative attention."""
    used = [group.positions.used for group in groups if group.positions is not None]
    return slice(min(part.start for part in used), max(part.stop for part in used)) if used else None


def _groups_of(encoder: FastEncoder, lengths: Sequence[int]) -> tuple[Group, ...]:
    """Return what a row of sequences of these lengths consists of."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    known = {
        length: encoder.positions_of(length, torch.device("cpu")) if encoder.relative_attention else None
        for length in set(lengths)
    }
    return tuple(Group(count, length, length, known[length]) for length, count in runs)


def _at_places(groups: tuple[Group, ...], places: torch.Tensor) -> tuple[Group, ...]:
    """Return the groups with the queries at some places (batch, n) alone."""
    parts = places.split([group.count for group in groups])
    return tuple(
        group._replace(n_queries=part.shape[1], positions=group.positions and group.positions.of(part))
        for group, part in zip(groups, parts, strict=True)
    )
