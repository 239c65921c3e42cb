"""Which completions play each other: those of equal prompts, in whatever process they were generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import distributed

from .texts import prompt_key


@dataclass(frozen=True)
class Contestant:
    """A completion as text, with its prompt."""

    prompt: Any
    text: str


@dataclass(frozen=True)
class Place:
    """Where a completion stands: the key of its group, and its index in it."""

    group: str
    index: int


def groups_of(contestants: Sequence[Contestant]) -> tuple[list[Place], dict[str, list[Contestant]]]:
    """Put the completions of equal prompts together, with those of the same prompts in other processes.

    Args:
        contestants: The completions of this process.

    Returns:
        The places of these completions, and the groups that they are in, the whole of each.
    """
    shares = _shares(contestants)
    rank = distributed.get_rank() if len(shares) > 1 else 0
    groups: dict[str, list[Contestant]] = {}
    own: list[Place] = []
    for process, share in enumerate(shares):
        for contestant in share:
            key = prompt_key(contestant.prompt)
            group = groups.setdefault(key, [])
            if process == rank:
                own.append(Place(key, len(group)))
            group.append(contestant)
    wanted = {place.group for place in own}
    return own, {key: group for key, group in groups.items() if key in wanted}


def _shares(contestants: Sequence[Contestant]) -> list[list[Contestant]]:
    """Return the completions of each process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [list(contestants)]
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, list(contestants))
    return shares
