"""Locks for what threads share, one thread for requests that come at about the same time, and an event loop.

- A fast tokenizer of transformers keeps in itself whether special tokens are read out of a text, and whether and how
  it cuts and pads; setting these while another thread tokenizes raises "Already borrowed", or changes what that gets.
- A model may keep something from one forward to the next, as RoPE does that is made for the length; and several
  batches at once would take several times the memory that one was chosen for.

A fork has none of its parent's threads, so locks and threads are made anew in it.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Condition, Lock, RLock, Thread
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch

from blender_hf.errors import BlenderError
from blender_hf.inputs import Item

Made = TypeVar("Made")
Result = TypeVar("Result")

# How long, in seconds, the first of several requests waits for others: little beside the work on any of them.
MAX_WAIT = 0.004
# How many items are worked on together; a request that has more is worked on alone.
MAX_ITEMS = 32
# Synchronous clients wait in threads; asyncio's default is a handful.
N_THREADS = 64

Work = Callable[[Sequence[Item]], Iterable[Any]]


class PerObject(Generic[Made]):
    """One thing for each object, made when it is first asked for, and gone with the object.

    Kept outside the objects, so that they can be pickled. A fork begins anew: it has none of its parent's threads, so a
    lock that one of them holds would never be released.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def of(self, shared: Any) -> Made:
        """Return the one of an object, which must compare by identity."""
        with self._making:
            if shared not in self._made:
                self._made[shared] = self._make()
            return self._made[shared]

    def __len__(self) -> int:
        return len(self._made)

    def _forget(self) -> None:
        self._made: WeakKeyDictionary[Any, Made] = WeakKeyDictionary()
        self._making = Lock()


_locks = PerObject(RLock)


def lock_of(shared: Any) -> Any:
    """Return the reentrant lock of an object that compares by identity, such as a tokenizer or a model."""
    return _locks.of(shared)


_ran_in: int | None = None
_starting = Lock()


def lock_to_run(model: Any) -> Any:
    """Return the lock of a model that is about to run, after making sure that it can run in this process.

    The threads with which torch computes are missing in a fork of a process that has computed, where an operation would
    wait for them forever; so there it computes with one thread. A GPU can't be shared with a fork at all.

    Raises:
        BlenderError: If this is a fork of a process that has run a model on a GPU.
    """
    global _ran_in
    if _ran_in not in (None, os.getpid()):
        if model.device.type != "cpu":
            raise BlenderError(
                f"this process is a fork of one that has used {model.device}, which can't be shared: start processes "
                "by multiprocessing.get_context('spawn'), or keep num_proc=1, as one process fills the device"
            )
        torch.set_num_threads(1)
    _ran_in = os.getpid()
    return lock_of(model)


@dataclass(frozen=True, eq=False)
class Request:
    """What one caller wants done; requests of the same kind have the same `work` and may be worked on together."""

    kind: Hashable
    items: Sequence[Item]
    work: Work
    future: Future[list[Any]] = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)


class MicroBatcher:
    """Collects requests for a few milliseconds or up to a batch, and works on those of a kind together.

    The first come first. An error in one request fails that request alone, and one that is cancelled before the work on
    it begins costs nothing. The thread is started by the first request, and ends with this object.

    Args:
        max_wait: How long a request waits for others, in seconds.
        max_items: How many items are worked on together.
    """

    def __init__(self, max_wait: float = MAX_WAIT, max_items: int = MAX_ITEMS) -> None:
        self.max_wait = max_wait
        self.max_items = max_items
        self._changed = Condition()
        self._waiting: deque[Request] = deque()
        self._working = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="blender-hf")

    def submit(self, kind: Hashable, items: Sequence[Item], work: Work) -> Future[list[Any]]:
        """Return a future of the results of items, from any thread; requests of a kind may be worked on together."""
        request = Request(kind, items, work)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
            if not self._working:
                self._working = True
                self._worker.submit(self._work_off)
        return request.future

    def _work_off(self) -> None:
        while batch := self._next_batch():
            _answer([request for request in batch if request.future.set_running_or_notify_cancel()])

    def _next_batch(self) -> list[Request]:
        """Wait until it is time, and take the requests of the first's kind; none if none waits."""
        with self._changed:
            if not self._waiting:
                self._working = False
                return []
            first = self._waiting[0]
            while self._n_items(first.kind) < self.max_items:
                left = first.arrived + self.max_wait - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._take(first.kind)

    def _n_items(self, kind: Hashable) -> int:
        return sum(len(request.items) for request in self._waiting if request.kind == kind)

    def _take(self, kind: Hashable) -> list[Request]:
        taken: list[Request] = []
        room = self.max_items
        for request in [request for request in self._waiting if request.kind == kind]:
            if taken and len(request.items) > room:
                break
            taken.append(request)
            room -= len(request.items)
        self._waiting = deque(request for request in self._waiting if request not in taken)
        return taken


def _answer(batch: Sequence[Request]) -> None:
    """Work on requests together; if that fails, on each half, so that one request's error is its own."""
    if not batch:
        return
    try:
        results = iter(list(batch[0].work([item for request in batch for item in request.items])))
        shares = [[next(results) for _ in request.items] for request in batch]
    # Whatever it is, it belongs to a caller; the thread goes on.
    except BaseException as error:
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        _answer(batch[: len(batch) // 2])
        _answer(batch[len(batch) // 2 :])
        return
    for request, share in zip(batch, shares, strict=True):
        request.future.set_result(share)


def in_background(coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
    """Start a coroutine in a background event loop, also for callers inside a loop of their own, such as notebooks.

    Cancelling the future cancels the coroutine.
    """
    with _starting:
        loop = _loop_of(os.getpid())
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    """Return the loop of a process: a fork has none of its parent's threads, so it gets a loop of its own."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(N_THREADS, thread_name_prefix="blender-hf-client"))
    Thread(target=loop.run_forever, name="blender-hf-remote", daemon=True).start()
    return loop


def wait_for(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in the background event loop and return its result; an interrupt here cancels it."""
    future = in_background(coroutine)
    try:
        return future.result()
    finally:
        future.cancel()


async def together(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return the results of coroutines that run at the same time.

    If one fails, the others are cancelled, and its error is raised when they have ended.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
