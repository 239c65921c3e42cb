"""What the trainers of TRL give: a ranker that is loaded when first used, and texts, plain or conversational."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from blender_hf.blender import Blender
from blender_hf.engine.rankers import OwnRanker
from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import as_candidate
from blender_hf.loading.checkpoints import DEFAULT_RANKER
from blender_hf.modeling.conversations import plain_values, report_unread, turns

Messages = Sequence[Mapping[str, Any]]
RankerInput = Blender | str | Path | OwnRanker
Value = TypeVar("Value")

# A message of the assistant without any of these says nothing.
SAID = ("content", "tool_calls", "function_call", "refusal", "audio")


class LazyBlender:
    """A blender that is loaded when first needed, in the process that trains and on its device.

    Only the name, or the object that ranks by itself, is pickled, so it can be sent to other processes.

    Args:
        ranker: A blender; the bundled name, folder or Hub id of a ranker, of pairs or a reward model; or an object that
            ranks by itself, as in `Blender`.
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
    """Return the text of a completion: what the assistant says and which tools it calls, without their results.

    Args:
        completion: A string, a message, or a list of messages.
        where: How error messages name it.

    Raises:
        InputTypeError: If it is none of these, or a content is not text.
        InputError: If a message can't be read.
    """
    if isinstance(completion, str):
        return completion
    messages = plain_values([completion] if isinstance(completion, Mapping) else completion)
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise InputTypeError(
            f"{where}: a completion must be a string or a list of messages, not {type(completion).__name__}"
        )
    own = [message for message in messages if message.get("role", "assistant") == "assistant"]
    if messages and not own:
        as_candidate(messages, where)  # which says that no message is the assistant's
    own = [{**message, "role": "assistant"} for message in own if any(message.get(key) for key in SAID)]
    said = [as_candidate(message, where) for message in own]
    for candidate in said:
        report_unread(turns(candidate.messages or ()), where)
    return "\n".join(candidate.text for candidate in said)


def prompt_key(prompt: str | Messages) -> str:
    """Return a string that only equal prompts share; a picture is what it shows, not the object."""
    return json.dumps(plain_values(prompt), sort_keys=True, default=_digest)


def _digest(value: Any) -> str:
    return blake2b(value.tobytes()).hexdigest() if callable(getattr(value, "tobytes", None)) else repr(value)


def gathered(values: Sequence[Value]) -> Iterator[tuple[bool, Sequence[Value]]]:
    """Yield the values of each process, in their order, and whether it is this one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        yield True, values
        return
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, list(values))
    yield from ((process == distributed.get_rank(), share) for process, share in enumerate(shares))
