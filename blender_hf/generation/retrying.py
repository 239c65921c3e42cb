"""Asking again after failures that pass: too many requests, an overloaded server, a lost connection, a time-out."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .outcomes import is_transient, retry_after

Result = TypeVar("Result")

# A server that wants a longer pause than this is asked again after this pause.
LONGEST_PAUSE_S = 60.0


async def with_retries(
    ask: Callable[[], Awaitable[Result]], *, timeout: float, max_retries: int, backoff: float
) -> Result:
    """Await what a call gives; repeat the call where its failure may pass.

    Args:
        ask: Makes one request.
        timeout: Seconds that one request may take.
        max_retries: How often it is repeated.
        backoff: Seconds of the first pause; see `pause`.

    Returns:
        What the first successful request gives.

    Raises:
        Exception: The last error, if none succeeds; the first one, if it does not pass.
    """
    for attempt in range(max_retries + 1):
        try:
            return await asyncio.wait_for(ask(), timeout)
        # Every client raises errors of its own.
        except Exception as error:
            if attempt == max_retries or not is_transient(error):
                raise
            await asyncio.sleep(pause(attempt, backoff, retry_after(error)))
    raise AssertionError("unreachable: the last attempt returns or raises")


def pause(attempt: int, backoff: float, asked: float | None = None) -> float:
    """Return how many seconds to wait before the next request.

    Args:
        attempt: How many requests were repeated so far.
        backoff: Seconds of the first pause; they double each time. A random part of up to a half is taken off, so that
            many callers do not come back at once.
        asked: What the server asked for; never less than that, but for `LONGEST_PAUSE_S`.
    """
    doubled = backoff * 2**attempt * random.uniform(0.5, 1)
    return min(max(doubled, asked or 0.0), LONGEST_PAUSE_S)
