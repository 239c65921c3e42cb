r"""The layouts of a ranker's rows: which tokens frame the prompt and a candidate, and what is cut of them.

`MarkerLayout` is that of PairRM, with a special token in front of each part. `ChatLayout` is the tokenizer's own chat
template, which a language model knows:

    <|im_start|>system\n...<|im_end|>\n<|im_start|>user\nprompt<|im_end|>\n<|im_start|>assistant\n
    candidate<|im_end|>
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from .chat_templates import ChatTemplate, PromptEncoder, end_of_answer
from .configuration_pair_ranker import SPECIAL_TOKENS, TOKEN_IDS
from .conversations import RENAMED_ROLES, Message, as_messages, render_prompt
from .tokenization import PlainTextEncoder, affixes

# Two texts of one token each, which show what a template writes around any text.
PROBES = ("a", "b")


@dataclass(frozen=True)
class Part:
    """The tokens of a part of a row: those of its text, which may be cut, and those that frame it."""

    before: tuple[int, ...]
    ids: Sequence[int]
    after: tuple[int, ...]

    def cut(self, budget: int, side: str) -> tuple[tuple[int, ...], int]:
        """Return at most `budget` tokens, and how many were cut: of the text, at that side.

        Where the text does not fit, what stands before it keeps half of the room at most, from its beginning.
        """
        room = budget - len(self.after)
        before = self.before[: max(room // 2, room - len(self.ids))]
        n_cut = max(0, len(self.ids) + len(before) - room)
        kept = self.ids[n_cut:] if side == "left" else self.ids[: len(self.ids) - n_cut]
        return (*before, *kept, *self.after), n_cut + len(self.before) - len(before)


class MarkerLayout:
    """A special token in front of each part; each part is as the tokenizer encodes it alone, with its own [CLS].

    Args:
        tokenizer: A tokenizer with the special tokens of `SPECIAL_TOKENS`.

    Raises:
        ValueError: If it lacks one of them.
    """

    has_types = False

    def __init__(self, tokenizer: Any) -> None:
        self._markers = [_special_id(tokenizer, token) for token in SPECIAL_TOKENS[:3]]
        self._prefix, self._suffix = map(tuple, affixes(tokenizer))
        self.encode_texts = PlainTextEncoder(tokenizer, SPECIAL_TOKENS)

    @property
    def token_ids(self) -> dict[str, int | None]:
        """The ids of the markers under their names in `PairRankerConfig`."""
        return dict(zip(TOKEN_IDS, self._markers, strict=True))

    def prompts(self, prompts: Sequence[Any]) -> list[Part]:
        """Return the parts of prompts, strings or conversations, whose text is read."""
        return [self.part(0, ids) for ids in self.encode_texts([render_prompt(prompt) for prompt in prompts])]

    def candidate(self, ids: Sequence[int]) -> Part:
        """Return the part of a candidate that is read by itself."""
        return self.part(1, ids)

    def part(self, number: int, ids: Sequence[int]) -> Part:
        """Return a part: 0 is the prompt, 1 the first candidate, 2 the second."""
        return Part((*self._prefix, self._markers[number]), ids, self._suffix)

    def check_lengths(self, max_source_length: int) -> None:
        """Check nothing: there is always room."""


class ChatLayout:
    """The conversation by the tokenizer's chat template, up to where the assistant answers, then the candidate.

    Special tokens in the texts are plain text. A string is one message of the user, and a system message that the
    template has by default stays. A candidate ends with the token that ends the assistant's turn.

    What is kept of a prompt that is cut: before it, what the template writes in front of the first turn, which is the
    system message with all that begins the text; where a template writes that message into the first turn, all up to
    that turn's own text. After it, what follows the text of the last turn: its end, and the header of the answer.

    Args:
        tokenizer: A tokenizer with a chat template.

    Raises:
        ValueError: If it has none, or one that refuses a message of the user, or no token ends an answer.
    """

    has_types = True

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                "layout='chat' reads prompts as the tokenizer's chat template writes them, and it has none: use the "
                "tokenizer of a chat model, or layout='markers'"
            )
        self._encode = PromptEncoder(tokenizer)
        self.encode_texts = PlainTextEncoder(tokenizer, ChatTemplate(tokenizer).delimiters())
        asked = [self._ids([_said("user", text)]) for text in PROBES]
        self._tail = _common(*(ids[::-1] for ids in asked))[::-1]
        self._turn = self._later_turn()
        self._default = self._in_front([])
        self._end = self._end_of_turn(tokenizer)

    @property
    def token_ids(self) -> dict[str, int | None]:
        """None for each of the markers, which this layout has not."""
        return dict.fromkeys(TOKEN_IDS)

    def prompts(self, prompts: Sequence[Any]) -> list[Part]:
        """Return the parts of prompts, strings or conversations; ValueError if the template refuses one."""
        return [self._prompt(as_messages(prompt)) for prompt in prompts]

    def candidate(self, ids: Sequence[int]) -> Part:
        """Return the part of a candidate."""
        return Part((), ids, (self._end,))

    def part(self, number: int, ids: Sequence[int]) -> Part:
        """Raise ValueError: no template has a place for two answers."""
        raise ValueError("this ranker reads each candidate by itself (layout='chat'): give one candidate a row")

    def check_lengths(self, max_source_length: int) -> None:
        """Raise ValueError if what follows a prompt leaves no room for it."""
        if max_source_length < len(self._tail) + 8:
            raise ValueError(
                f"max_source_length={max_source_length} leaves no room for text: the chat template writes "
                f"{len(self._tail)} tokens behind it; use {len(self._tail) + 8} or more"
            )

    def _prompt(self, messages: Sequence[Message]) -> Part:
        ids = self._ids(messages)
        system = [*takewhile(_is_system, messages)]
        before = _common(ids, self._in_front(system) if system else self._default)
        rest = ids[len(before) :]
        after = _common(rest[::-1], self._tail[::-1])[::-1]
        return Part(tuple(before), rest[: len(rest) - len(after)], tuple(after))

    def _in_front(self, system: Sequence[Message]) -> list[int]:
        """Return what the template writes before the first turn, behind these system messages."""
        first, other = (self._ids([*system, _said("user", text)]) for text in PROBES)
        if self._turn and first[-len(self._turn) :] == self._turn:
            return first[: -len(self._turn)]
        return _common(first, other)

    def _later_turn(self) -> list[int]:
        """Return the turn of a user and the header of the answer, as the template writes them after other turns."""
        answered = [_said("user", PROBES[0]), _said("assistant", PROBES[1])]
        try:
            begun = self._ids(answered, add_generation_prompt=False)
            whole = self._ids([*answered, answered[0]])
        except ValueError:
            return []
        return whole[len(begun) :] if whole[: len(begun)] == begun else []

    def _end_of_turn(self, tokenizer: Any) -> int:
        # A template that refuses answers raises what it likes.
        try:
            found = end_of_answer(tokenizer)
        except Exception:
            found = tokenizer.eos_token_id
        if found is None:
            raise ValueError(
                "no token ends an answer: neither does the chat template write one, nor has the tokenizer an "
                "eos_token; state one in tokenizer_config.json"
            )
        return int(found)

    def _ids(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        # A template raises what it likes, mostly jinja2.TemplateError.
        try:
            return self._encode(messages, add_generation_prompt=add_generation_prompt)[0]
        except Exception as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise ValueError(f"the ranker's chat template refuses messages of {roles}: {error}") from error


# By `PairRankerConfig.layout`.
LAYOUTS: dict[str, type[MarkerLayout | ChatLayout]] = {"markers": MarkerLayout, "chat": ChatLayout}


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def _is_system(message: Message) -> bool:
    return RENAMED_ROLES.get(message["role"], message["role"]) == "system"


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return what both begin with."""
    pairs: Iterable[tuple[int, int]] = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return [token_id for token_id, _ in pairs]


def _special_id(tokenizer: Any, token: str) -> int:
    token_id = tokenizer.get_vocab().get(token)
    if token_id is None:
        raise ValueError(f"the tokenizer lacks the special token {token}: this is not the tokenizer of a PairRanker")
    return int(token_id)
