"""Work that the host does ahead, while the model is busy."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Given], Made], items: Iterable[Given]) -> Generator[Made, None, None]:
    """Yield `make(item)` of every item in order; the next one is made in the background while this one is used.

    Args:
        make: Called in a thread, for one item at a time.
        items: Read in the caller's thread, one item ahead of what is yielded.

    Returns:
        An iterator of what was made; an error of `make` is raised in its place.
    """
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: Future[Made] | None = None
        for item in items:
            following = worker.submit(make, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
