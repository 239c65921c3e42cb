"""DeBERTa's disentangled self-attention (He et al., ICLR 2021, arXiv 2006.03654), fast and with the same result.

The score of query i and key j is (q_i k_j + q_i PK[b(i - j)] + k_j PQ[b(i - j)]) / scale, where b is the bucket of a
relative position. transformers takes b from a length x length matrix for every head of every sequence, and writes half
a dozen matrices of scores to memory. Here:

- The buckets of the 2 length - 1 relative positions are computed once a forward. The keys are in reverse order, a =
  length - 1 - j, so that the position is i + a - (length - 1) and the matrix of buckets is a view of those numbers.
- PK and PQ are projected only for the buckets that the length reaches.
- Scores are made in blocks of heads and query rows that stay in the cache.
- Only keys are masked, in the small table of the position terms. What padding itself attends to is left open
  (transformers: the mean of all values), since no real token reads it.
- Padding need not be there at all: see `Packed`.

While a model is traced or exported, and where attentions are asked for, transformers' own attention runs; on a GPU in
half precision the kernel of flashdeberta, if it is installed.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from .fast_products import heads_product, is_traced, multiplies_heads
from .flash_deberta import attend_by_kernel, fits, lengths_of

# Of one block of scores, for each thread: half of the second-level cache of a present-day core.
CACHED_BYTES = 2**19
# Backward fills a table for each block, so there should be few; and an accelerator wants much work at once.
LARGE_BYTES = 2**24


class RelativePositions(NamedTuple):
    """The buckets of a length, the same for all layers, heads and sequences.

    Args:
        index: (1, length, length), a view of 2 length - 1 numbers. At (i, a) the bucket of query i and key
            length - 1 - a, counted from the first in use. Or (batch, queries, length), some of its rows.
        used: Which rows of the embeddings are in use.
    """

    index: torch.Tensor
    used: slice

    def of(self, places: torch.Tensor) -> "RelativePositions":
        """Return the positions for the queries at some places of each sequence alone, (batch, queries)."""
        return self._replace(index=self.index[0, places])


class KeyMask(NamedTuple):
    """Which keys are tokens, the same for all layers and queries.

    Args:
        real: (batch, 1, 1, length). Zero for padding.
        lengths: (batch,), the number of tokens of each row, where the kernel of flashdeberta can run.
        places: (batch, n, 1), for a layer of which only these states are asked; it gets them as `query_states`.
    """

    real: torch.Tensor
    lengths: torch.Tensor | None
    places: torch.Tensor | None = None


class Group(NamedTuple):
    """Sequences of one length that stand side by side.

    Args:
        count: How many.
        length: Of each.
        n_queries: Of each: its length, or fewer.
        positions: Its buckets, or None without relative attention.
    """

    count: int
    length: int
    n_queries: int
    positions: RelativePositions | None


class Packed(NamedTuple):
    """A batch without its padding: the tokens of all sequences in one row, the same for all layers.

    Args:
        groups: What the row consists of.
        reverse: (tokens,). Where to find the tokens of each sequence, the last one first.
        used: Which rows of the embeddings of positions are in use by any group, or None.
    """

    groups: tuple[Group, ...]
    reverse: torch.Tensor
    used: slice | None


class FastEncoder(DebertaV2Encoder):
    """Gives its layers the mask of the keys and the buckets of a length instead of two length x length matrices."""

    def get_attention_mask(self, attention_mask: torch.Tensor) -> KeyMask | torch.Tensor:
        """Return what a (batch, length) mask says of keys, or what transformers does where its attention will run."""
        if attention_mask.dim() != 2:
            return super().get_attention_mask(attention_mask)
        real = attention_mask[:, None, None]
        return real if is_traced() else KeyMask(real, lengths_of(attention_mask))

    def get_rel_pos(
        self,
        hidden_states: torch.Tensor,
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
    ) -> RelativePositions | torch.Tensor | None:
        """Return the buckets of the length, or what transformers does where its attention will run."""
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
        # Not those of the first and the last position: with few positions and many buckets, rows do not grow with them.
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
            hidden_states: (batch, length, hidden), of which keys and values are made.
            attention_mask: What `FastEncoder.get_attention_mask` gives; or what says how a single row is packed.
            output_attentions: Whether to return the attention too, as transformers computes it.
            query_states: (batch, queries, hidden), of which queries are made, if not of `hidden_states`.
            relative_pos: What `FastEncoder.get_rel_pos` gives. A packed row has its own.
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
        if attention_mask.places is not None:
            # All at once is what an accelerator does best; what is left out are the layers behind.
            context, _ = self.forward(
                hidden_states, attention_mask._replace(places=None), False, None, relative_pos, rel_embeddings
            )
            return context.gather(1, attention_mask.places.expand(-1, -1, context.shape[-1])), None
        if self._kernel_runs(hidden_states, attention_mask, relative_pos):
            return self._by_kernel(hidden_states, attention_mask.lengths, queried, rel_embeddings, scale), None
        return self._in_blocks(hidden_states, attention_mask.real, queried, relative_pos, rel_embeddings, scale), None

    def _kernel_runs(self, states: torch.Tensor, mask: KeyMask, positions: RelativePositions | None) -> bool:
        if mask.lengths is None or positions is None:
            return False
        # It was never tried where buckets reach as far as positions, and the formula of buckets is none of distances.
        tried = self.position_buckets // 2 < self.max_relative_positions
        return tried and fits(states, self.attention_head_size)

    def _by_kernel(
        self,
        hidden_states: torch.Tensor,
        lengths: torch.Tensor,
        queried: torch.Tensor,
        embeddings: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Attend by the kernel of flashdeberta, which looks the buckets up by itself."""
        states = (self.query_proj(queried), self.key_proj(hidden_states), self.value_proj(hidden_states))
        heads = (state.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for state in states)
        tables = (None if table is None else table[None] for table in self._position_tables(embeddings))
        reach = {"buckets": self.position_buckets, "positions": self.max_relative_positions}
        context = attend_by_kernel(*heads, lengths, *tables, scale=scale, **reach)
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
        return self._attend(*rows, mask, positions.index, self._position_tables(embeddings[positions.used], scale))

    def _in_groups(
        self,
        hidden_states: torch.Tensor,
        packed: Packed,
        queried: torch.Tensor,
        embeddings: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Attend in a packed row: what looks at single tokens does so at all of them, the rest at a group at a time."""
        reverse = hidden_states[:, packed.reverse]
        tables = (None, None) if packed.used is None else self._position_tables(embeddings[packed.used], scale)
        queries = (self.query_proj(queried) * scale)[0].split(
            [group.count * group.n_queries for group in packed.groups]
        )
        sizes = [group.count * group.length for group in packed.groups]
        keys, values = self.key_proj(reverse)[0].split(sizes), self.value_proj(reverse)[0].split(sizes)
        context = []
        for group, *rows in zip(packed.groups, queries, keys, values, strict=True):
            index, own = None, tables
            if group.positions is not None:
                index, used = group.positions.index, group.positions.used
                part = slice(used.start - packed.used.start, used.stop - packed.used.start)
                own = tuple(None if table is None else table[:, part] for table in tables)
            states = (row.unflatten(0, (group.count, -1)) for row in rows)
            context.append(self._attend(*states, None, index, own).flatten(0, 1))
        return torch.cat(context)[None]

    def _attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        index: torch.Tensor | None,
        tables: tuple[torch.Tensor | None, torch.Tensor | None],
    ) -> torch.Tensor:
        """Return the context, (batch, queries, hidden), in blocks.

        Args:
            queries: (batch, queries, hidden), divided by the scale.
            keys: (batch, length, hidden), last key first.
            values: (batch, length, hidden), last value first.
            mask: (batch, 1, 1, length), zero for padding, or None if there is none.
            index: As that of `RelativePositions`, or None.
            tables: What `_position_tables` gives for the buckets in use.
        """
        batch = len(queries)
        queries, keys, values = self._heads(queries), self._heads(keys), self._heads(values)
        bias = None if mask is None else self._key_bias(mask, keys)
        if batch > 1:
            tables = tuple(None if table is None else table.repeat(batch, 1, 1) for table in tables)
        if index is not None:
            repeated = index if len(index) == 1 else index.repeat_interleave(self.num_attention_heads, dim=0)
            index = repeated.expand(len(queries), -1, -1)
        n_heads, n_rows = block_shape(
            queries, keys.shape[1], max(0 if table is None else table.shape[1] for table in tables)
        )
        context = []
        for start in range(0, len(queries), n_heads):
            tensors = (queries, keys, values, bias, *tables, index)
            block = [tensor if tensor is None else tensor[start : start + n_heads] for tensor in tensors]
            context.append(attend(*block, n_rows, self.dropout))
        return torch.cat(context).unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        """Turn (batch, length, hidden) into (batch x heads, length, head size), each head in one piece."""
        return states.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()

    def _position_tables(
        self, embeddings: torch.Tensor, scale: float = 1.0
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return PK, and PQ times the scale, each (heads, buckets, head size) or None, of (buckets, hidden)."""
        rows = self.pos_dropout(embeddings)[None]
        pos_keys = pos_queries = None
        if "c2p" in self.pos_att_type:
            pos_keys = self._heads((self.key_proj if self.share_att_key else self.pos_key_proj)(rows))
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            pos_queries = self._heads(project(rows) * scale)
        return pos_keys, pos_queries

    def _key_bias(self, mask: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return (batch x heads, length, 1): zero for tokens, and for padding what no score of a token outweighs."""
        # Half of the range: the sum with a score must be finite, or a sequence of padding alone would give NaN.
        lowest = torch.finfo(keys.dtype).min / 2
        bias = keys.new_zeros(len(mask), 1, keys.shape[1], 1)
        bias = bias.masked_fill(~mask.bool().flip(-1).transpose(-1, -2), lowest)
        return bias.expand(-1, self.num_attention_heads, -1, -1).flatten(0, 1)


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    pos_keys: torch.Tensor | None,
    pos_queries: torch.Tensor | None,
    index: torch.Tensor | None,
    n_rows: int,
    dropout: nn.Module,
) -> torch.Tensor:
    """Attend with a few heads, some query rows at a time.

    Args:
        queries: (heads, queries, head size), divided by the scale.
        keys: (heads, length, head size), last key first.
        values: (heads, length, head size), last value first.
        bias: (heads, length, 1), added to the scores of each key, or None.
        pos_keys: (heads, buckets, head size), which queries look at, or None.
        pos_queries: (heads, buckets, head size), divided by the scale, which keys are looked at by, or None.
        index: (heads, queries, length), the bucket for each query and key.
        n_rows: How many query rows at a time.
        dropout: For the probabilities.

    Returns:
        (heads, queries, head size).
    """
    keys_by_bucket = None if pos_queries is None else _product(keys, pos_queries, bias)
    context = []
    for start in range(0, queries.shape[1], n_rows):
        rows = slice(start, start + n_rows)
        scores = None if bias is None else bias.transpose(1, 2)  # (heads, 1, length)
        if keys_by_bucket is not None:
            of_keys = index[:, rows].transpose(1, 2)  # (heads, length, rows)
            scores = _lookup(keys_by_bucket, of_keys).transpose(1, 2)
        scores = _product(queries[:, rows], keys, scores)  # (heads, rows, length)
        if pos_keys is not None:
            scores += _lookup(_product(queries[:, rows], pos_keys), index[:, rows])
        context.append(_product(dropout(functional.softmax(scores, dim=-1)), values.transpose(1, 2)))
    return torch.cat(context, dim=1)


def _product(left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply each row of (heads, m, size) with each of (heads, n, size), and add to it what is given."""
    if multiplies_heads(left, right):
        return heads_product(left, right, added)
    right = right.transpose(1, 2)
    return torch.bmm(left, right) if added is None else torch.baddbmm(added, left, right)


def _lookup(scores: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return (heads, m, n), of (heads, m, buckets) what an index of that shape names."""
    if scores.requires_grad or scores.element_size() != 2:
        return scores.gather(2, index)
    # PyTorch copies an index twice to look up numbers of 16 bits, but not if they are integers.
    return scores.view(torch.int16).gather(2, index).view(scores.dtype)


def block_shape(queries: torch.Tensor, length: int, buckets: int) -> tuple[int, int]:
    """Say how many heads and how many query rows make a block of scores.

    Args:
        queries: (heads, queries, head size).
        length: How many keys there are.
        buckets: How many scores each key has with positions.
    """
    cached = queries.device.type == "cpu" and not queries.requires_grad
    n_scores = (CACHED_BYTES * torch.get_num_threads() if cached else LARGE_BYTES) // queries.element_size()
    # Fewer than 16 rows make a product of matrices slow.
    n_rows = min(queries.shape[1], max(16, n_scores // length))
    # With few queries it is the scores of the keys that fill the cache.
    return max(1, n_scores // (max(n_rows, min(length, buckets)) * length)), n_rows


def use_fast_attention(model: nn.Module) -> None:
    """Let a DeBERTa-v2 or v3 model attend fast; its weights, their names and its other layers stay as they are."""
    # A change of class rather than new modules: parameters are neither made again nor initialised again.
    model.encoder.__class__ = FastEncoder
    for layer in model.encoder.layer:
        layer.attention.self.__class__ = FastSelfAttention
