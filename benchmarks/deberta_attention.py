"""Measures the fast attention of DeBERTa against transformers' own, and prints Markdown tables.

    python benchmarks/deberta_attention.py             # a whole ranker, the shape of DeBERTa-v3-base cut to 2 layers
    python benchmarks/deberta_attention.py --device cuda --batches 8 32   # on a GPU, with flashdeberta if it is there
    python benchmarks/deberta_attention.py --packing   # milliseconds a pair, by how many pairs share a batch
    python benchmarks/deberta_attention.py --flex      # one attention layer, with torch's flex_attention (needs a C++
                                                       # compiler on a CPU)

Old and new take turns in one process, and a figure is the median of the turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from cards import markdown_table, write_figures
from torch.nn.attention.flex_attention import flex_attention
from transformers import DebertaV2Config, DebertaV2Model

from blender_hf import PairRanker, PairRankerConfig
from blender_hf.modeling import flash_deberta, modeling_pair_ranker
from blender_hf.modeling.fast_deberta import FastSelfAttention, RelativePositions
from blender_hf.modeling.fast_products import use_fast_products
from blender_hf.modeling.modeling_pair_ranker import PairRankerOutput

SCRIPT = "benchmarks/deberta_attention.py"
LENGTHS = (128, 512, 1024, 2048)
BATCHES = (1, 4)
DTYPES = (torch.float32, torch.bfloat16)
VOCABULARY = 1000  # a table of more rows would only take memory
MARKERS = (5, 6, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes, for whole rankers")
    parser.add_argument("--device", default="cpu", help="where whole rankers run")
    parser.add_argument("--packing", action="store_true", help="measure batches of several sizes, fast attention only")
    parser.add_argument("--flex", action="store_true", help="measure one attention layer, with flex_attention too")
    parser.add_argument("--card", type=Path, help="document to write the table into")
    options = parser.parse_args()
    measure = measure_flex if options.flex else measure_packing if options.packing else measure_rankers
    with torch.inference_mode():
        header, *rows = shown(measure(options))
    note = (
        f"torch {torch.__version__} on {machine(options.device)}; DeBERTa-v3-base's shape cut to {options.layers} "
        f"layers; medians of {options.turns} turns."
    )
    print(f"\n{note}")
    if options.card:
        mark = SCRIPT if options.device == "cpu" else f"{SCRIPT} --device {options.device}"
        write_figures(options.card, mark, f"{markdown_table(header, rows)}\n\n{note}")


def shown(table: Iterator[list[str]]) -> Iterator[list[str]]:
    """Print a table line by line, for a measurement takes minutes, and pass it on."""
    header = next(table)
    print(markdown_table(header, []))
    yield header
    for row in table:
        print(markdown_table(header, [row]).splitlines()[-1], flush=True)
        yield row


def machine(device: str) -> str:
    return torch.cuda.get_device_name(device) if device != "cpu" else f"a CPU, {torch.get_num_threads()} threads"


def measure_rankers(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield a table of whole rankers that differ in their attention alone."""
    names = ["transformers", "ours", *(["with flashdeberta"] if has_kernel(options.device) else [])]
    yield [
        "dtype",
        "tokens",
        "batch",
        *(f"{name}, ms" for name in names),
        *("speed-up", "speed-up with flashdeberta")[: len(names) - 1],
        "largest difference of a logit",
    ]
    for dtype in DTYPES:
        ours, own = (model.to(options.device) for model in build_rankers(options.layers, dtype))
        for length in options.lengths:
            for batch in options.batches:
                pairs = {name: tensor.to(options.device) for name, tensor in pair_inputs(length, batch).items()}
                calls = [partial(own, **pairs), partial(without_kernel, ours, pairs), partial(all_states, ours, pairs)]
                calls = calls[: len(names)]
                expected, *found = (call().logits.float() for call in calls)
                seconds = medians(calls, options.turns)
                difference = max((expected - logits).abs().max() for logits in found)
                name = str(dtype).removeprefix("torch.")
                ratios = [ratio([seconds[0], own_seconds]) for own_seconds in seconds[1:]]
                yield [name, str(length), str(batch), *in_ms(seconds), *ratios, f"{difference:.0e}"]


def has_kernel(device: str) -> bool:
    return device != "cpu" and flash_deberta.kernel() is not None


def without_kernel(model: PairRanker, pairs: dict[str, torch.Tensor]) -> PairRankerOutput:
    """Run a ranker as if flashdeberta were not installed."""
    with mock.patch.object(flash_deberta, "DEVICE", "none"):
        return all_states(model, pairs)


def all_states(model: PairRanker, pairs: dict[str, torch.Tensor]) -> PairRankerOutput:
    """Run a ranker through its last layer whole, as its rival does, though it reads three states of it."""
    with mock.patch.object(modeling_pair_ranker, "reads_places", return_value=False):
        return model(**pairs)


def measure_packing(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield a table of the time a pair takes by the size of its batch."""
    sizes = (1, 2, 4, 8, 16)
    yield ["dtype", "tokens", *(f"batch of {size}, ms a pair" for size in sizes)]
    for dtype in DTYPES:
        ours, _ = build_rankers(options.layers, dtype)
        for length in options.lengths:
            batches = [pair_inputs(length, size) for size in sizes if length * size <= 8192]
            seconds = medians([partial(ours, **inputs) for inputs in batches], options.turns)
            per_pair = [value / size for value, size in zip(seconds, sizes, strict=False)]
            cells = in_ms(per_pair) + ["-"] * (len(sizes) - len(batches))
            yield [str(dtype).removeprefix("torch."), str(length), *cells]


def measure_flex(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield a table of one layer of attention, its projections included."""
    yield ["dtype", "tokens", "transformers, ms", "ours, ms", "flex_attention, ms", "largest difference of flex"]
    for dtype in DTYPES:
        ours, own = build_rankers(1, dtype)
        for length in options.lengths:
            calls = [
                attention_call(own, length),
                attention_call(ours, length),
                attention_call(ours, length, FlexAttention),
            ]
            expected, _, found = (call() for call in calls)
            seconds = medians(calls, options.turns)
            difference = (expected.float() - found.float()).abs().max()
            yield [str(dtype).removeprefix("torch."), str(length), *in_ms(seconds), f"{difference:.0e}"]


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
    encoder = DebertaV2Config(
        vocab_size=VOCABULARY,
        num_hidden_layers=n_layers,
        num_attention_heads=12,
        hidden_size=768,
        intermediate_size=3072,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )
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


def medians(calls: list[Callable[[], object]], turns: int) -> list[float]:
    """Return the median seconds of each call; they take turns, after one turn that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(turns + 1):
        for call, taken in zip(calls, seconds, strict=True):
            finish()
            start = time.perf_counter()
            call()
            finish()
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def finish() -> None:
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_ms(seconds: list[float]) -> list[str]:
    # A GPU takes a few milliseconds, of which parts count; a CPU may take thousands.
    return [f"{1000 * value:.3g}" if value < 0.1 else f"{1000 * value:.0f}" for value in seconds]


def ratio(seconds: list[float]) -> str:
    return f"{seconds[0] / seconds[1]:.2f}"


if __name__ == "__main__":
    main()
