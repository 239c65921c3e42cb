"""Chat templates of tokenizers: their roles, tool calls and tokens, and conversations as token ids."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from .conversations import Message, ToolCall, Turn, fold_system, render_turns, turns
from .tokenization import PlainTextEncoder, affixes

# A character for private use, which no template has, in place of a message's text.
SLOT = "\ue0b5"
# One of these characters, which have no meaning of their own, stands for special tokens within texts.
PRIVATE_USE = range(0xE000, 0xF900)
# What is in no id of a call and no name of a tool.
NOT_OF_IDS = re.compile(r"[^\w.:-]")


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: A tokenizer that has one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._carried: dict[str, bool] = {}

    def fitted(self, messages: Sequence[Message], *, texts_alone: bool = False) -> tuple[Message, ...]:
        """Return a conversation as this template takes it, with strings as contents.

        Without a system role it is `fold_system` of it. Tool calls and the results of tools are left to the template
        if it writes them; otherwise the calls stand in the content, as in `render_messages`, and, if there is no role
        for tools either, their results are messages of the user.

        Args:
            messages: The conversation, as `as_messages` returns it.
            texts_alone: Whether all that is said must be in the contents.
        """
        said = turns(messages)
        if not any(turn.calls or turn.role == "tool" for turn in said):
            return self._with_system([turn.plain for turn in said])
        native = [] if texts_alone or not all(map(_is_callable, said)) else [_native]
        for form in (*native, _written):
            found = self._with_system([form(turn) for turn in said])
            if self._carries(found):
                return found
        return self._with_system(_by_two([_by_user(turn) for turn in said]))

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """Return a conversation as this template writes it; a template may raise anything."""
        return self._rendered([*map(_in_parts, messages)] if self._reads_parts else messages, **options)

    def delimiters(self) -> list[str]:
        """Return the added tokens around a user's text; some tokenizers do not call them special."""
        around = self.render([{"role": "user", "content": SLOT}]).replace(SLOT, "")
        added = (token.content for token in self._tokenizer.added_tokens_decoder.values())
        # White space is none of them: Gemma has line breaks among its added tokens, and texts have them too.
        return [content for content in added if content.strip() and content in around]

    def _with_system(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        if messages[0]["role"] != "system" or self._has_system_role:
            return tuple(messages)
        return fold_system(messages)

    def _rendered(self, messages: Sequence[Message], **options: Any) -> str:
        return self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)

    @cached_property
    def _reads_parts(self) -> bool:
        """Whether a content must be a list of parts: templates for pictures may leave a string out."""
        user = {"role": "user", "content": SLOT}
        # Templates of reward models may want an answer at the end.
        talks = ([user], [user, {"role": "assistant", "content": "!"}])
        if any(SLOT in _attempt(self._rendered, talk) for talk in talks):
            return False
        return any(SLOT in _attempt(self._rendered, [*map(_in_parts, talk)]) for talk in talks)

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether a system message gets through: some templates refuse it, others leave it out."""
        system, user = {"role": "system", "content": SLOT}, {"role": "user", "content": "?"}
        # Templates of reward models may want an answer at the end.
        return any(self._shows([system, user, *end], [SLOT]) for end in ([], [{"role": "assistant", "content": "!"}]))

    def _carries(self, messages: Sequence[Message]) -> bool:
        """Return whether every text of such messages gets through, as does all that tools are called with."""
        numbers = count()
        slots: list[str] = []

        def slot(text: str) -> str:
            slots.append(f"{SLOT}{next(numbers)}{SLOT}" if text.strip() else "")
            return slots[-1]

        empty = [with_texts(message, slot) for message in messages]
        key = json.dumps(empty, default=str)
        if key not in self._carried:
            self._carried[key] = self._shows(empty, slots)
        return self._carried[key]

    def _shows(self, messages: Sequence[Message], slots: Sequence[str]) -> bool:
        rendered = _attempt(self.render, messages)
        return bool(rendered) and all(slot in rendered for slot in slots)


def end_of_answer(tokenizer: Any, **options: Any) -> int | None:
    """Return the token that ends an answer: what the chat template writes after one, else the tokenizer's own.

    A template may refuse an answer with any error. `options` are those of the template.
    """
    found = tokenizer.eos_token_id
    if tokenizer.chat_template:
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SLOT}]
        rest = ChatTemplate(tokenizer).render(said, **options).rpartition(SLOT)[2]
        ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
        ends = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        found = next((token for token in ids if token in ends), found)
    return found


def _attempt(render: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    """Return what a template writes; an empty text if it refuses."""
    try:
        return render(messages)
    # A template raises what it likes, mostly jinja2.TemplateError.
    except Exception:
        return ""


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def with_texts(message: Message, change: Callable[[str], str]) -> Message:
    """Return a message with each text changed: its content, and all of its tool calls but numbers."""
    calls = [
        {**call, "function": {key: _changed(value, change) for key, value in call["function"].items()}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "content": change(message["content"]), **({"tool_calls": calls} if calls else {})}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {change(key): _changed(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def _is_callable(turn: Turn) -> bool:
    """Return whether templates have a form for the calls of a message: a name, and arguments that have names."""
    return all(isinstance(call.arguments, dict) and not call.is_custom for call in turn.calls)


def _native(turn: Turn) -> Message:
    message = {**_of_tool(turn), "content": turn.said}
    return message | ({"tool_calls": [*map(_native_call, turn.calls)]} if turn.calls else {})


def _native_call(call: ToolCall) -> Message:
    own_id = {} if call.id is None else {"id": _id(call.id)}
    return {**own_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _written(turn: Turn) -> Message:
    return {**_of_tool(turn), "content": turn.text}


def _of_tool(turn: Turn) -> Message:
    """Return the role of a message; that of a tool says of which call it is the result."""
    about = {"name": turn.name, "tool_call_id": turn.call_id}
    return {"role": turn.role, **{key: _id(value) for key, value in about.items() if value is not None}}


def _by_user(turn: Turn) -> Message:
    return {"role": "user", "content": turn.line} if turn.role == "tool" else turn.plain


def _by_two(messages: Sequence[Message]) -> list[Message]:
    """Join messages of the user that follow each other, for templates in which two speak in turn."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            joined[-1] = {"role": "user", "content": f"{joined[-1]['content']}\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def _id(text: str) -> str:
    """Return an id or a name that can't be taken for a token of the template."""
    return NOT_OF_IDS.sub("", text)


class PromptEncoder:
    """Encodes conversations for a model to continue; special tokens in user text are plain text.

    A conversation goes through the tokenizer's chat template. Without one it is its text; if that has several lines
    of roles, `ASSISTANT:` stands at its end.

    Args:
        tokenizer: A tokenizer of transformers.
        is_encoder_decoder: Whether the model reads the prompt in an encoder, instead of continuing it.
        **options: Options of the chat template, such as `enable_thinking`.
    """

    def __init__(self, tokenizer: Any, *, is_encoder_decoder: bool = False, **options: Any) -> None:
        self._tokenizer = tokenizer
        self._options = options
        self._is_encoder_decoder = is_encoder_decoder
        self._template = ChatTemplate(tokenizer)
        delimiters = self._template.delimiters() if tokenizer.chat_template else []
        self._encode_plain = PlainTextEncoder(tokenizer, delimiters)
        self._prefix, suffix = affixes(tokenizer)
        # A decoder that continues its prompt must not read an end there.
        self._suffix = suffix if is_encoder_decoder else []
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= {*tokenizer.all_special_tokens, *delimiters}
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def __call__(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> tuple[list[int], str]:
        """Return the token ids of a conversation, untruncated, and its rendered text.

        Without `add_generation_prompt` a template leaves out the header of the answer.
        """
        if not self._tokenizer.chat_template:
            return self._without_template(messages)
        messages = self._template.fitted(messages)
        forged: list[str] = []
        letters = set(json.dumps(messages, ensure_ascii=False, default=str))
        mark = next(letter for letter in map(chr, PRIVATE_USE) if letter not in letters)

        def hide(found: re.Match[str]) -> str:
            forged.append(found[0])
            return f"{mark}{len(forged) - 1}{mark}"

        hidden = [with_texts(message, lambda text: self._special.sub(hide, text)) for message in messages]
        rendered = self._template.render(hidden, add_generation_prompt=add_generation_prompt, **self._options)
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

    def _without_template(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        said = turns(messages)
        text = render_turns(said)
        if len(said) > 1 and not self._is_encoder_decoder:
            text += "\nASSISTANT:"
        return [*self._prefix, *self._encode_plain([text])[0], *self._suffix], text
