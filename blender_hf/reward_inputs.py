"""From prompts and candidates to the token ids that a reward model reads.

With a chat template the prompt and the candidate, as the assistant's last message, are written as the template says;
without one they are a pair of texts, as the tokenizer writes pairs. Text from outside never becomes a special token.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .concurrency import lock_of
from .errors import CheckpointError, InputError
from .inputs import Item, Turn
from .modeling.plain_text import PlainTextEncoder

# Where the text of message N will stand in a rendered template: characters for private use, which no template has.
SLOT = "\ue0b5{}\ue0b6"
SLOTS = re.compile("\ue0b5(\\d+)\ue0b6")
# A letter that every tokenizer gives tokens of its own, to find what stands around it.
MARKER = "\u0394"
# Least room that must be left for the texts.
LEAST_ROOM = 16
# Models whose table of positions begins after the padding token.
POSITIONS_AFTER_PADDING = ("camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta")
NO_LIMIT = 10**9


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


class RewardInputs:
    """Encodes items for a reward model.

    An input that is too long is cut: the candidate keeps at least half of the room for text, the prompt the rest, and
    what one of them does not need is the other's. The oldest message of the prompt is cut first, each text at the end
    that the tokenizer states. So what is cut depends on the prompt and this candidate alone.

    Args:
        tokenizer: The tokenizer; left as it is.
        max_length: Most tokens of an input.

    Raises:
        CheckpointError: If the tokenizer can't be used.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._skeletons: dict[tuple[str, ...], list[int]] = {}
        if tokenizer.chat_template:
            template = self._render((("user", SLOT.format(0)), ("assistant", SLOT.format(1))), "the chat template")
            self._plain = PlainTextEncoder(tokenizer, _added_in(tokenizer, SLOTS.sub("", template)))
            self._guarded = _guarded(tokenizer, SLOTS.sub("", template))
        else:
            self._plain = PlainTextEncoder(tokenizer)
            self._pair = _pair_parts(tokenizer)

    def encode(self, items: Sequence[Item]) -> list[list[RewardEncoding]]:
        """Encode each candidate of each item with its prompt.

        Raises:
            InputError: If the chat template refuses a conversation or leaves no room for text.
        """
        with lock_of(self._tokenizer):
            if not self._tokenizer.chat_template:
                return [self._encode_pairs(item) for item in items]
            return [self._encode_chats(item) for item in items]

    def _encode_pairs(self, item: Item) -> list[RewardEncoding]:
        source, *candidates = self._plain([item.source, *item.texts])
        return [self._assemble(self._pair, [source, candidate], item.where) for candidate in candidates]

    def _encode_chats(self, item: Item) -> list[RewardEncoding]:
        chats = [(*_turns(item), ("assistant", text)) for text in item.texts]
        written = [self._render(chat, item.where) for chat in chats]
        ids = self._tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]
        expected = self._skeleton(chats[0], item.where)
        return [
            RewardEncoding(tuple(row)) if self._is_clean(row, expected) else self._encode_by_parts(chat, item.where)
            for chat, row in zip(chats, ids, strict=True)
        ]

    def _is_clean(self, ids: Sequence[int], expected: Sequence[int]) -> bool:
        """Tell whether an input fits, and has no special token but those of the template."""
        return len(ids) <= self._max_length and [i for i in ids if i in self._guarded] == expected

    def _skeleton(self, chat: Sequence[Turn], where: str) -> list[int]:
        """Return the special tokens that the template writes for these roles."""
        roles = tuple(role for role, _ in chat)
        if roles not in self._skeletons:
            written = self._render([(role, SLOT.format(n)) for n, role in enumerate(roles)], where)
            ids = self._tokenizer(SLOTS.sub("x", written), add_special_tokens=False)["input_ids"]
            self._skeletons[roles] = [i for i in ids if i in self._guarded]
        return self._skeletons[roles]

    def _encode_by_parts(self, chat: Sequence[Turn], where: str) -> RewardEncoding:
        """Encode template and texts apart, so that texts can be cut, and can't forge what belongs to the template."""
        # Only the inner text is held back: white space at its ends is the template's to keep or to strip.
        texts = [text.strip() for _, text in chat]
        held = [
            (role, text.replace(inner, SLOT.format(n)) if inner else text)
            for n, ((role, text), inner) in enumerate(zip(chat, texts, strict=True))
        ]
        pieces = SLOTS.split(self._render(held, where))
        return self._assemble(list(self._parts(pieces)), self._plain(texts), where)

    def _parts(self, pieces: Sequence[str]) -> Iterator[Part]:
        for fixed, slot in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            yield Part(tuple(self._tokenizer(fixed, add_special_tokens=False)["input_ids"]) if fixed else ())
            if slot is not None:
                yield Part(slot=int(slot))

    def _assemble(self, parts: Sequence[Part], texts: Sequence[Sequence[int]], where: str) -> RewardEncoding:
        """Put an input together from its parts; the last of the texts is the candidate."""
        room = self._max_length - sum(len(part.ids) for part in parts)
        if room < LEAST_ROOM:
            raise InputError(
                f"{where}: of the {self._max_length} tokens that the ranker reads, {room} are left for text"
            )
        kept, cut_prompt, cut_candidate = _cut(texts, room, self._tokenizer.truncation_side)
        filled = [(part.ids if part.slot is None else kept[part.slot], part.token_type) for part in parts]
        types = tuple(token_type for ids, token_type in filled for _ in ids if token_type is not None)
        return RewardEncoding(tuple(i for ids, _ in filled for i in ids), types, cut_prompt, cut_candidate)

    def _render(self, chat: Sequence[Turn], where: str) -> str:
        messages = [{"role": role, "content": text} for role, text in chat]
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False)
        # A template raises what it likes, mostly jinja2.TemplateError.
        except Exception as error:
            roles = ", ".join(role for role, _ in chat)
            raise InputError(f"{where}: the ranker's chat template refuses messages of {roles}: {error}") from None


def reading_length(tokenizer: Any, config: Any) -> int:
    """Return how many tokens a model reads, by its tokenizer and its table of positions.

    Args:
        tokenizer: The tokenizer.
        config: The model's configuration.
    """
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or NO_LIMIT
    if text.model_type in POSITIONS_AFTER_PADDING:
        positions -= (text.pad_token_id or 0) + 1
    return min(tokenizer.model_max_length, positions if positions > 0 else NO_LIMIT)


def _turns(item: Item) -> list[Turn]:
    """Return the conversation of an item; an instruction that is stated apart begins the user's first message."""
    if item.turns is None:
        return [("user", item.source)]
    if not item.instruction:
        return list(item.turns)
    first = next((n for n, (role, _) in enumerate(item.turns) if role == "user"), 0)
    role, text = item.turns[first]
    return [*item.turns[:first], (role, f"{item.instruction}\n{text}"), *item.turns[first + 1 :]]


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


def _pair_parts(tokenizer: Any) -> list[Part]:
    """Find what the tokenizer writes around and between the two texts of a pair, and the token types it gives them."""
    bare = tokenizer(MARKER, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(MARKER, MARKER)
    ids, types = encoded["input_ids"], encoded.get("token_type_ids")
    starts = [n for n in range(len(ids)) if bare and ids[n : n + len(bare)] == bare]
    if len(starts) < 2:
        raise CheckpointError("the ranker's tokenizer does not write a pair of texts as its texts alone are written")
    first, second = starts[0], starts[-1]
    ends = [(0, first, None), (first, first + len(bare), 0), (first + len(bare), second, None)]
    ends += [(second, second + len(bare), 1), (second + len(bare), len(ids), None)]
    parts = []
    for start, end, slot in ends:
        if slot is not None:
            parts.append(Part(slot=slot, token_type=types and types[start]))
            continue
        # Affixes may have several types, as the two [SEP] of BERT have.
        parts += [Part((ids[n],), token_type=types and types[n]) for n in range(start, end)]
    return parts


def _added_in(tokenizer: Any, text: str) -> list[str]:
    """Return the added tokens that a template is made of, special or not."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.content in text]


def _guarded(tokenizer: Any, template: str) -> set[int]:
    """Return the tokens that no text may become: the special ones, and those that the template is made of."""
    own = _added_in(tokenizer, template)
    added = tokenizer.added_tokens_decoder.items()
    special = {token_id for token_id, token in added if token.special or token.content in own}
    return (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
