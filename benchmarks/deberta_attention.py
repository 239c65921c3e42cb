"""Measure the fast attention of DeBERTa against that of transformers.

python -m benchmarks.deberta_attention             # a whole ranker, the shape of DeBERTa-v3-base cut to 2 layers
python -m benchmarks.deberta_attention --device cuda --batches 8 32   # on a GPU, with flashdeberta if installed
python -m benchmarks.deberta_attention --packing   # milliseconds per pair, by the size of the batch
python -m benchmarks.deberta_attention --flex      # one attention layer, with torch's flex_attention (needs a C++
                                                   # compiler on a CPU)
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import DebertaV2Model

from benchmarks.inputs import Shape
from benchmarks.judged import parser_of
from benchmarks.tables import Table, publish
from benchmarks.timing import in_ms, medians
from blender_hf import PairRanker, PairRankerConfig
from blender_hf.modeling import fast_kernels, modeling_pair_ranker
from blender_hf.modeling.fast_deberta import FastSelfAttention, RelativePositions
from blender_hf.modeling.fast_kernels import use_fast_products
from blender_hf.modeling.modeling_pair_ranker import PairRankerOutput

LENGTHS = (128, 512, 1024, 2048)
BATCHES = (1, 4)
PACKED = (1, 2, 4, 8, 16)
DTYPES = (torch.float32, torch.bfloat16)
VOCABULARY = 1000  # more would only take memory
MARKERS = (5, 6, 7)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes, for whole rankers")
    parser.add_argument("--device", default="cpu", help="of whole rankers")
    parser.add_argument("--packing", action="store_true", help="measure batches of several sizes, fast attention only")
    parser.add_argument("--flex", action="store_true", help="measure one attention layer, with flex_attention too")
    options = parser.parse_args()
    kind = "flex" if options.flex else "packing" if options.packing else ""
    with torch.inference_mode():
        columns, *rows = logged(MEASUREMENTS[kind](options))
    note = (
        f"torch {torch.__version__} on {machine(options.device)}; DeBERTa-v3-base's shape cut to {options.layers} "
        f"layers; medians of {options.turns} turns."
    )
    variant = [f"--{kind}"] if kind else []
    variant += [f"--device {options.device}"] if options.device != "cpu" else []
    publish(__file__, [Table(columns, rows), note], options, variant=" ".join(variant))


def logged(rows: Iterator[Any]) -> Iterator[Any]:
    """Log each row, for it takes minutes, and pass it on."""
    for row in rows:
        print(*row, sep="\t", file=sys.stderr, flush=True)
        yield row


def machine(device: str) -> str:
    return torch.cuda.get_device_name(device) if device != "cpu" else f"a CPU, {torch.get_num_threads()} threads"


SIZE = {"dtype": "", "tokens": "d"}


def measure_rankers(options: argparse.Namespace) -> Iterator[Any]:
    """Yield the columns and the rows for whole rankers that differ in their attention alone."""
    names = ["transformers", "ours", *(["with flashdeberta"] if has_kernel(options.device) else [])]
    columns = {**SIZE, "batch": "d", **{f"{name}, ms": "ms" for name in names}}
    columns |= dict.fromkeys(("speed-up", "speed-up with flashdeberta")[: len(names) - 1], ".2f")
    yield {**columns, "largest difference of a logit": ".0e"}
    for dtype in DTYPES:
        ours, own = (model.to(options.device) for model in build_rankers(options.layers, dtype))
        for length in options.lengths:
            for batch in options.batches:
                pairs = {name: tensor.to(options.device) for name, tensor in pair_inputs(length, batch).items()}
                calls = [partial(own, **pairs), partial(without_kernel, ours, pairs), partial(all_states, ours, pairs)]
                calls = calls[: len(names)]
                expected, *found = (call().logits.float() for call in calls)
                seconds = medians(calls, options.turns)
                difference = max((expected - logits).abs().max().item() for logits in found)
                speed_ups = [seconds[0] / own_seconds for own_seconds in seconds[1:]]
                yield [name_of(dtype), length, batch, *in_ms(seconds), *speed_ups, difference]


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def has_kernel(device: str) -> bool:
    return device != "cpu" and fast_kernels.flash_kernel() is not None


def without_kernel(model: PairRanker, pairs: dict[str, torch.Tensor]) -> PairRankerOutput:
    """Run a ranker as if flashdeberta were not installed."""
    with mock.patch.object(fast_kernels, "FLASH_DEVICE", "none"):
        return all_states(model, pairs)


def all_states(model: PairRanker, pairs: dict[str, torch.Tensor]) -> PairRankerOutput:
    """Run the whole last layer of a ranker, as transformers does, although the head reads three states."""
    with mock.patch.object(modeling_pair_ranker, "uses_states_at", return_value=False):
        return model(**pairs)


def measure_packing(options: argparse.Namespace) -> Iterator[Any]:
    """Yield the columns and the rows for the time per pair by the size of its batch."""
    yield {**SIZE, **{f"batch of {size}, ms a pair": "ms" for size in PACKED}}
    for dtype in DTYPES:
        ours, _ = build_rankers(options.layers, dtype)
        for length in options.lengths:
            batches = [pair_inputs(length, size) for size in PACKED if length * size <= 8192]
            seconds = medians([partial(ours, **inputs) for inputs in batches], options.turns)
            per_pair = [value / size for value, size in zip(seconds, PACKED, strict=False)]
            yield [name_of(dtype), length, *in_ms(per_pair), *["-"] * (len(PACKED) - len(batches))]


def measure_flex(options: argparse.Namespace) -> Iterator[Any]:
    """Yield the columns and the rows for one layer of attention, its projections included."""
    times = dict.fromkeys(("transformers, ms", "ours, ms", "flex_attention, ms"), "ms")
    yield {**SIZE, **times, "largest difference of flex": ".0e"}
    for dtype in DTYPES:
        ours, own = build_rankers(1, dtype)
        for length in options.lengths:
            kinds = ((own, None), (ours, None), (ours, FlexAttention))
            calls = [attention_call(model, length, kind) for model, kind in kinds]
            expected, _, found = (call() for call in calls)
            difference = (expected.float() - found.float()).abs().max().item()
            yield [name_of(dtype), length, *in_ms(medians(calls, options.turns)), difference]


MEASUREMENTS = {"": measure_rankers, "packing": measure_packing, "flex": measure_flex}


class FlexAttention(FastSelfAttention):
    """The same through torch's flex_attention, whose score function reads the small tables; without padding."""

    flex = staticmethod(torch.compile(flex_attention, dynamic=False))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        relative_pos: RelativePositions,
        rel_embeddings: torch.Tensor,
    ) -> tuple[torch.Tensor, None]:
        """Map (1, length, hidden) to the same shape."""
        scale = (3 * self.attention_head_size) ** -0.5
        length = hidden_states.shape[1]
        queries = self._heads(self.query_proj(hidden_states) * scale)[None]
        keys, values = (self._heads(project(hidden_states))[None] for project in (self.key_proj, self.value_proj))
        pos_keys, pos_queries = self._position_tables(rel_embeddings[relative_pos.used], scale)
        of_queries, of_keys = queries[0] @ pos_keys.transpose(1, 2), keys[0] @ pos_queries.transpose(1, 2)
        buckets = torch.cat([relative_pos.index[0], relative_pos.index[1:, -1]])

        def add_positions(score, _batch, head, query, key):
            bucket = buckets[query - key + length - 1]
            return score + of_queries[head, query, bucket] + of_keys[head, key, bucket]

        context = self.flex(queries, keys, values, score_mod=add_positions, scale=1.0)
        return context.transpose(1, 2).flatten(2), None


def attention_call(
    model: PairRanker, length: int, kind: type[FastSelfAttention] | None = None
) -> Callable[[], torch.Tensor]:
    """Return a call of the attention of the first layer on (1, length, hidden) random states."""
    encoder = model.backbone.encoder
    attention = encoder.layer[0].attention.self
    if kind is not None:
        attention = kind(model.backbone.config).to(model.dtype).eval()
        attention.load_state_dict(encoder.layer[0].attention.self.state_dict())
    states = torch.randn(1, length, model.backbone.config.hidden_size, generator=torch.Generator().manual_seed(0))
    states = states.to(model.dtype)
    mask = encoder.get_attention_mask(torch.ones(1, length))
    shared = {"relative_pos": encoder.get_rel_pos(states), "rel_embeddings": encoder.get_rel_embedding()}
    return lambda: attention(states, mask, **shared)[0]


def build_rankers(n_layers: int, dtype: torch.dtype) -> tuple[PairRanker, PairRanker]:
    """Return a ranker with our attention and one with transformers', of the same random weights."""
    torch.manual_seed(0)
    encoder = Shape("", n_layers, 768).config(VOCABULARY)
    markers = dict(zip(("source_token_id", "candidate1_token_id", "candidate2_token_id"), MARKERS, strict=True))
    ours, own = (PairRanker(PairRankerConfig(backbone_config=encoder, **markers)) for _ in range(2))
    own.backbone = DebertaV2Model(encoder)
    use_fast_products(own)  # so that the attention alone differs
    own.load_state_dict(ours.state_dict())
    return ours.to(dtype).eval(), own.to(dtype).eval()


def pair_inputs(length: int, batch: int) -> dict[str, torch.Tensor]:
    """Return random tokens with markers where a pair has them, the last tenth of the last pair padding."""
    ids = torch.randint(10, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(length))
    for third, marker in enumerate(MARKERS):
        ids[:, third * length // 3] = marker
    mask = torch.ones_like(ids)
    mask[-1, length - length // 10 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


if __name__ == "__main__":
    main()
