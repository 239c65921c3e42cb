"""Work on items from any iterable, a window at a time: batches are full, and memory stays constant."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TypeVar

from blender_hf.errors import InputError

Given = TypeVar("Given")
Made = TypeVar("Made")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def windowed(
    items: Iterable[Given],
    prepare: Callable[[Sequence[Given]], Prepared],
    work: Callable[[Sequence[Given], Prepared], list[Result]],
    window: int,
) -> Iterator[Result]:
    """Yield one result an item, lazily and in order; an error of the source comes after the results before it."""
    if window < 1:
        raise InputError(f"window={window}; use 1 or more")

    def prepared(read: tuple[list[Given], Exception | None]) -> tuple[list[Given], Exception | None, Prepared]:
        return *read, prepare(read[0])

    def results() -> Iterator[Result]:
        # Closed explicitly: whoever stops early knows that nothing is being prepared any more.
        with closing(one_ahead(prepared, _windows(items, window))) as windows:
            for batch, error, ready in windows:
                if batch:
                    yield from work(batch, ready)
                if error is not None:
                    raise error

    return results()


def with_results(
    sources: Iterable[Given], item_of: Callable[[Given], Made], work: Callable[[Iterable[Made]], Iterable[Result]]
) -> Iterator[tuple[Given, Result]]:
    """Yield each source with the result of its item, where `work` reads ahead and gives one result an item, in order.

    >>> list(with_results(["a", "bc"], len, lambda lengths: (length > 1 for length in lengths)))
    [('a', False), ('bc', True)]
    """
    waiting: deque[Given] = deque()

    def items() -> Iterator[Made]:
        for source in sources:
            waiting.append(source)
            yield item_of(source)

    for result in work(items()):
        yield waiting.popleft(), result


def one_ahead(make: Callable[[Given], Made], items: Iterable[Given]) -> Generator[Made, None, None]:
    """Yield `make(item)` for every item in order; the next one is made in a thread while this one is used.

    Items are read in the caller's thread, one ahead of what is yielded. An error of `make` is raised in its place.
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


def _windows(items: Iterable[Given], window: int) -> Iterator[tuple[list[Given], Exception | None]]:
    """Yield windows of items, the last one with the error that ended them: what came before it is still worked on."""
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
