"""What a visitor can choose, and how much at once; both are checked before any model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from blender_hf.engine.aggregation import AGGREGATIONS
from blender_hf.engine.schedules import Schedule
from blender_hf.errors import InputError, InputTypeError, chosen
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


class Settings:
    """Settings that come from outside, where null stands for the default."""

    @classmethod
    def chosen(cls, **given: Any) -> Self:
        """Return the settings with what was given; the rest, and what is None, as it is by default."""
        return cls(**{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class RankingSettings(Settings):
    """How candidates are ranked.

    Raises:
        InputError: If an option does not exist or is out of range.
        InputTypeError: If an option has the wrong type.
    """

    schedule: str = "full"  # name of the schedule that chooses the comparisons
    aggregation: str = "max_logits"  # name of the aggregation that turns comparisons into scores
    top_k: int = 3  # how many of the best matter
    tie_threshold: float = 0.02  # how far, 0 to 0.5, a probability may be from 0.5 and still be called a tie

    def __post_init__(self) -> None:
        _check_type("schedule", self.schedule, str, "a text")
        _check_type("aggregation", self.aggregation, str, "a text")
        _check_type("top_k", self.top_k, int, "a whole number")
        _check_type("tie_threshold", self.tie_threshold, int | float, "a number")
        chosen(AGGREGATIONS, self.aggregation, "aggregation")
        self.as_schedule()
        if not 0 <= self.tie_threshold <= 0.5:
            raise InputError(f"tie_threshold={self.tie_threshold}; it is a distance from 0.5, from 0 to 0.5")

    def as_schedule(self) -> Schedule:
        """Return the schedule; one that compares all pairs has no use for the best K."""
        return Schedule(self.schedule, None if self.schedule == "full" else self.top_k)


@dataclass(frozen=True)
class FusionSettings(Settings):
    """How the fuser writes.

    Raises:
        InputError: If an option is out of range.
        InputTypeError: If an option is no whole number.
    """

    max_new_tokens: int = 448  # most tokens that it writes
    num_beams: int = 1  # beams of its search; with 1 the text can be shown as it is written

    def __post_init__(self) -> None:
        for name, most in (("max_new_tokens", DEFAULT_LIMITS.new_tokens), ("num_beams", DEFAULT_LIMITS.beams)):
            _check_type(name, getattr(self, name), int, "a whole number")
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name}={getattr(self, name)}; use a whole number from 1 to {most}")

    def generation(self) -> dict[str, Any]:
        """Return the options of `generate`."""
        return {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams}

    def chat_generation(self) -> dict[str, Any]:
        """Return the options of a chat model, which has no beams."""
        return {"max_new_tokens": self.max_new_tokens}


def check_item(item: Item, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check the size of a prompt with its candidates."""
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
    """Check the size of a batch."""
    if not items:
        raise InputError("there are no prompts in it; one line is one prompt with its candidates")
    if len(items) > limits.prompts:
        raise InputError(f"{len(items)} prompts; at most {limits.prompts} are ranked here at once")
    for item in items:
        check_item(item, limits)


def _check_type(name: str, value: Any, kind: Any, words: str) -> None:
    # A boolean is an int to Python.
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputTypeError(f"{name}={value!r}; give {words}")
