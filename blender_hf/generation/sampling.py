"""Sampling options of language models."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from blender_hf.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Sampling:
    """Sampling options of a language model.

    Args:
        n: Answers of each model to a prompt. More than one are sampled.
        max_new_tokens: Most tokens of an answer, including the thoughts of a reasoning model.
        temperature: 0 is greedy; None is the default of the model or its server.
        top_p: Sample from the likeliest tokens whose probabilities add up to this, above 0 and at most 1; None is the
            default of the model or its server.
        seed: Random seed, as far as the model or its server supports one; where each answer is a request of its own,
            answer k of a model has `seed + k`.

    Raises:
        InputError: If a value is out of range.
    """

    n: int = 1
    max_new_tokens: int = 512
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_new_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}={value!r}; use a whole number of {least} or more")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature={self.temperature}; use 0 or more, or None for the model's default")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(
                f"top_p={self.top_p}; use a probability above 0 and at most 1, or None for the model's default"
            )
        if self.n > 1 and self.temperature == 0:
            raise InputError(f"n={self.n} answers at temperature 0 are all the same; use n=1 or a higher temperature")


def as_sampling(value: Sampling | Mapping[str, Any] | None, default: Sampling | None = None) -> Sampling:
    """Return sampling options."""
    if isinstance(value, Sampling):
        return value
    if value is not None and not isinstance(value, Mapping):
        raise InputTypeError(f"sampling must be a Sampling or a mapping of its options, not {type(value).__name__}")
    names = [field.name for field in fields(Sampling)]
    unknown = sorted(str(name) for name in value or {} if name not in names)
    if unknown:
        raise InputError(f"a language model has no option {', '.join(unknown)}; it has {', '.join(names)}")
    base = default or Sampling()
    return Sampling(**{name: getattr(base, name) for name in names} | dict(value or {}))
