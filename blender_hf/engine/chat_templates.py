"""Chat templates of tokenizers: which roles they take, and which tokens they are made of."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from blender_hf.modeling.conversations import Message, fold_system

# A character for private use, which no template has, in place of a message's text.
SLOT = "\ue0b5"


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: A tokenizer that has one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def fitted(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return a conversation in the roles of this template: without a system role, `fold_system` of it."""
        if messages[0]["role"] != "system" or self._has_system_role:
            return tuple(messages)
        return fold_system(messages)

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """Return a conversation as this template writes it; a template may raise anything."""
        return self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)

    def delimiters(self) -> list[str]:
        """Return the added tokens around a user's text; some tokenizers do not call them special."""
        around = self.render([{"role": "user", "content": SLOT}]).replace(SLOT, "")
        added = (token.content for token in self._tokenizer.added_tokens_decoder.values())
        # White space is none of them: Gemma has line breaks among its added tokens, and texts have them too.
        return [content for content in added if content.strip() and content in around]

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether a system message gets through: some templates refuse it, others leave it out."""
        system, user = {"role": "system", "content": SLOT}, {"role": "user", "content": "?"}
        # Templates of reward models may want an answer at the end.
        return any(self._shows([system, user, *end]) for end in ([], [{"role": "assistant", "content": "!"}]))

    def _shows(self, messages: Sequence[Message]) -> bool:
        try:
            return SLOT in self.render(messages)
        # A template raises what it likes, mostly jinja2.TemplateError.
        except Exception:
            return False
