"""DeBERTa's disentangled self-attention (He et al., ICLR 2021, arXiv 2006.03654), fast and with the same result.

The score of query i and key j is (q_i k_j + q_i PK[b(i - j)] + k_j PQ[b(i - j)]) / scale, where b is the bucket of a
relative position. transformers takes b from a length x length matrix for every head of every sequence, and writes half
a dozen matrices of scores to memory. Here:

- The buckets of the 2 length - 1 relative positions are computed once per forward. The keys are in reverse order, a =
  length - 1 - j, so that the position is i + a - (length - 1) and the matrix of buckets is a view of those numbers.
- PK and PQ are projected only for the buckets that the length reaches.
- Scores are computed in blocks of heads and query rows that stay in the cache.
- Only keys are masked, in the small table of the position terms. What padding itself attends to is undefined
  (transformers: the mean of all values), since no real token reads it.
- Padding need not be there at all: see `Packed`.
- `states_at` computes the last layer only for the few states that are read.

While a model is traced or exported, and where attentions are requested, transformers' own attention runs; on a GPU in
half precision the kernel of flashdeberta, if it is installed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DebertaV2Model,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from .fast_kernels import attend_by_flash, attend_in_blocks, block_shape, fits_flash, flash_lengths, is_traced

Tables = tuple[torch.Tensor | None, torch.Tensor | None]


class RelativePositions(NamedTuple):
    """The buckets of a length, the same for all layers, heads and sequences.

    Args:
        buckets: (1, length, length), a view of 2 length - 1 numbers. At (i, a) the bucket of query i and key
            length - 1 - a, counted from the first in use. Or (batch, queries, length), a subset of its rows.
        used: Which rows of the embeddings are in use.
    """

    buckets: torch.Tensor
    used: slice

    def of(self, queries: torch.Tensor) -> "RelativePositions":
        """Return the positions of some queries of each sequence, whose indices are (batch, queries)."""
        return self._replace(buckets=self.buckets[0, queries])


class KeyMask(NamedTuple):
    """Which keys are tokens, the same for all layers and queries.

    Args:
        real: (batch, 1, 1, length). Zero for padding.
        lengths: (batch,), the number of tokens of each row, where flashdeberta can run.
        selected: (batch, n, 1), the indices of `query_states`, for a layer that computes only these states.
    """

    real: torch.Tensor
    lengths: torch.Tensor | None
    selected: torch.Tensor | None = None


class Group(NamedTuple):
    """Adjacent sequences of one length.

    Args:
        size: How many.
        length: Tokens of each.
        n_queries: Queries of each: its length, or fewer.
        positions: Its buckets, or None without relative attention.
    """

    size: int
    length: int
    n_queries: int
    positions: RelativePositions | None


class Packed(NamedTuple):
    """A batch without its padding: the tokens of all sequences in one row, the same for all layers.

    Args:
        groups: The sequences in the row.
        reverse: (tokens,). Indices that put each sequence in reverse order.
        used: Which rows of the position embeddings any group uses, or None without relative attention.
    """

    groups: tuple[Group, ...]
    reverse: torch.Tensor
    used: slice | None


class FastEncoder(DebertaV2Encoder):
    """Passes its layers the key mask and the buckets of a length instead of two length x length matrices."""

    def get_attention_mask(self, attention_mask: torch.Tensor) -> KeyMask | torch.Tensor:
        """Return the key mask of a (batch, length) mask, or transformers' own where its attention will run."""
        if attention_mask.dim() != 2:
            return super().get_attention_mask(attention_mask)
        real = attention_mask[:, None, None]
        return real if is_traced() else KeyMask(real, flash_lengths(attention_mask))

    def get_rel_pos(
        self,
        hidden_states: torch.Tensor,
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
    ) -> RelativePositions | torch.Tensor | None:
        """Return the buckets of the length, or transformers' own where its attention will run."""
        if is_traced() or relative_pos is not None or not self.relative_attention:
            return super().get_rel_pos(hidden_states, query_states, relative_pos)
        return self.positions_of(hidden_states.shape[1], hidden_states.device)

    def positions_of(self, length: int, device: torch.device) -> RelativePositions:
        """Return the buckets of a length."""
        positions = torch.arange(1 - length, length, device=device)
        if self.position_buckets > 0:
            positions = make_log_bucket_position(positions, self.position_buckets, self.max_relative_positions).long()
        n_rows = self.rel_embeddings.num_embeddings
        rows = (positions + n_rows // 2).clamp(0, n_rows - 1)
        # Not the rows of the first and the last position: with few positions and many buckets they are not monotonic.
        first, last = torch.stack(rows.aminmax()).tolist()
        return RelativePositions((rows - first).unfold(0, length, 1)[None], slice(first, last + 1))


class FastSelfAttention(DisentangledSelfAttention):
    """Disentangled self-attention in blocks; parameters and result are those of its parent."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: KeyMask | Packed | torch.Tensor,
        output_attentions: bool = False,
        query_states: torch.Tensor | None = None,
        relative_pos: RelativePositions | torch.Tensor | None = None,
        rel_embeddings: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (batch, length, hidden) to the shape of the queries.

        Args:
            hidden_states: (batch, length, hidden), the input of keys and values.
            attention_mask: From `FastEncoder.get_attention_mask`; or the layout of a packed row.
            output_attentions: Whether to return the attention too, as transformers computes it.
            query_states: (batch, queries, hidden), the input of queries, if not `hidden_states`.
            relative_pos: From `FastEncoder.get_rel_pos`. A packed row has its own.
            rel_embeddings: (buckets, hidden).

        Returns:
            The context, and the attention or None.
        """
        if output_attentions or isinstance(relative_pos, torch.Tensor) or isinstance(attention_mask, torch.Tensor):
            if isinstance(relative_pos, RelativePositions):
                relative_pos = None  # it computes its own
            mask = attention_mask.real if isinstance(attention_mask, KeyMask) else attention_mask
            return super().forward(hidden_states, mask, output_attentions, query_states, relative_pos, rel_embeddings)
        queried = hidden_states if query_states is None else query_states
        scale = (self.attention_head_size * (1 + sum(kind in self.pos_att_type for kind in ("c2p", "p2c")))) ** -0.5
        if isinstance(attention_mask, Packed):
            return self._in_groups(hidden_states, attention_mask, queried, rel_embeddings, scale), None
        if attention_mask.selected is not None:
            # An accelerator is fastest with all queries at once; what is skipped is the rest of the layer.
            context, _ = self.forward(
                hidden_states, attention_mask._replace(selected=None), False, None, relative_pos, rel_embeddings
            )
            return context.gather(1, attention_mask.selected.expand(-1, -1, context.shape[-1])), None
        lengths = attention_mask.lengths
        if lengths is not None and relative_pos is not None and self._fits_flash(hidden_states):
            return self._by_flash(hidden_states, lengths, queried, rel_embeddings, scale), None
        return self._in_blocks(hidden_states, attention_mask.real, queried, relative_pos, rel_embeddings, scale), None

    def _fits_flash(self, states: torch.Tensor) -> bool:
        # Never tested where buckets reach as far as positions, where its formula for buckets does not hold.
        tested = self.position_buckets // 2 < self.max_relative_positions
        return tested and fits_flash(states, self.attention_head_size)

    def _by_flash(
        self,
        hidden_states: torch.Tensor,
        lengths: torch.Tensor,
        queried: torch.Tensor,
        embeddings: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Attend by flashdeberta, which computes the buckets itself."""
        states = (self.query_proj(queried), self.key_proj(hidden_states), self.value_proj(hidden_states))
        heads = (state.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for state in states)
        tables = (None if table is None else table[None] for table in self._position_tables(embeddings, slice(None)))
        reach = {"buckets": self.position_buckets, "positions": self.max_relative_positions}
        context = attend_by_flash(*heads, lengths, *tables, scale=scale, **reach)
        return context.transpose(1, 2).flatten(2)

    def _in_blocks(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor,
        queried: torch.Tensor,
        positions: RelativePositions | None,
        embeddings: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        reverse = hidden_states.flip(1)
        rows = self.query_proj(queried) * scale, self.key_proj(reverse), self.value_proj(reverse)
        if positions is None:
            return self._attend(*rows, mask, None, (None, None))
        return self._attend(*rows, mask, positions.buckets, self._position_tables(embeddings, positions.used, scale))

    def _in_groups(
        self,
        hidden_states: torch.Tensor,
        packed: Packed,
        queried: torch.Tensor,
        embeddings: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Attend in a packed row: project all tokens at once, then attend one group at a time."""
        reverse = hidden_states[:, packed.reverse]
        tables = self._position_tables(embeddings, packed.used, scale)
        queries = (self.query_proj(queried) * scale)[0].split([group.size * group.n_queries for group in packed.groups])
        sizes = [group.size * group.length for group in packed.groups]
        keys, values = self.key_proj(reverse)[0].split(sizes), self.value_proj(reverse)[0].split(sizes)
        context = []
        for group, *rows in zip(packed.groups, queries, keys, values, strict=True):
            index, own = None, tables
            if group.positions is not None and packed.used is not None:
                index, used = group.positions.buckets, group.positions.used
                part = slice(used.start - packed.used.start, used.stop - packed.used.start)
                own = _each(tables, partial(_rows, part))
            states = [row.unflatten(0, (group.size, -1)) for row in rows]
            context.append(self._attend(states[0], states[1], states[2], None, index, own).flatten(0, 1))
        return torch.cat(context)[None]

    def _attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        index: torch.Tensor | None,
        tables: Tables,
    ) -> torch.Tensor:
        """Return the context, (batch, queries, hidden), of queries that are divided by the scale.

        Keys and values, (batch, length, hidden), are in reverse order; the mask, (batch, 1, 1, length), is zero for
        padding, or None without; the index is `RelativePositions.buckets`, and the tables have the buckets in use.
        """
        batch = len(queries)
        queries, keys, values = self._heads(queries), self._heads(keys), self._heads(values)
        bias = None if mask is None else self._key_bias(mask, keys)
        if batch > 1:
            tables = _each(tables, lambda table: table.repeat(batch, 1, 1))
        if index is not None:
            repeated = index if len(index) == 1 else index.repeat_interleave(self.num_attention_heads, dim=0)
            index = repeated.expand(len(queries), -1, -1)
        n_heads, n_rows = block_shape(
            queries, keys.shape[1], max(0 if table is None else table.shape[1] for table in tables)
        )
        context = []
        for start in range(0, len(queries), n_heads):
            block = slice(start, start + n_heads)
            heads = queries[block], keys[block], values[block], _part(bias, block)
            own = _part(tables[0], block), _part(tables[1], block), _part(index, block)
            context.append(attend_in_blocks(*heads, *own, n_rows, self.dropout))
        return torch.cat(context).unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        """Turn (batch, length, hidden) into (batch x heads, length, head size), each head in one piece."""
        return states.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()

    def _position_tables(self, embeddings: torch.Tensor | None, used: slice | None, scale: float = 1.0) -> Tables:
        """Return PK, and PQ times the scale, each (heads, buckets, head size) or None, of rows of (buckets, hidden)."""
        if used is None or embeddings is None:
            return None, None
        rows = self.pos_dropout(embeddings[used])[None]
        pos_keys = pos_queries = None
        if "c2p" in self.pos_att_type:
            pos_keys = self._heads((self.key_proj if self.share_att_key else self.pos_key_proj)(rows))
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            pos_queries = self._heads(project(rows) * scale)
        return pos_keys, pos_queries

    def _key_bias(self, mask: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return (batch x heads, length, 1): zero for tokens, and for padding lower than any token's score."""
        # Half of the range: the sum with a score must be finite, or a sequence of padding alone would give NaN.
        lowest = torch.finfo(keys.dtype).min / 2
        bias = keys.new_zeros(len(mask), 1, keys.shape[1], 1)
        bias = bias.masked_fill(~mask.bool().flip(-1).transpose(-1, -2), lowest)
        return bias.expand(-1, self.num_attention_heads, -1, -1).flatten(0, 1)


def _each(tables: Tables, change: Callable[[torch.Tensor], torch.Tensor]) -> Tables:
    keys, queries = tables
    return None if keys is None else change(keys), None if queries is None else change(queries)


def _rows(part: slice, table: torch.Tensor) -> torch.Tensor:
    return table[:, part]


def _part(tensor: torch.Tensor | None, block: slice) -> torch.Tensor | None:
    return None if tensor is None else tensor[block]


def use_fast_attention(model: DebertaV2Model) -> None:
    """Make the attention of a DeBERTa-v2 or v3 model fast; weights, their names and other layers stay unchanged."""
    # A change of class rather than new modules: parameters are neither recreated nor reinitialized.
    encoder: Any = model.encoder
    encoder.__class__ = FastEncoder
    for layer in encoder.layer:
        layer.attention.self.__class__ = FastSelfAttention


def uses_states_at(backbone: Any) -> bool:
    """Return whether `states_at` can run now: not while the model is traced, nor where gradients are wanted."""
    return not torch.is_grad_enabled() and not is_traced() and supports_states_at(backbone)


def supports_states_at(backbone: Any) -> bool:
    """Return whether `states_at` is for this encoder."""
    encoder = getattr(backbone, "encoder", None)
    # A convolution reads the neighbours of a token, which in a packed row may belong to another sequence.
    return isinstance(encoder, FastEncoder) and encoder.conv is None


def states_at(
    backbone: Any,
    selected: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return a few last hidden states of each sequence, equal to those of the whole encoder.

    The last layer computes only these states, from the keys and values of all; and on a CPU, where each token costs,
    padding is not computed. The indices are (batch, n), the last hidden states (batch, n, hidden), and the inputs
    those of a `DebertaV2Model`.
    """
    run = _states_of_packed if _packs(input_ids, attention_mask) else _states_of_padded
    return run(backbone, selected, input_ids, attention_mask, token_type_ids)


def _packs(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> bool:
    """Return whether the tokens can form one packed row: on a CPU, with padding on the right, and no row of padding."""
    if input_ids.device.type != "cpu":
        return False
    lengths = attention_mask.sum(dim=1, keepdim=True)
    return bool(lengths.all()) and torch.equal(attention_mask.bool(), torch.arange(input_ids.shape[1]) < lengths)


def _states_of_padded(
    backbone: Any,
    selected: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    encoder = backbone.encoder
    hidden = backbone.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, mask=attention_mask)
    mask, positions = encoder.get_attention_mask(attention_mask), encoder.get_rel_pos(hidden)
    indices = selected[:, :, None]
    same = {"relative_pos": positions, "rel_embeddings": encoder.get_rel_embedding()}
    for layer in encoder.layer[:-1]:
        hidden, _ = layer(hidden, mask, **same)
    queries = hidden.gather(1, indices.expand(-1, -1, hidden.shape[-1]))
    return encoder.layer[-1](hidden, mask._replace(selected=indices), query_states=queries, **same)[0]


def _states_of_packed(
    backbone: Any,
    selected: torch.Tensor,
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
    queries = hidden[:, (selected + (ends - lengths)[:, None]).flatten()]
    last = packed._replace(groups=_with_queries(groups, selected))
    states, _ = encoder.layer[-1](hidden, last, query_states=queries, rel_embeddings=embeddings)
    return states[0].unflatten(0, selected.shape)


def _used_by(groups: Sequence[Group]) -> slice | None:
    """Return which rows of the position embeddings any group uses, or None without relative attention."""
    used = [group.positions.used for group in groups if group.positions is not None]
    return slice(min(part.start for part in used), max(part.stop for part in used)) if used else None


def _groups_of(encoder: FastEncoder, lengths: Sequence[int]) -> tuple[Group, ...]:
    """Return the groups of a row of sequences of these lengths."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    known = {
        length: encoder.positions_of(length, torch.device("cpu")) if encoder.relative_attention else None
        for length in set(lengths)
    }
    return tuple(Group(size, length, length, known[length]) for length, size in runs)


def _with_queries(groups: tuple[Group, ...], selected: torch.Tensor) -> tuple[Group, ...]:
    """Return the groups with only the queries at some indices, (batch, n)."""
    parts = selected.split([group.size for group in groups])
    return tuple(
        group._replace(n_queries=part.shape[1], positions=group.positions and group.positions.of(part))
        for group, part in zip(groups, parts, strict=True)
    )
