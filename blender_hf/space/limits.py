"""How much one visitor may ask for at once, checked before any model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from blender_hf.errors import InputError
from blender_hf.inputs import Item


@dataclass(frozen=True)
class Limits:
    """The largest request that is served.

    Args:
        candidates: Most candidates of a prompt.
        characters: Most characters of one text.
        total_characters: Most characters of a prompt with all its candidates.
        prompts: Most prompts of a batch.
        file_bytes: Largest file that may be uploaded.
        models: Most language models that answer a prompt.
        new_tokens: Most tokens that are written, by the fuser or by a language model.
        beams: Most beams of the fuser.
    """

    candidates: int = 12
    characters: int = 20_000
    total_characters: int = 120_000
    prompts: int = 200
    file_bytes: int = 5_000_000
    models: int = 6
    new_tokens: int = 1024
    beams: int = 8


DEFAULT_LIMITS = Limits()


def check_item(item: Item, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check the size of a prompt with its candidates.

    Raises:
        InputError: If there are too many candidates or a text is too long; the message says which, and the limit.
    """
    if len(item.candidates) > limits.candidates:
        raise InputError(
            f"{item.where}: {len(item.candidates)} candidates; at most {limits.candidates} are ranked here"
        )
    for name, text in [("the prompt", item.source), *((f"candidate {i}", t) for i, t in enumerate(item.texts, 1))]:
        if len(text) > limits.characters:
            raise InputError(
                f"{item.where}: {name} has {len(text):,} characters; at most {limits.characters:,} are read"
            )
    total = len(item.source) + sum(map(len, item.texts))
    if total > limits.total_characters:
        raise InputError(f"{item.where}: {total:,} characters in all; at most {limits.total_characters:,} are read")


def check_batch(items: Sequence[Item], limits: Limits = DEFAULT_LIMITS) -> None:
    """Check the size of a batch.

    Raises:
        InputError: If there is nothing in it, too much, or one of its items is too large.
    """
    if not items:
        raise InputError("there are no prompts in it; one line is one prompt with its candidates")
    if len(items) > limits.prompts:
        raise InputError(f"{len(items)} prompts; at most {limits.prompts} are ranked here at once")
    for item in items:
        check_item(item, limits)
