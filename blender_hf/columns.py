"""Parallel lists, as the methods of `Blender` take them, and what they give back."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from .errors import InputError
from .inputs import Item, is_single_prompt
from .rewards import get_rule

Result = TypeVar("Result")


def pairs_of(prompts: Any, candidates_a: Any, candidates_b: Any) -> Any:
    """Put two columns of candidates into one column of pairs, for `make_items` to check."""
    if is_single_prompt(prompts):
        return [candidates_a, candidates_b]
    for name, column in (("candidates_a", candidates_a), ("candidates_b", candidates_b)):
        if isinstance(column, str) or len(column) != len(prompts):
            raise InputError(f"{name} must be a list with one candidate for each of the {len(prompts)} prompts")
    return [list(pair) for pair in zip(candidates_a, candidates_b, strict=True)]


def references_of(items: Sequence[Item], single: bool, reference: Any, rule: str | None) -> list[str]:
    """Return the text that the candidates of each item are compared with."""
    if (reference is None) == (rule is None):
        raise InputError("give either reference=, a text to compare with, or rule=, which candidate it is")
    if rule is not None:
        return [get_rule(rule)(item.texts) for item in items]
    texts = [reference] if single else reference
    if isinstance(texts, str) or len(texts) != len(items) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"reference must be one text for each of the {len(items)} prompts")
    return list(texts)


def unwrapped(results: Iterable[Result], single: bool) -> Result | list[Result]:
    """Return the result of a single prompt, or the list of those of many."""
    return next(iter(results)) if single else list(results)


def check_tie_threshold(tie_threshold: float) -> None:
    """Check how far a probability may be from 0.5 and still be a tie.

    Raises:
        InputError: If it is out of range.
    """
    if not 0 <= tie_threshold <= 0.5:
        raise InputError(f"tie_threshold={tie_threshold}; it is a distance from probability 0.5, from 0 to 0.5")
