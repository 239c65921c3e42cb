"""From chat messages to the tokens of a local language model; text from outside never becomes a special token."""

import re
from collections.abc import Sequence
from typing import Any

from blender_hf.engine.chat_templates import ChatTemplate
from blender_hf.modeling.tokenization import Message, PlainTextEncoder, affixes, render_messages

# One of these characters, which have no meaning of their own, stands for special tokens within texts.
PRIVATE_USE = range(0xE000, 0xF900)


class PromptEncoder:
    """Turns conversations into the token ids that a model continues.

    A conversation goes through the chat template of the tokenizer. Without one it is text: that of the only message, or
    a line a turn (`USER: ...`) that ends with `ASSISTANT:`.

    Args:
        tokenizer: A tokenizer of transformers.
        answers_apart: Whether the model writes its answer apart from the prompt, as an encoder-decoder does.
    """

    def __init__(self, tokenizer: Any, *, answers_apart: bool = False) -> None:
        self._tokenizer = tokenizer
        self._answers_apart = answers_apart
        self._template = ChatTemplate(tokenizer)
        delimiters = self._template.delimiters() if tokenizer.chat_template else []
        self._encode_plain = PlainTextEncoder(tokenizer, delimiters)
        self._prefix, suffix = affixes(tokenizer)
        # A model that continues its prompt must not read an end there.
        self._suffix = suffix if answers_apart else []
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= {*tokenizer.all_special_tokens, *delimiters}
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def __call__(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        """Return the token ids of a conversation, nothing cut, and the text that they stand for."""
        if not self._tokenizer.chat_template:
            return self._plain(messages)
        messages = self._template.fitted(messages)
        forged: list[str] = []
        letters = {letter for message in messages for letter in message["content"]}
        mark = next(letter for letter in map(chr, PRIVATE_USE) if letter not in letters)

        def hide(found: re.Match[str]) -> str:
            forged.append(found[0])
            return f"{mark}{len(forged) - 1}{mark}"

        hidden = [{**message, "content": self._special.sub(hide, message["content"])} for message in messages]
        rendered = self._template.render(hidden, add_generation_prompt=True)
        return self._joined(rendered, forged, mark), rendered

    def _joined(self, rendered: str, forged: Sequence[str], mark: str) -> list[int]:
        """Tokenise a rendered conversation; what looks like a special token in a text is tokenised as letters."""
        if not forged:
            return self._template_ids(rendered)
        parts = re.split(f"{mark}([0-9]+){mark}", rendered)
        ids: list[int] = []
        for place, part in enumerate(parts):
            ids += self._encode_plain([forged[int(part)]])[0] if place % 2 else self._template_ids(part)
        return ids

    def _template_ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []

    def _plain(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        text = render_messages(messages)
        if len(messages) > 1 and not self._answers_apart:
            text += "\nASSISTANT:"
        return [*self._prefix, *self._encode_plain([text])[0], *self._suffix], text
