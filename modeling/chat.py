"""One text for a prompt, whether it is given as text or as chat messages."""

from collections.abc import Mapping, Sequence
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
# The newer name of some, which few chat templates know.
RENAMED = {"developer": "system"}


def render_prompt(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """Turn a prompt into the text that the models read.

    A text is returned as it is. A conversation of a single user message is that message's text; any other becomes one
    line per turn, `USER: ...`, `ASSISTANT: ...`, `SYSTEM: ...`, the form of the data the models were trained on.

    Args:
        prompt: A text, or chat messages as `read_turns` takes them.

    Returns:
        The text of the prompt.

    Raises:
        TypeError: If `prompt` is neither a text nor a list of messages, or a content is not text.
        ValueError: If there is no message, or a role is unknown.
    """
    if isinstance(prompt, str):
        return prompt
    turns = read_turns(prompt)
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n".join(f"{role.upper()}: {content}" for role, content in turns)


def read_turns(prompt: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the role and the text of each turn of a conversation.

    Args:
        prompt: Chat messages `{"role", "content"}`, oldest first. `content` is a text or a list of
            `{"type": "text", "text": ...}` parts. The role is one of `ROLES`; "developer" is "system".

    Returns:
        The turns.

    Raises:
        TypeError: If these are no messages, or a content is not text.
        ValueError: If there is no message, or a role is unknown.
    """
    if not isinstance(prompt, Sequence) or not all(isinstance(message, Mapping) for message in prompt):
        raise TypeError(f"a prompt must be a text or a list of chat messages, not {_describe(prompt)}")
    if not prompt:
        raise ValueError("a conversation needs at least one message")
    return [(_role(message), _content(message)) for message in prompt]


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    role = RENAMED.get(role, role) if isinstance(role, str) else role
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


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _describe(value: Any) -> str:
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    return "None" if value is None else type(value).__name__
