"""The parts of a reward model's input: what is always there, and the places of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blender_hf.errors import CheckpointError
from blender_hf.modeling.tokenization import PROBE, affixes

# Least room, in tokens, that must be left for the texts.
LEAST_ROOM = 16


@dataclass(frozen=True)
class RewardEncoding:
    """A prompt with one candidate, as a reward model reads it.

    Args:
        input_ids: The token ids.
        token_type_ids: Which of the two texts each is of, where the tokenizer says so; empty elsewhere.
        truncated_prompt: How many tokens of the prompt were cut.
        truncated_candidate: How many tokens of the candidate were cut.
    """

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...] = ()
    truncated_prompt: int = 0
    truncated_candidate: int = 0

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the model reads of it."""
        return self.input_ids, self.token_type_ids

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Part:
    """A stretch of an input: token ids that are always there, or the place of a text.

    Args:
        ids: The fixed ids; empty for a place.
        slot: Which text stands here; None for fixed ids.
        token_type: The token type of all of it.
    """

    ids: tuple[int, ...] = ()
    slot: int | None = None
    token_type: int | None = None


def assembled(parts: Sequence[Part], texts: Sequence[Sequence[int]], max_length: int, side: str) -> RewardEncoding:
    """Put an input together; texts that are too long for it are cut.

    The candidate keeps at least half of the room for text, the prompt the rest, and what one of them does not need is
    the other's. The oldest text of the prompt is cut first. So what is cut depends on these texts alone.

    Args:
        parts: The parts of the input.
        texts: The token ids of its texts; the last is the candidate, the others are the prompt.
        max_length: Most tokens of the input.
        side: Which end of a text is cut, "left" or "right".

    Raises:
        ValueError: If the fixed parts leave no room for text.
    """
    room = max_length - sum(len(part.ids) for part in parts)
    if room < LEAST_ROOM:
        raise ValueError(f"of the {max_length} tokens that the ranker reads, {room} are left for text")
    kept, cut_prompt, cut_candidate = _cut(texts, room, side)
    filled = [(part.ids if part.slot is None else kept[part.slot], part.token_type) for part in parts]
    types = tuple(token_type for ids, token_type in filled for _ in ids if token_type is not None)
    return RewardEncoding(tuple(i for ids, _ in filled for i in ids), types, cut_prompt, cut_candidate)


def pair_parts(tokenizer: Any) -> list[Part]:
    """Find what a tokenizer writes around and between the two texts of a pair, and the token types it gives them.

    Raises:
        CheckpointError: If it writes texts otherwise in a pair than alone.
    """
    try:
        fixed = affixes(tokenizer, 2)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    encoded = tokenizer(PROBE, PROBE)
    types = encoded.get("token_type_ids")
    length = (len(encoded["input_ids"]) - sum(map(len, fixed))) // 2  # of each probe
    parts: list[Part] = []
    place = 0
    for slot, ids in enumerate(fixed):
        # Affixes may have several types, as the two [SEP] of BERT have.
        parts += [Part((token,), token_type=types and types[place + n]) for n, token in enumerate(ids)]
        place += len(ids)
        if slot < 2:
            parts.append(Part(slot=slot, token_type=types and types[place]))
            place += length
    return parts


def _cut(texts: Sequence[Sequence[int]], room: int, side: str) -> tuple[list[tuple[int, ...]], int, int]:
    """Cut texts so that they fit: the kept ids of each, and how many were cut of the prompt and of the candidate."""
    *prompt, candidate = texts
    length = sum(map(len, prompt))
    for_candidate = min(len(candidate), max(room - length, room // 2))
    cut_prompt = left = max(0, length - (room - for_candidate))
    kept = []
    for ids in prompt:
        cut = min(left, len(ids))
        left -= cut
        kept.append(_without(ids, cut, side))
    cut_candidate = len(candidate) - for_candidate
    return [*kept, _without(candidate, cut_candidate, side)], cut_prompt, cut_candidate


def _without(ids: Sequence[int], cut: int, side: str) -> tuple[int, ...]:
    return tuple(ids[cut:] if side == "left" else ids[: len(ids) - cut])
