"""The values of records, in the forms that datasets, tables and APIs have: lists, messages, candidates."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

# Roles by the names that ShareGPT, LangChain, OASST and Gemini have for them; capitals do not count.
ROLE_NAMES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "ai", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response", "tool_response"), "tool"),
    "system": "system",
}
# Types of the messages of LangChain, which have no role.
LANGCHAIN_TYPES = ("human", "ai", "system", "tool")
# Keys of a candidate that is a mapping.
TEXT_KEYS = ("text", "response", "answer", "completion", "content", "output", "generated_text", "generation")
MODEL_KEYS = ("model", "generator", "model_name", "model_id", "generation_model")
# What a message may have beside its content, or in its place, that is a part of the answer.
BESIDE_TEXT = ("tool_calls", "function_call", "refusal", "images")
# Chat messages in a text, as tables have them.
MESSAGES = re.compile(r"""\s*\[\s*\{\s*(['"])(role|content|from|value)\1\s*:.*\}\s*\]\s*""", re.DOTALL)
# Two texts without a comma between them, as numpy prints an array; to Python they are one.
UNSEPARATED = re.compile(r"""(['"])\s+['"]""")


def is_given(value: Any) -> bool:
    """Return whether a value is there: neither null nor the NaN that pandas has for it."""
    return value is not None and not (isinstance(value, float) and value != value)


def as_list(value: Any) -> list[Any] | None:
    """Return a list, a tuple or an array as a list, and None for anything else."""
    if isinstance(value, Mapping | str | bytes):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal, as texts but for white space at their ends."""
    if isinstance(a, str) and isinstance(b, str):
        return a.strip() == b.strip()
    listed = as_list(a), as_list(b)
    return bool((listed[0] or a) == (listed[1] or b))


def is_parts(value: Any) -> bool:
    """Return whether this is a list of mappings, such as the parts of a message."""
    parts = as_list(value)
    return bool(parts) and all(isinstance(part, Mapping) for part in parts or ())


def decoded_list(value: Any, kinds: type | tuple[type, ...] = list) -> Any:
    """Return the list that a text of JSON holds, or of Python, as pandas writes lists; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None if UNSEPARATED.search(value) else python_literal(value.strip())
    return found if isinstance(found, kinds) else value


def python_literal(text: str) -> Any:
    """Return the value that a text of Python states; None if it states none."""
    try:
        return ast.literal_eval(text)
    # The last ones are its errors for what is nested too deeply, or has a null character.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def decoded_messages(value: Any, key: str) -> Any:
    """Return the chat messages that a text holds; anything else as it is.

    Raises:
        ValueError: If it begins and ends like chat messages and can't be decoded; the message names the key.
    """
    if not isinstance(value, str) or not MESSAGES.fullmatch(value):
        return value
    found = decoded_list(value)
    if isinstance(found, str):
        raise ValueError(
            f'"{key}" is a text that looks like chat messages, and is neither JSON nor Python; write it with json.dumps'
        )
    return found


def as_turns(value: Any) -> Any:
    """Return messages of ShareGPT, LangChain, OASST and Gemini as chat messages; anything else as it is."""
    if isinstance(value, Mapping):
        return _as_turn(value)
    turns = as_list(value)
    return value if turns is None else [as_turns(turn) if isinstance(turn, Mapping) else turn for turn in turns]


def _as_turn(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "role" in value:
        said, role_key = value["role"], "role"
    elif "from" in value and "value" in value:
        said, role_key = value["from"], "from"
    elif value.get("type") in LANGCHAIN_TYPES and "content" in value:
        said, role_key = value["type"], "type"
    else:
        return value
    role = ROLE_NAMES.get(said.lower(), said) if isinstance(said, str) else said
    content_key = "value" if role_key == "from" else next((k for k in ("content", "text", "parts") if k in value), None)
    if (role, role_key, content_key) == (said, "role", "content"):
        return value
    turn = {key: told for key, told in value.items() if key not in (role_key, content_key)}
    content = {} if content_key is None else {"content": value[content_key]}
    if content_key == "parts":
        content = {"content": [_as_part(part) for part in as_list(value["parts"]) or []]}
    # Of ShareGPT, no other key has a meaning: some sets have scores there.
    return {"role": role, **content, **({} if role_key == "from" else turn)}


def _as_part(part: Any) -> Any:
    """Return a part of Gemini's as one of chat messages."""
    if not isinstance(part, Mapping) or "type" in part:
        return part
    for key in ("functionCall", "function_call"):
        if key in part:
            return {"type": "tool_call", **part[key]}
    for key in ("inlineData", "inline_data", "fileData", "file_data"):
        if key in part:
            return {"type": "file", **part}
    return {"type": "thought", **part} if part.get("thought") is True else part


def candidate_parts(value: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the text and the model of a candidate that is a mapping, under the names that datasets have for them.

    A reply or a choice of an API has a message in place of a text, and so has a text with tool calls beside it. One of
    MT-bench has its text in its only turn. What is null, or is not there, is None.

    Raises:
        ValueError: If two of its texts differ, or it has several answers.
    """
    model = next((value[key] for key in MODEL_KEYS if is_given(value.get(key))), None)
    given = [key for key in TEXT_KEYS if is_given(value.get(key))]
    for other in given[1:]:
        if not same(value[given[0]], value[other]):
            raise ValueError(
                f'"{given[0]}" and "{other}" are both texts of a candidate, and differ; rename or drop one of them'
            )
    text = as_turns(value[given[0]]) if given else None
    beside = {key: value[key] for key in BESIDE_TEXT if is_given(value.get(key)) and value[key]}
    if beside and isinstance(text, str | None):
        return {"role": value.get("role", "assistant"), "content": text, **beside}, model
    if given:
        return text, model
    if isinstance(message := value.get("message"), Mapping):
        return message, model
    if is_given(text := value.get("output_text")):
        return text, model
    choices, turns = (as_list(value.get(key)) or [] for key in ("choices", "turns"))
    if len(choices) > 1:
        raise ValueError(f'"choices" has {len(choices)} answers; make each of them a candidate')
    if len(turns) > 1:
        raise ValueError(f'"turns" has {len(turns)} answers, to as many prompts; give one of them as "text"')
    answer = next(iter([*choices, *turns]), None)
    return (candidate_parts(answer)[0] if isinstance(answer, Mapping) else answer), model
