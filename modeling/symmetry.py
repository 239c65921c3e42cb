"""A ranker that can't prefer a place: what it says of (a, b) is exactly minus what it says of (b, a).

An encoder tells the candidate that is read first from the second by their positions and markers. Here both have the
same of either, and a token sees those of its own candidate better than those of the other by a fixed bias on the
attention. So swapping the candidates swaps their representations, up to rounding, and one order of presentation says
all: half the work, and no taste for a place to average out.
"""

from typing import Any

import torch

# Encoders whose positions are absolute, made of `embeddings` and an `encoder` that takes a mask of any shape.
SYMMETRIC_BACKBONES = ("bert", "roberta", "xlm-roberta")


def encode_symmetrically(
    backbone: Any, input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int], bias: float
) -> torch.Tensor:
    """Run an encoder so that neither candidate has a place of its own.

    Args:
        backbone: An encoder of one of `SYMMETRIC_BACKBONES`.
        input_ids: (batch, length). Pairs, padded on the right.
        real: (batch, length), boolean. Which tokens are no padding.
        markers: Ids of the tokens in front of the prompt and the two candidates.
        bias: What is added to the attention scores between tokens of different candidates.

    Returns:
        The last hidden states, (batch, length, hidden).

    Raises:
        ValueError: If the attention is one that takes no bias.
    """
    _check_attention(backbone.config)
    part, shift = _parts_of(input_ids, markers)
    # The first position that a token may have: RoBERTa counts from behind its padding.
    padding_index = backbone.embeddings.position_embeddings.padding_idx
    offset = 0 if padding_index is None else padding_index + 1
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]  # (1, length)
    hidden = backbone.embeddings(
        input_ids=torch.where(input_ids == markers[2], markers[1], input_ids),
        position_ids=places - (part == 2) * shift + offset,
    )
    across = part[:, :, None] * part[:, None, :] == 2  # (batch, length, length): one candidate's and the other's
    mask = torch.where(across, bias, 0.0).to(hidden.dtype)
    mask = mask.masked_fill(~real[:, None, :], torch.finfo(hidden.dtype).min)
    return backbone.encoder(hidden, attention_mask=mask[:, None]).last_hidden_state


def _check_attention(config: Any) -> None:
    """Refuse what can't add a number to each score: given such a mask, flex_attention ends the process."""
    chosen = getattr(config, "_attn_implementation", None)
    if chosen not in (None, "eager", "sdpa"):
        raise ValueError(
            f"a symmetric ranker adds a bias to its attention, which attn_implementation={chosen!r} can't; use 'sdpa'"
        )


def spans_of(input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int]) -> list[torch.Tensor]:
    """Return which tokens are those of the prompt and of each candidate, (batch, length) each.

    A part is taken from its marker on, without what the tokenizer puts before it.
    """
    part, _ = _parts_of(input_ids, markers)
    starts = _starts(input_ids, markers)
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    return [(part == k) & (places >= starts[k]) & real for k in range(3)]


def _parts_of(input_ids: torch.Tensor, markers: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the part that each token belongs to: 0 the prompt, 1 and 2 the candidates; and how far apart these start.

    A tokenizer that puts [CLS] before a text does so before each part, the prompt included; so the place of the first
    marker is the number of such tokens.
    """
    prefix, first, second = _starts(input_ids, markers)  # (batch, 1) each
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    part = (places >= first - prefix).int() + (places >= second - prefix).int()  # (batch, length)
    return part, second - first


def _starts(input_ids: torch.Tensor, markers: tuple[int, int, int]) -> list[torch.Tensor]:
    return [(input_ids == marker).int().argmax(dim=1, keepdim=True) for marker in markers]
