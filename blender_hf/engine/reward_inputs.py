"""From prompts and candidates to the token ids that a reward model reads.

With a chat template the prompt and the candidate, as the assistant's last message, are written as the template says;
without one they are a pair of texts, as the tokenizer writes pairs. Text from outside never becomes a special token.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.modeling.tokenization import Message, PlainTextEncoder, n_positions

from .chat_templates import ChatTemplate
from .concurrency import lock_of
from .reward_parts import Part, RewardEncoding, assembled, pair_parts

# Where the text of message N will stand in a rendered template: characters for private use, which no template has.
SLOT = "\ue0b5{}\ue0b6"
SLOTS = re.compile("\ue0b5(\\d+)\ue0b6")


class RewardInputs:
    """Encodes items for a reward model.

    An input that is too long is cut as `assembled` does it, each text at the end that the tokenizer states.

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
            self._template = ChatTemplate(tokenizer)
            # What delimits messages stands around the user's too; <think> and the like are the assistant's to write.
            self._render([{"role": "user", "content": ""}], "the chat template")  # one that refuses this is named
            delimiters = self._template.delimiters()
            self._plain = PlainTextEncoder(tokenizer, delimiters)
            self._guarded = _guarded(tokenizer, delimiters)
        else:
            self._plain = PlainTextEncoder(tokenizer)
            self._pair = pair_parts(tokenizer)

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
        prompt = self._template.fitted(item.messages)
        chats = [(*prompt, {"role": "assistant", "content": text}) for text in item.texts]
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

    def _skeleton(self, chat: Sequence[Message], where: str) -> list[int]:
        """Return the special tokens that the template writes for these roles."""
        roles = tuple(message["role"] for message in chat)
        if roles not in self._skeletons:
            written = self._render([{"role": role, "content": SLOT.format(n)} for n, role in enumerate(roles)], where)
            ids = self._tokenizer(SLOTS.sub("x", written), add_special_tokens=False)["input_ids"]
            self._skeletons[roles] = [i for i in ids if i in self._guarded]
        return self._skeletons[roles]

    def _encode_by_parts(self, chat: Sequence[Message], where: str) -> RewardEncoding:
        """Encode template and texts apart, so that texts can be cut, and can't forge what belongs to the template."""
        # Only the inner text is held back: white space at its ends is the template's to keep or to strip.
        texts = [message["content"].strip() for message in chat]
        held = [
            {**message, "content": message["content"].replace(inner, SLOT.format(n))} if inner else message
            for n, (message, inner) in enumerate(zip(chat, texts, strict=True))
        ]
        pieces = SLOTS.split(self._render(held, where))
        return self._assemble(list(self._parts(pieces)), self._plain(texts), where)

    def _parts(self, pieces: Sequence[str]) -> Iterator[Part]:
        for fixed, slot in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            yield Part(tuple(self._tokenizer(fixed, add_special_tokens=False)["input_ids"]) if fixed else ())
            if slot is not None:
                yield Part(slot=int(slot))

    def _assemble(self, parts: Sequence[Part], texts: Sequence[Sequence[int]], where: str) -> RewardEncoding:
        try:
            return assembled(parts, texts, self._max_length, self._tokenizer.truncation_side)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None

    def _render(self, chat: Sequence[Message], where: str) -> str:
        try:
            return self._template.render(chat)
        # A template raises what it likes, mostly jinja2.TemplateError.
        except Exception as error:
            roles = ", ".join(message["role"] for message in chat)
            raise InputError(f"{where}: the ranker's chat template refuses messages of {roles}: {error}") from None


def reading_length(tokenizer: Any, config: Any) -> int:
    """Return how many tokens a model reads, by its tokenizer and its table of positions.

    Args:
        tokenizer: The tokenizer.
        config: The model's configuration.
    """
    return min(tokenizer.model_max_length, n_positions(config) or tokenizer.model_max_length)


def _guarded(tokenizer: Any, delimiters: Sequence[str]) -> set[int]:
    """Return the tokens that no text may become: the special ones, and those that the template is made of."""
    added = tokenizer.added_tokens_decoder.items()
    special = {token_id for token_id, token in added if token.special or token.content in delimiters}
    return (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
