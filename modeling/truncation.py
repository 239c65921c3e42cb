"""How far and at which end texts are cut: the same settings for a model's configuration and for its processor."""

from typing import Any

TRUNCATION_SIDES = ("left", "right")
LENGTHS = ("max_pair_length", "max_source_length", "max_candidate_length")
SIDES = ("source_truncation_side", "candidate_truncation_side")
TRUNCATION = (*LENGTHS, *SIDES)


def check_truncation(settings: Any) -> None:
    """Check the lengths and sides of a configuration or a processor.

    Args:
        settings: Whatever has the attributes of `TRUNCATION`.

    Raises:
        ValueError: If a length or a side can't work.
    """
    for name in LENGTHS:
        value = getattr(settings, name)
        if not isinstance(value, int):
            raise ValueError(f"{name}={value!r}; use a whole number of tokens")
        # An empty part is its special tokens alone, three at most: below this there is no room for text.
        if value < 8:
            raise ValueError(f"{name}={value} leaves no room for text; use 8 or more")
    if settings.max_pair_length - settings.max_source_length < 16:
        raise ValueError(
            f"max_source_length={settings.max_source_length} leaves fewer than 8 tokens a candidate of "
            f"max_pair_length={settings.max_pair_length}"
        )
    for name in SIDES:
        if getattr(settings, name) not in TRUNCATION_SIDES:
            raise ValueError(f"{name}={getattr(settings, name)!r}; use one of {', '.join(TRUNCATION_SIDES)}")
