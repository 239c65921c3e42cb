"""Conversations: the messages that every model gets, and their one rendering as text, for models that read text.

Messages stay as they came in, for servers, chat templates and output rows. The text has, message by message, what was
said, and each tool call on a line of its own:

    USER: What is the weather in Lima?
    ASSISTANT: <tool_call>{"name": "weather", "arguments": {"city": "Lima"}}</tool_call>
    TOOL: 17 C

Reasoning is left out, for it is no answer. A picture, a recording or a file is named, as in `[image]`.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .record_values import candidate_parts

logger = logging.getLogger(__name__)

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
# Other names of roles, which few chat templates know: OpenAI's newer and older one, and that of Llama 3.
RENAMED_ROLES = {"developer": "system", "function": "tool", "ipython": "tool"}
# By the type of a part, the key of its text: chat completions of OpenAI and Anthropic, and OpenAI's Responses.
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
# By the type of a part that is no text, what stands for it in the text.
UNREAD_PARTS = {
    **dict.fromkeys(("image", "image_url", "input_image", "image_file", "output_image"), "[image]"),
    **dict.fromkeys(("audio", "audio_url", "input_audio", "output_audio"), "[audio]"),
    **dict.fromkeys(("video", "video_url", "input_video"), "[video]"),
    **dict.fromkeys(("file", "file_url", "input_file", "document"), "[file]"),
}
# The same by the key of a message: Ollama has pictures beside the content.
UNREAD_KEYS = {"images": "[image]", "videos": "[video]", "audios": "[audio]", "files": "[file]"}
THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "reasoning_content", "thought")
CALL_PARTS = ("tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "function_call", "custom_tool_call")
RESULT_PARTS = ("tool_result", "mcp_tool_result", "function_call_output", "custom_tool_call_output")
PART_TYPES = (*TEXT_PARTS, *UNREAD_PARTS, *THOUGHT_PARTS, *CALL_PARTS, *RESULT_PARTS)
# The keys of a call's arguments: OpenAI, LangChain, Llama 3, Anthropic. OpenAI's custom tools take a free text.
ARGUMENTS = ("arguments", "args", "parameters", "input")
CUSTOM_CALLS = ("custom", "custom_tool_call")
# What else a call may say.
ABOUT_CALLS = {"id", "call_id", "type", "index", "name", "function", "custom", "status"}


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool."""

    name: str
    arguments: Any  # the decoded JSON, or the text that is none
    id: str | None = None
    is_custom: bool = False  # whether the tool takes free text

    @property
    def text(self) -> str:
        """The line that stands for it, in the form of Hermes and Qwen."""
        said = {"name": self.name, "input" if self.is_custom else "arguments": self.arguments}
        return f"<tool_call>{json.dumps(said, ensure_ascii=False, default=str)}</tool_call>"


@dataclass
class Turn:
    """What a message says: its text, and what stands beside it."""

    role: str  # one of `ROLES`
    said: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    name: str | None = None  # of the tool whose result it is
    call_id: str | None = None  # of the call whose result it is
    unread: list[str] = field(default_factory=list)  # the places of pictures and the like
    results: list["Turn"] = field(default_factory=list)  # Anthropic has results of tools within a user's message
    _is_line: bool = False  # whether what was added last has its line for itself

    @property
    def text(self) -> str:
        """Its text, with each tool call on a line of its own."""
        return "\n".join([*([self.said] if self.said or not self.calls else []), *(call.text for call in self.calls)])

    @property
    def plain(self) -> Message:
        """The message with its text as its content."""
        return {"role": self.role, "content": self.text}

    @property
    def line(self) -> str:
        """The line of a conversation."""
        who = f"{self.role.upper()} ({self.name})" if self.name else self.role.upper()
        return f"{who}: {self.text}"

    def add(self, text: str, *, is_line: bool = False) -> None:
        """Append a text as it is, or on a line of its own."""
        parts = self.said and text and (is_line or self._is_line)
        breaks = self.said.endswith("\n") or text.startswith("\n")
        self.said += f"\n{text}" if parts and not breaks else text
        self._is_line = is_line or (self._is_line and not text)

    def name_unread(self, sign: str, place: str) -> None:
        """Append the sign of a picture or the like, and note its place."""
        self.add(sign, is_line=True)
        self.unread.append(place)


def as_messages(prompt: Any, instruction: str | None = None) -> tuple[Message, ...]:
    r"""Return the conversation of a prompt and its instruction, which every model gets.

    - A string is one user message. An instruction goes above it, on a line of its own.
    - A conversation stays as it is. An instruction becomes its system message; if it begins with a system message
      already, the instruction goes above that one's text, with a blank line between.

    Args:
        prompt: A string, or chat messages `{"role", "content"}`, oldest first, in a list, an array of numpy or a column
            of pandas or pyarrow. `content` is a string or a list of parts, as OpenAI, Anthropic and Hugging Face have
            them; it may be None beside `tool_calls`, a refusal or audio. The role is one of `ROLES` or `RENAMED_ROLES`.
        instruction: What to do with the prompt, if stated separately; None or empty for nothing.

    Returns:
        The messages, copied, in plain lists and dictionaries, and without the keys whose value is None: tables of Arrow
        have one for every key that a message lacks. A content that is None stays.

    Raises:
        TypeError: If `prompt` is neither a string nor a list of messages, or something in a message has the wrong type.
        ValueError: If there is no message, or one can't be read; it says which.

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
    if "role" not in first or _role(first, 0) != "system":
        return (_message("system", instruction), *messages)
    return ({**first, "content": _headed(f"{instruction}\n\n", first["content"])}, *others)


def as_answer(value: Any) -> tuple[Message, ...]:
    """Return the messages of an answer: a chat message, or several, as a model that calls tools writes them.

    The errors are those of `as_messages`; it is a ValueError, too, if no message is the assistant's.
    """
    messages = as_messages([value] if isinstance(value, Mapping) else value)
    if "assistant" not in (roles := [turn.role for turn in turns(messages)]):
        raise ValueError(
            f"an answer has a message of the assistant, and this one has the role {', '.join(dict.fromkeys(roles))} "
            'alone; state "role": "assistant", or make it a part of the prompt'
        )
    return messages


def after_prompt(messages: tuple[Message, ...], prompt: Any, instruction: str | None = None) -> tuple[Message, ...]:
    """Return the messages of an answer without those of the prompt, which a chat pipeline of transformers repeats.

    What does not begin with the whole prompt, or ends with it, stays as it is.

    Args:
        messages: The messages of `as_answer`.
        prompt: The prompt, a string or chat messages, which may be repeated with the instruction or without it.
        instruction: What to do with the prompt, if stated separately.
    """
    for start in (as_messages(prompt, instruction), as_messages(prompt)) if len(messages) > 1 else ():
        own = messages[len(start) :]
        if own and turns(messages[: len(start)]) == turns(start):
            return own
    return messages


def candidate_of(value: Any) -> tuple[str, str | None, tuple[Message, ...] | None]:
    """Return the text of a candidate, the name of its model, and the chat messages that it was given as, if it was.

    Args:
        value: A string, a mapping `{"text", "model"}`, a chat message, a list of them, or a mapping `{"messages",
            "model"}`, which may say the text of the messages as well.

    Raises:
        TypeError: If it is something else, or of the wrong type.
        ValueError: If its messages can't be read, or its text is not theirs.
    """
    value = plain_values(value)
    if isinstance(value, str):
        return value, None, None
    if is_conversation(value):
        return _of_messages(value, None)
    if not isinstance(value, Mapping):
        name = "None" if value is None else "an empty list" if value == [] else type(value).__name__
        raise TypeError(f'a candidate must be a string, {{"text", "model"}} or chat messages, not {name}')
    if "role" in value and "text" not in value:
        return _of_messages({key: one for key, one in value.items() if key != "model"}, value.get("model"))
    if value.get("messages") is not None:
        found = _of_messages(value["messages"], value.get("model"))
        if value.get("text", found[0]) != found[0]:
            raise ValueError('the "text" of a candidate is not that of its "messages"; leave out one of them')
        return found
    text, model = candidate_parts(value)
    if is_conversation(text) or isinstance(text, Mapping):
        return _of_messages(text, model)
    if not isinstance(text, str):
        raise TypeError(
            f'the "text" of a candidate must be a string, not {type(text).__name__}; it has '
            f"{', '.join(map(str, value)) or 'no keys'}"
        )
    return text, _model(model), None


def _of_messages(value: Any, model: Any) -> tuple[str, str | None, tuple[Message, ...]]:
    messages = as_answer(value)
    return render_answer(messages), _model(model), messages


def _model(model: Any) -> str | None:
    if model is not None and not isinstance(model, str):
        raise TypeError(f'the "model" of a candidate must be a string, not {type(model).__name__}')
    return model


def turns(messages: Iterable[Mapping[str, Any]]) -> list[Turn]:
    """Return what each of the messages of `as_messages` says; results within a message are turns of their own."""
    found: list[Turn] = []
    for number, message in enumerate(messages):
        kind = None if "role" in message else _type_of(message)
        if kind in THOUGHT_PARTS:
            continue
        turn = _item(message, number) if kind in (*CALL_PARTS, *RESULT_PARTS) else _turn(message, number)
        found += turn.results
        if turn.said or turn.calls or not turn.results:
            found.append(turn)
    return found


def render_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a conversation as the text that models without a chat template read.

    A single user message is its text. Any other conversation is one line per message, `USER: ...`, `ASSISTANT: ...`,
    `SYSTEM: ...`, as in the training data of the rankers, `TOOL: ...`, or `TOOL (name): ...` where the name is stated.
    """
    return render_turns(turns(messages))


def render_turns(found: Sequence[Turn]) -> str:
    """Return the text of `render_messages` from what the messages say."""
    if len(found) == 1 and found[0].role == "user":
        return found[0].text
    return "\n".join(turn.line for turn in found)


def render_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of an answer: that of a single message, whoever says it, else one line per message."""
    found = turns(messages)
    return found[0].text if len(found) == 1 else "\n".join(turn.line for turn in found)


def render_prompt(prompt: Any, instruction: str | None = None) -> str:
    """Return the text of the conversation that a prompt and its instruction form, with the errors of `as_messages`."""
    return render_messages(as_messages(prompt, instruction))


def report_unread(found: Iterable[Turn], where: str) -> None:
    """Log which parts of messages no text stands for, if there are any."""
    if places := [place for turn in found for place in turn.unread]:
        logger.warning("%s: not read: %s; the text only names what stands there", where, ", ".join(places))


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    r"""Return a conversation for a chat template without a system role; all contents are strings.

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


def plain_values(value: Any) -> Any:
    """Return a value in lists and dictionaries of its own, without the keys that are None, except for a content.

    Lists may be arrays of numpy, columns of pandas, or values of pyarrow; messages may be objects of OpenAI's client.
    What else is in it, such as a picture, is the same object.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for method in ("as_py", "to_pylist", "model_dump"):  # of a value and a column of pyarrow, and of pydantic
        if callable(getattr(value, method, None)):
            return plain_values(getattr(value, method)())
    if isinstance(value, Mapping):
        kept = {key: plain_values(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None or key == "content"}
    # An array of numpy, a column of pandas; a number of numpy has no dimension, and a picture has more than one.
    n_dimensions = getattr(value, "ndim", None)
    if n_dimensions in (0, 1) and callable(getattr(value, "tolist", None)):
        return plain_values(value.tolist())
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    return [plain_values(one) for one in value] if is_list else value


def is_conversation(value: Any) -> bool:
    """Return whether this is a list or the like that begins with a mapping."""
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
        return False
    # Not by its index: a column of pandas may have another first one.
    return len(value) > 0 and isinstance(next(iter(value)), Mapping)


def _checked_messages(prompt: Any) -> tuple[Message, ...]:
    try:
        messages = plain_values(prompt)
        if not isinstance(messages, list):
            raise TypeError(f"a prompt must be a text or a list of chat messages, not {_describe(prompt)}")
        wrong = next((n for n, message in enumerate(messages) if not isinstance(message, Mapping)), None)
        if wrong is not None:
            found = f"a list of {type(messages[wrong]).__name__} (message {wrong})"
            raise TypeError(f"a prompt must be a text or a list of chat messages, not {found}")
        if not messages:
            raise ValueError("a conversation needs at least one message")
        if not "".join(turn.line for turn in turns(messages)):  # what can't be written as JSON fails here
            raise ValueError("a conversation needs at least one message that is no thought")
    except RecursionError:
        raise ValueError("its messages are nested too deeply") from None
    return tuple(messages)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _headed(head: str, content: Any) -> Any:
    if not isinstance(content, list):
        return head + content
    # Parts of the Responses API have types of their own.
    kind = next((part.get("type") for part in content if isinstance(part, Mapping)), None)
    return [{"type": "input_text" if kind == "input_text" else "text", "text": head}, *content]


def _turn(message: Mapping[str, Any], number: int) -> Turn:
    where = f"message {number}"
    turn = Turn(_role(message, number))
    for key, sign in UNREAD_KEYS.items():
        beside = message.get(key) or ()
        for _ in beside if isinstance(beside, list | tuple) else (beside,):
            turn.name_unread(sign, f"{where} ({key})")
    content = message.get("content")
    if content is not None:
        _read_content(turn, content, where)
    if message.get("refusal"):
        turn.add(_string(message["refusal"], "refusal", where), is_line=True)
    if content is None and message.get("audio") is not None:
        _read_audio(turn, message["audio"], where)
    known = {call.id for call in turn.calls if call.id is not None}
    # Some clients have a call both among the parts and beside them.
    turn.calls += [call for call in _calls(message, where) if call.id not in known]
    if content is None and not (turn.said or turn.calls):
        raise TypeError(
            f"the content of a chat message must be text, not None ({where}, {turn.role}); it may be missing beside "
            "tool_calls, a refusal or audio alone"
        )
    if turn.role == "tool":
        turn.name, turn.call_id = (_optional(message, key, where) for key in ("name", "tool_call_id"))
    return turn


def _item(item: Mapping[str, Any], number: int) -> Turn:
    """Return what a call or a result says that is an item of the Responses API, without a role."""
    where = f"message {number}"
    if item["type"] in RESULT_PARTS:
        return _result(item, where)
    return Turn("assistant", calls=[_call(item, where)])


def _role(message: Mapping[str, Any], number: int) -> str:
    role = message.get("role")
    role = RENAMED_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"a chat message has the role {role!r} (message {number}); use one of {', '.join(ROLES)}")
    return role


def _read_content(turn: Turn, content: Any, where: str) -> None:
    if isinstance(content, str):
        turn.add(content)
        return
    if not isinstance(content, list):
        raise TypeError(f"the content of a chat message must be text, not {_describe(content)} ({where})")
    for index, part in enumerate(content):
        _read_part(turn, part, f"{where}, part {index}")


def _read_part(turn: Turn, part: Any, where: str) -> None:
    kind = _type_of(part)
    if isinstance(part, str):
        turn.add(part)
    elif not isinstance(part, Mapping):
        raise TypeError(f"{where} must be text or an object with a type, not {_describe(part)}")
    elif kind in TEXT_PARTS:
        turn.add(_string(part.get(TEXT_PARTS[kind]), TEXT_PARTS[kind], where))
    elif kind in UNREAD_PARTS:
        turn.name_unread(UNREAD_PARTS[kind], f"{where} ({kind})")
    elif kind in CALL_PARTS:
        turn.calls.append(_call(part, where))
    elif kind in RESULT_PARTS:
        turn.results.append(_result(part, where))
    elif kind not in THOUGHT_PARTS:
        raise ValueError(f"{where} has the type {part.get('type')!r}; use one of {', '.join(PART_TYPES)}")


def _type_of(part: Any) -> str:
    """Return the type of a part; one of text may lack it, and a type that is none is the empty string."""
    kind = part.get("type", "text" if "text" in part else "") if isinstance(part, Mapping) else "text"
    return kind if isinstance(kind, str) else ""


def _read_audio(turn: Turn, audio: Any, where: str) -> None:
    if not isinstance(audio, Mapping):
        raise TypeError(f"{where}: its audio must be an object, not {_describe(audio)}")
    if transcript := _optional(audio, "transcript", where):
        turn.add(transcript)
    else:
        turn.name_unread("[audio]", f"{where} (audio)")


def _result(part: Mapping[str, Any], where: str) -> Turn:
    content = part.get("content", part.get("output"))
    turn = Turn("tool", call_id=_optional(part, "tool_use_id", where) or _optional(part, "call_id", where))
    if content is not None:
        _read_content(turn, content, where)
    if turn.calls or turn.results:
        raise ValueError(f"{where}: the result of a tool can't hold calls or results")
    return turn


def _calls(message: Mapping[str, Any], where: str) -> Iterator[ToolCall]:
    if message.get("function_call") is not None:  # OpenAI's, before there were several
        yield _call(message["function_call"], f"{where}, function_call")
    stated = message.get("tool_calls")
    if isinstance(stated, str):  # tables of texts have them as JSON
        stated = _decoded(stated)
    if stated is None:
        return
    if not isinstance(stated, list):
        raise TypeError(f"{where}: its tool_calls must be a list of calls, not {_describe(stated)}")
    for index, call in enumerate(stated):
        yield _call(call, f"{where}, tool call {index}")


def _call(call: Any, where: str) -> ToolCall:
    if not isinstance(call, Mapping):
        raise TypeError(f'{where} must be an object with a "name" and "arguments", not {_describe(call)}')
    inner = next((call[key] for key in ("function", "custom") if isinstance(call.get(key), Mapping)), call)
    name = inner.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f'{where}: the "name" of the tool is missing; it has {sorted(map(str, inner))}')
    key = next((key for key in ARGUMENTS if key in inner), None)
    unknown = sorted(str(key) for key in inner if key not in ABOUT_CALLS)
    if key is None and unknown:
        raise ValueError(f'{where}: the key "arguments" is missing; it has {", ".join(unknown)}')
    is_custom = call.get("type") in CUSTOM_CALLS or isinstance(call.get("custom"), Mapping)
    stated = None if key is None else inner[key]
    arguments = _decoded(stated) if isinstance(stated, str) and not is_custom else stated
    return ToolCall(
        name,
        {} if arguments is None or arguments == "" else arguments,
        _optional(call, "id", where) or _optional(call, "call_id", where),
        is_custom,
    )


def _decoded(text: str) -> Any:
    """Return the value of a text of JSON; the text itself if it is none."""
    try:
        return plain_values(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _string(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f'{where}: its "{key}" must be text, not {_describe(value)}')
    return value


def _optional(values: Mapping[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    return None if value is None else _string(value, key, where)


def _describe(value: object) -> str:
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    return "None" if value is None else type(value).__name__
