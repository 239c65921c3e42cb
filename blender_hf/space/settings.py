"""What a visitor can choose, checked when it is put together."""

from dataclasses import dataclass
from typing import Any

from blender_hf.aggregation import get_aggregation
from blender_hf.errors import InputError
from blender_hf.schedules import Schedule

from .limits import DEFAULT_LIMITS


@dataclass(frozen=True)
class RankingSettings:
    """How candidates are ranked.

    Args:
        schedule: Name of the schedule that chooses the comparisons.
        aggregation: Name of the aggregation that turns comparisons into scores.
        top_k: How many of the best matter.
        tie_threshold: How far, 0 to 0.5, a probability may be from 0.5 and still be called a tie.

    Raises:
        InputError: If an option does not exist or is out of range.
    """

    schedule: str = "full"
    aggregation: str = "max_logits"
    top_k: int = 3
    tie_threshold: float = 0.02

    def __post_init__(self) -> None:
        get_aggregation(self.aggregation)
        self.as_schedule()
        if not 0 <= self.tie_threshold <= 0.5:
            raise InputError(f"tie_threshold={self.tie_threshold}; it is a distance from 0.5, from 0 to 0.5")

    def as_schedule(self) -> Schedule:
        """Return the schedule; one that compares all pairs has no use for the best K."""
        return Schedule(self.schedule, None if self.schedule == "full" else self.top_k)


@dataclass(frozen=True)
class FusionSettings:
    """How the fuser writes.

    Args:
        max_new_tokens: Most tokens that it writes.
        num_beams: Beams of its search; with 1 the text can be shown as it is written.

    Raises:
        InputError: If an option is out of range.
    """

    max_new_tokens: int = 768
    num_beams: int = 1

    def __post_init__(self) -> None:
        for name, most in (("max_new_tokens", DEFAULT_LIMITS.new_tokens), ("num_beams", DEFAULT_LIMITS.beams)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name}={getattr(self, name)}; use a whole number from 1 to {most}")

    def generation(self) -> dict[str, Any]:
        """Return the options of `generate`."""
        return {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams}

    def chat_generation(self) -> dict[str, Any]:
        """Return the options of a chat model, which has no beams."""
        return {"max_new_tokens": self.max_new_tokens}
