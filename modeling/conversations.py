"""Conversations: the messages that every model gets, and the text of them for models without a chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, str]

ROLES = ("system", "user", "assistant", "tool")
# Newer names of roles, which few chat templates know.
RENAMED_ROLES = {"developer": "system"}


def as_messages(prompt: str | Sequence[Mapping[str, Any]], instruction: str | None = None) -> tuple[Message, ...]:
    r"""Return the conversation of a prompt and its instruction, which every model gets.

    - A string is one user message. An instruction goes above it, on a line of its own.
    - A conversation stays as it is. An instruction becomes its system message; if it begins with a system message
      already, the instruction goes above that one's text, with a blank line between.

    Args:
        prompt: A string, or chat messages `{"role", "content"}`, oldest first. `content` is a string or a list of
            `{"type": "text", "text": ...}` parts. The role is one of `ROLES`; "developer" is "system".
        instruction: What to do with the prompt, if stated separately; None or empty for nothing.

    Returns:
        New messages `{"role", "content"}` whose contents are strings, as chat templates and APIs take them.

    Raises:
        TypeError: If `prompt` is neither a string nor a list of messages, or a content is not text.
        ValueError: If there is no message, or a role is unknown.

    >>> as_messages("cat", "Translate.")
    ({'role': 'user', 'content': 'Translate.\ncat'},)
    >>> as_messages([{"role": "user", "content": "cat"}], "Translate.")[0]
    {'role': 'system', 'content': 'Translate.'}
    """
    if isinstance(prompt, str):
        return (_message("user", "\n".join(part for part in (instruction, prompt) if part)),)
    messages = _checked_messages(prompt)
    if not instruction:
        return messages
    first, *others = messages
    if first["role"] != "system":
        return (_message("system", instruction), *messages)
    return (_message("system", f"{instruction}\n\n{first['content']}"), *others)


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    r"""Return a conversation for a chat template without a system role.

    Its system message, if it begins with one, goes above the text of the first user message, with a blank line between;
    without a user message it becomes one.

    >>> fold_system(as_messages([{"role": "user", "content": "cat"}], "Translate."))
    ({'role': 'user', 'content': 'Translate.\n\ncat'},)
    """
    first, *others = messages
    if first["role"] != "system":
        return tuple(messages)
    place = next((n for n, message in enumerate(others) if message["role"] == "user"), None)
    if place is None:
        return (_message("user", first["content"]), *others)
    joined = _message("user", f"{first['content']}\n\n{others[place]['content']}")
    return (*others[:place], joined, *others[place + 1 :])


def render_messages(messages: Sequence[Message]) -> str:
    """Return a conversation as the text that models without a chat template read.

    A single user message is its text. Any other conversation is one line per message, `USER: ...`, `ASSISTANT: ...`,
    `SYSTEM: ...`, as in the training data of the rankers.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n".join(f"{message['role'].upper()}: {message['content']}" for message in messages)


def render_prompt(prompt: str | Sequence[Mapping[str, Any]], instruction: str | None = None) -> str:
    """Return the text of the conversation that a prompt and its instruction form, with the errors of `as_messages`."""
    return render_messages(as_messages(prompt, instruction))


def _checked_messages(prompt: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    if not isinstance(prompt, Sequence) or not all(isinstance(message, Mapping) for message in prompt):
        raise TypeError(f"a prompt must be a text or a list of chat messages, not {_describe(prompt)}")
    if not prompt:
        raise ValueError("a conversation needs at least one message")
    return tuple(_message(_role(message), _content(message)) for message in prompt)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    role = RENAMED_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"a chat message has the role {role!r}; use one of {', '.join(ROLES)}")
    return role


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    raise TypeError(f"the content of a chat message must be text, not {_describe(content)}")


def _is_text_part(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _describe(value: object) -> str:
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    return "None" if value is None else type(value).__name__
