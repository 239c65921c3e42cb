"""What the trainers of TRL give: a ranker that is loaded when first used, and texts, plain or conversational."""

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from blender_hf.blender import Blender
from blender_hf.errors import InputError, InputTypeError
from blender_hf.loading.checkpoints import DEFAULT_RANKER
from blender_hf.modeling.conversations import render_prompt

Messages = Sequence[Mapping[str, Any]]
RankerInput = Blender | str | Path
Value = TypeVar("Value")


class LazyBlender:
    """A blender that is loaded when first needed, in the process that trains and on its device.

    Only the name is pickled, so it can be sent to other processes.

    Args:
        ranker: A blender, or the bundled name, folder or Hub id of a ranker, of pairs or a reward model.
        **options: Options of `Blender.from_pretrained`, for a name.

    Raises:
        InputError: If there are options for a blender that is loaded already.
        TypeError: If there is no such option.
    """

    def __init__(self, ranker: RankerInput = DEFAULT_RANKER, **options: Any) -> None:
        if isinstance(ranker, Blender) and options:
            raise InputError(f"{', '.join(options)}: options are for a ranker that is loaded here, not for a Blender")
        signature(Blender.from_pretrained).bind(ranker, None, **options)  # a misspelt one fails before the long work
        self._ranker, self._options = ranker, options
        self._loaded: Blender | None = None

    def get(self) -> Blender:
        """Return the blender.

        Raises:
            CheckpointError: If the ranker can't be found or is not whole.
        """
        if isinstance(self._ranker, Blender):
            return self._ranker
        if self._loaded is None:
            self._loaded = Blender.from_pretrained(self._ranker, None, **self._options)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}


def completion_text(completion: Any, where: str) -> str:
    """Return the text of a completion: what the assistant says in it, without tool calls and their results.

    Args:
        completion: A string or a list of messages.
        where: How error messages name it.

    Raises:
        InputTypeError: If it is neither, or a content is not text.
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise InputTypeError(
            f"{where}: a completion must be a string or a list of messages, not {type(completion).__name__}"
        )
    said = [m for m in completion if m.get("role", "assistant") == "assistant" and m.get("content") is not None]
    try:
        # A conversation of a single message by the user is rendered as its text.
        return "\n".join(render_prompt([{"role": "user", "content": m["content"]}]) for m in said)
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None


def prompt_key(prompt: str | Messages) -> str:
    """Return a string that only equal prompts share."""
    return json.dumps(prompt, sort_keys=True, default=repr)


def gathered(values: Sequence[Value]) -> Iterator[tuple[bool, Sequence[Value]]]:
    """Yield the values of each process, in their order, and whether it is this one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        yield True, values
        return
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, list(values))
    yield from ((process == distributed.get_rank(), share) for process, share in enumerate(shares))
