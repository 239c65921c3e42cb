"""How many questions a job takes, before any is asked."""

from collections.abc import Iterable

from blender_hf.engine.schedules import Schedule
from blender_hf.inputs import Item


def most_requests(items: Iterable[Item], schedule: Schedule | None = None, n_criteria: int = 1) -> int:
    """Return how many questions ranking items takes at most, without those that a cache answers.

    Args:
        items: Prompts with their candidates.
        schedule: Which pairs are compared; None is all, in both orders.
        n_criteria: How many criteria the judge is asked for.

    >>> from blender_hf.inputs import make_item
    >>> most_requests([make_item("2 + 2?", ["4", "5", "5", "6"])], n_criteria=2)
    12
    """
    how = schedule or Schedule()
    orders = 2 if how.orders == "both" else 1
    return n_criteria * orders * sum(how.max_comparisons(len(set(item.texts))) for item in items)
