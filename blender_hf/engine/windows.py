"""Work on items from any iterable, a window of them at a time: batches are filled, and memory stays constant."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TypeVar

from blender_hf.errors import InputError

from .prefetch import one_ahead

Given = TypeVar("Given")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def windowed(
    items: Iterable[Given],
    prepare: Callable[[Sequence[Given]], Prepared],
    work: Callable[[Sequence[Given], Prepared], list[Result]],
    window: int,
) -> Iterator[Result]:
    """Yield one result an item, lazily and in order.

    Args:
        items: They may come from a generator of any length; it is read one window ahead.
        prepare: What the host does with the items of a window, ahead of the work on them.
        work: Turns the items of a window and what was prepared into results.
        window: How many items are worked on together.

    Returns:
        An iterator of results. An error of the source is raised after the results of what came before it.

    Raises:
        InputError: If the window is empty.
    """
    if window < 1:
        raise InputError(f"window={window}; at least one item is worked on at a time")

    def results() -> Iterator[Result]:
        # Closed with certainty: whoever leaves early knows that nothing is being prepared any more.
        with closing(one_ahead(lambda read: (*read, prepare(read[0])), _windows(items, window))) as windows:
            for batch, error, prepared in windows:
                if batch:
                    yield from work(batch, prepared)
                if error is not None:
                    raise error

    return results()


def _windows(items: Iterable[Given], window: int) -> Iterator[tuple[list[Given], Exception | None]]:
    """Yield windows of items, and with the last the error that ended them: what came before it is still worked on."""
    source = iter(items)
    full = True
    while full:
        batch: list[Given] = []
        error = None
        try:
            batch.extend(islice(source, window))  # keeps what was read when reading fails
        except Exception as raised:
            error = raised
        full = len(batch) == window
        yield batch, error
