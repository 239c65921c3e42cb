"""Each candidate read once, behind its prompt: what a ranker needs that compares encodings in place of pairs of texts.

Where no token of the prompt reads the candidate, the prompt is read once for all of its candidates: its keys and values
are computed once, and each candidate goes on from them. A causal model reads so by nature; an encoder of
`SHARING_ENCODERS` reads so if it is told to (`config.shared_prompt`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from .configuration_pair_ranker import PairRankerConfig, is_causal

# What releases of transformers call the keys and values of what was read before.
CACHE_NAMES = ("past_key_values", "cache")
# Of rows that are read together where padding costs: how much of them may be padding, from how many tokens on.
MAX_PADDING, MIN_TOKENS = 0.15, 512
# About how many weights of an encoder a checkpoint states.
SAMPLE_SIZE = 16


@dataclass
class PromptStates:
    """Prompts that were read, for their candidates to go on from."""

    parts: torch.Tensor  # (prompts, hidden), the representation of each
    real: torch.Tensor  # (prompts, length), boolean, which tokens are not padding
    # (prompts, heads, length, head size) of each layer
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens of each prompt, (prompts,)."""
        return self.real.sum(dim=1)


def shares_prompts(backbone: Any, config: PairRankerConfig) -> bool:
    """Return whether the prompts of a ranker that encodes each candidate once can be read apart from its candidates."""
    if not is_causal(config.backbone_config):
        return config.shared_prompt
    # The state of a recurrent model is no list of keys and values; and in training, checkpointing keeps no cache.
    if getattr(backbone, "_is_stateful", False) or "position_ids" not in signature(backbone.forward).parameters:
        return False
    return cache_name(backbone) is not None and not (backbone.training and backbone.is_gradient_checkpointing)


def require_masks(backbone: Any, what: str) -> None:
    """Raise ValueError if a backbone computes attention in a way that takes no mask of its own for each query."""
    chosen = getattr(backbone.config, "_attn_implementation", None)
    if chosen not in (None, "eager", "sdpa"):  # flex_attention would end the process
        raise ValueError(
            f"a {what} adds a bias to its attention, which attn_implementation={chosen!r} can't; use 'sdpa'"
        )


def groups_by_length(real: torch.Tensor) -> list[torch.Tensor]:
    """Group rows of similar length, the longest first; each group is the indices of its rows.

    A group of at least `MIN_TOKENS` ends where a row would make more than `MAX_PADDING` of it padding. `real` is (rows,
    length), False for padding.
    """
    lengths = real.sum(dim=1).tolist()
    groups: list[list[int]] = []
    n_tokens = 0
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        full = lengths[groups[-1][0]] * (len(groups[-1]) + 1) if groups else 0
        if not groups or (n_tokens >= MIN_TOKENS and n_tokens + lengths[row] < (1 - MAX_PADDING) * full):
            groups.append([])
            n_tokens = 0
        groups[-1].append(row)
        n_tokens += lengths[row]
    return [torch.tensor(group, device=real.device) for group in groups]


def sample_of(weights: Iterable[tuple[str, torch.Tensor]]) -> list[float]:
    """Return a few of an encoder's named weights: of its norms, as releases of transformers differ in the others.

    They are sorted, so neither names nor an order count. None are returned of weights that are not all here.
    """
    norms = [weight for name, weight in weights if name.endswith("weight") and weight.dim() == 1]
    if any(weight.is_meta or not weight.numel() for weight in norms):
        return []
    middles = sorted(weight.flatten()[weight.numel() // 2].item() for weight in norms)
    return middles[:: max(1, len(middles) // SAMPLE_SIZE)]


def is_sampled_from(sample: list[float], backbone: Any) -> bool:
    """Return whether a sample was taken from an encoder, in whichever precision that was saved or loaded since."""
    found = torch.tensor(sample_of(backbone.named_parameters()))
    stated, dtype = torch.tensor(sample), next(backbone.parameters()).dtype
    roundings = (stated.to(stored).to(dtype).float() for stored in (torch.float32, torch.float16, torch.bfloat16))
    return not found.numel() or any(torch.equal(rounded, found) for rounded in roundings)


def start_of(input_ids: torch.Tensor, marker: Any) -> torch.Tensor:
    """Return where the first of a marker stands in each row, (batch,)."""
    return torch.eq(input_ids, marker).int().argmax(dim=1)


def part_of(
    hidden: torch.Tensor, input_ids: torch.Tensor, span: torch.Tensor, marker: Any, pooling: str
) -> torch.Tensor:
    """Return the representation of one part of each row, (batch, hidden).

    Args:
        hidden: (batch, length, hidden). The last hidden states.
        input_ids: (batch, length). The tokens.
        span: (batch, length), boolean. The tokens of the part, from its marker on.
        marker: The special token in front of the part.
        pooling: As in `PairRankerConfig`.
    """
    if pooling == "mean":
        weights = span.to(hidden.dtype)
        return (hidden * weights[:, :, None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    places = torch.arange(span.shape[1], device=span.device)
    place = start_of(input_ids, marker) if pooling == "marker" else (span * places).argmax(dim=1)
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]


def read_rows(
    backbone: Any,
    config: PairRankerConfig,
    input_ids: torch.Tensor,
    real: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the representations of the prompts and of the candidates of whole rows, (batch, hidden) each."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    in_prompt, *spans = _parts_of_rows(config, input_ids, real, token_type_ids)
    if config.shared_prompt and not is_causal(config.backbone_config):
        require_masks(backbone, "ranker with shared prompts")
        hidden = backbone.embeddings(input_ids=input_ids, position_ids=places + _first_position(backbone))
        mask = (real & in_prompt)[:, None, :] | (real[:, None, :] & ~in_prompt[:, :, None])
        bias = torch.where(mask, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)
        hidden = backbone.encoder(hidden, attention_mask=bias[:, None]).last_hidden_state
    else:
        types = {} if token_type_ids is None or config.is_chat else {"token_type_ids": token_type_ids}
        hidden = backbone(input_ids, attention_mask=real.long(), return_dict=True, **types).last_hidden_state
    first, second = (
        part_of(hidden, input_ids, span, marker, config.pooling)
        for span, marker in zip(spans, config.markers, strict=False)
    )
    return first, second


def read_prompts(backbone: Any, config: PairRankerConfig, input_ids: torch.Tensor, real: torch.Tensor) -> PromptStates:
    """Read prompts, (prompts, length) padded on the right, for any number of candidates."""
    if is_causal(config.backbone_config):
        input_ids, real = _padded_left(input_ids, real)
        cache = DynamicCache()
        hidden = backbone(
            input_ids,
            attention_mask=real.long(),
            position_ids=(real.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
            return_dict=True,
            **{str(cache_name(backbone)): cache},
        ).last_hidden_state
        layers: list[Any] = cache.layers
        keys, values = [layer.keys for layer in layers], [layer.values for layer in layers]
    else:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
        hidden = backbone.embeddings(input_ids=input_ids, position_ids=places + _first_position(backbone))
        keys, values = [], []
        for layer in backbone.encoder.layer:
            key, value = _key_and_value(layer, hidden)
            hidden = _run_layer(layer, hidden, key, value, real)
            keys.append(key)
            values.append(value)
    source = config.markers[0]
    span = _span_from(source, input_ids, real)
    return PromptStates(part_of(hidden, input_ids, span, source, config.pooling), real, keys, values)


def read_candidates(
    backbone: Any,
    config: PairRankerConfig,
    prompts: PromptStates,
    input_ids: torch.Tensor,
    real: torch.Tensor,
    prompt_index: torch.Tensor,
) -> torch.Tensor:
    """Return the representations of candidates, (candidates, hidden), each read behind one of the prompts.

    Args:
        backbone: The encoder or decoder.
        config: The ranker's configuration.
        prompts: What `read_prompts` gave.
        input_ids: (candidates, length). The tokens of the candidates' parts, padded on the right.
        real: (candidates, length), boolean. Which of them are not padding.
        prompt_index: (candidates,). Which prompt each belongs to.
    """
    seen = torch.cat([prompts.real[prompt_index], real], dim=1)
    # Padding gets the position of the last token: behind a long prompt there may be no more than that.
    steps = (real.cumsum(dim=1) - 1).clamp(min=0)  # (candidates, length)
    places = prompts.lengths[prompt_index][:, None] + steps
    pasts = zip(prompts.keys, prompts.values, strict=True)
    if is_causal(config.backbone_config):
        cache = DynamicCache()
        for number, (key, value) in enumerate(pasts):
            cache.update(key[prompt_index], value[prompt_index], number)
        hidden = backbone(
            input_ids,
            attention_mask=seen.long(),
            position_ids=places,
            use_cache=True,
            return_dict=True,
            **{str(cache_name(backbone)): cache},
        ).last_hidden_state
    else:
        hidden = backbone.embeddings(input_ids=input_ids, position_ids=places + _first_position(backbone))
        for layer, (key, value) in zip(backbone.encoder.layer, pasts, strict=True):
            own = _key_and_value(layer, hidden)
            keys, values = (
                torch.cat([past[prompt_index], new], dim=2) for past, new in zip((key, value), own, strict=True)
            )
            hidden = _run_layer(layer, hidden, keys, values, seen)
    marker = config.markers[1]
    return part_of(hidden, input_ids, _span_from(marker, input_ids, real), marker, config.pooling)


def _parts_of_rows(
    config: PairRankerConfig, input_ids: torch.Tensor, real: torch.Tensor, token_type_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which tokens of whole rows are in front of the candidate, of the prompt, and of the candidate."""
    if config.is_chat:
        if token_type_ids is None:
            raise ValueError(
                "this ranker has no markers (layout='chat'): give token_type_ids, 0 for the prompt and 1 for the "
                "candidate, as its processor makes them"
            )
        in_prompt = token_type_ids == 0
        return in_prompt, in_prompt & real, ~in_prompt & real
    source, candidate = (start_of(input_ids, marker)[:, None] for marker in config.markers[:2])
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    # What a tokenizer puts before a text, such as [CLS], it puts before each part.
    in_prompt = places < candidate - source
    return in_prompt, in_prompt & (places >= source) & real, (places >= candidate) & real


def _span_from(marker: int | None, input_ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return which tokens of a part stand from its marker on; all, if it has none."""
    return real if marker is None else real & ((input_ids == marker).cumsum(dim=1) > 0)


def cache_name(backbone: Any) -> str | None:
    """Return what a model calls its cache of keys and values, or None if it has none."""
    return next((name for name in CACHE_NAMES if name in signature(backbone.forward).parameters), None)


def _first_position(backbone: Any) -> int:
    """Return the first position that a token may have: RoBERTa's begin after the padding id."""
    unused = backbone.embeddings.position_embeddings.padding_idx
    return 0 if unused is None else unused + 1


def _key_and_value(layer: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    attention = layer.attention.self
    return _heads(attention, attention.key(hidden)), _heads(attention, attention.value(hidden))


def _run_layer(
    layer: Any, hidden: torch.Tensor, key: torch.Tensor, value: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Run a layer of BERT on states that attend to given keys and values, `real` where these are no padding."""
    attention = layer.attention.self
    query = _heads(attention, attention.query(hidden))
    dropout = attention.dropout.p if attention.training else 0.0
    precision = query.dtype
    if torch.is_grad_enabled() and query.device.type == "cpu":
        # The backward pass in bfloat16 takes up to twice as long.
        query, key, value = query.float(), key.float(), value.float()
    context = functional.scaled_dot_product_attention(query, key, value, real[:, None, None, :], dropout).to(precision)
    return layer.feed_forward_chunk(layer.attention.output(context.transpose(1, 2).flatten(2), hidden))


def _heads(attention: Any, states: torch.Tensor) -> torch.Tensor:
    """Turn (batch, length, hidden) into (batch, heads, length, head size)."""
    return states.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)


def _padded_left(input_ids: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move padding to the left, so that what follows stands next to the last token."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :] - (~real).sum(dim=1, keepdim=True)
    return input_ids.gather(1, places.clamp(min=0)), places >= 0
