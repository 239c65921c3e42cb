"""An event loop in the background, so that functions that are not async can ask many models at once.

It also serves callers that are inside an event loop of their own, as notebooks are.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")

# Clients that are not async wait for their answers in threads; the default of asyncio is a handful.
THREADS = 64

_starting = threading.Lock()


def in_background(coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
    """Start a coroutine in the background; cancelling the future cancels it."""
    with _starting:
        loop = _loop_of(os.getpid())
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    """Return the loop of a process: a fork has none of the threads of its parent, so it gets a loop of its own."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="blender-hf-client"))
    threading.Thread(target=loop.run_forever, name="blender-hf-remote", daemon=True).start()
    return loop
