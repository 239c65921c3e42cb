"""Interleaved timing: the calls take turns in one process, and the median of the turns counts."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds of a call, the work of a GPU included, and its result."""
    _finish()
    start = time.perf_counter()
    result = call()
    _finish()
    return time.perf_counter() - start, result


def medians(calls: Sequence[Callable[[], object]], turns: int, *, warm_up: bool = True) -> list[float]:
    """Return the median seconds of each call over some turns, after one that does not count."""
    if warm_up:
        for call in calls:
            call()
    rounds = [[timed(call)[0] for call in calls] for _ in range(turns)]
    return [statistics.median(taken) for taken in zip(*rounds, strict=True)]


def in_ms(seconds: Sequence[float]) -> list[float]:
    """Return milliseconds, for a column of the format "ms"."""
    return [1000 * value for value in seconds]


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
