"""Chat messages for language models, and the answer in what they write."""

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Prompt
from blender_hf.modeling.chat import read_turns

Messages = list[dict[str, str]]


def as_messages(prompt: Prompt, instruction: str | None = None, *, where: str = "the prompt") -> Messages:
    """Return a prompt as chat messages whose contents are texts.

    An instruction stands on lines of its own before a text, as the ranker reads it. For a conversation it is the
    system's message, or begins it.

    Args:
        prompt: A text, or chat messages `{"role", "content"}`.
        instruction: What is to be done with the prompt.
        where: How messages of errors name it.

    Returns:
        New messages `{"role", "content"}`; the prompt is left as it is.

    Raises:
        InputTypeError: If something has the wrong type.
        InputError: If there is no message, or a role is unknown.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": "\n".join(part for part in (instruction, prompt) if part)}]
    try:
        messages = [{"role": role, "content": text} for role, text in read_turns(prompt)]
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if not instruction:
        return messages
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{instruction}\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]


def answer_in(text: str) -> str:
    """Return the answer in what a model wrote: without outer white space, and without what it thought before it.

    Reasoning models write `<think> ... </think>` first; some chat templates write the opening mark for them. What stops
    in the middle of a thought has no answer.
    """
    before, closed, after = text.partition("</think>")
    opened = before.lstrip().startswith("<think>")
    if closed and (opened or "<think>" not in before):
        return after.strip()
    return "" if opened else text.strip()
