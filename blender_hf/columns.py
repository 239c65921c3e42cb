"""Parallel lists, as the methods of `Blender` take them, and what they give back."""

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar

from .errors import InputError
from .inputs import Candidate, Item, as_candidate, as_columns, is_single_prompt
from .rewards import get_rule

Result = TypeVar("Result")


def pairs_of(prompts: Any, candidates_a: Any, candidates_b: Any) -> tuple[Any, Any]:
    """Put two columns of candidates into one column of pairs, for `make_items` to check.

    Returns:
        The prompts and the pairs.

    Raises:
        InputTypeError: If a column is no list or the like.
        InputError: If the columns differ in length.
    """
    if is_single_prompt(prompts):
        return prompts, [candidates_a, candidates_b]
    rows = as_columns({"prompts": prompts, "candidates_a": candidates_a, "candidates_b": candidates_b})
    pairs = zip(rows["candidates_a"], rows["candidates_b"], strict=True)
    return rows["prompts"], [list(pair) for pair in pairs]


def references_of(items: Sequence[Item], single: bool, reference: Any, rule: str | None) -> list[Candidate]:
    """Return what the candidates of each item are compared with."""
    if (reference is None) == (rule is None):
        raise InputError("give either reference=, what to compare with, or rule=, which candidate it is")
    if rule is not None:
        return [Candidate(get_rule(rule)(item.texts)) for item in items]
    rows = as_columns({"prompts": items, "reference": [reference] if single else reference})["reference"]
    return [as_candidate(value, f"{item.where}, reference") for item, value in zip(items, rows, strict=True)]


def unwrapped(results: Iterable[Result], single: bool) -> Result | list[Result]:
    """Return the result of a single prompt, or the list of those of many."""
    return next(iter(results)) if single else list(results)


def check_tie_threshold(tie_threshold: float) -> None:
    """Check how far a probability may be from 0.5 and still be a tie.

    Raises:
        InputError: If it is out of range.
    """
    if not isinstance(tie_threshold, Real) or not 0 <= tie_threshold <= 0.5:
        raise InputError(f"tie_threshold={tie_threshold!r}; it is a distance from probability 0.5, from 0 to 0.5")
