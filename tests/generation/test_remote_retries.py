"""Retries without a network: which errors are transient, and how long is waited."""

import asyncio
import socket
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from blender_hf.generation.outcomes import is_transient, reason_of, retry_after, status_of, unreachable
from blender_hf.generation.remote import MAX_PAUSE_S, pause, with_retries


class StatusError(Exception):
    def __init__(self, status: int, headers: dict[str, str] | None = None, payload: Any = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers or {}
        self.response_error_payload = payload


def attempts(errors: list[Exception], **settings: Any) -> tuple[Any, int]:
    """Let requests fail with these errors, one after the other; return the result and how many were made."""
    made = 0

    async def ask() -> str:
        nonlocal made
        made += 1
        if errors:
            raise errors.pop(0)
        return "done"

    options = {"timeout": 5.0, "max_retries": 3, "backoff": 0.0, **settings}
    return asyncio.run(with_retries(ask, **options)), made


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int) -> None:
    assert attempts([StatusError(status), StatusError(status)]) == ("done", 3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_does_not_pass_is_asked_once(status: int) -> None:
    errors = [StatusError(status)] * 2
    with pytest.raises(StatusError):
        attempts(errors)
    assert len(errors) == 1


def test_the_last_error_is_raised() -> None:
    errors = [StatusError(500), StatusError(502), StatusError(503)]
    with pytest.raises(StatusError, match="503"):
        attempts(errors, max_retries=2)


def test_a_request_that_takes_too_long_is_repeated() -> None:
    made = 0

    async def ask() -> str:
        nonlocal made
        made += 1
        if made == 1:
            await asyncio.sleep(60)
        return "done"

    assert asyncio.run(with_retries(ask, timeout=0.05, max_retries=1, backoff=0)) == "done"


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("slow"), True),
        (OfflineModeIsEnabled("offline"), False),
        (ValueError("a bug"), False),
    ],
)
def test_errors_without_a_status(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def caused(error: Exception, cause: BaseException) -> Exception:
    """Return an error as a client raises it from that of the system."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "refused"), "the connection was refused: no server listens at its address"),
        (
            caused(
                httpx.ConnectError("All connection attempts failed"),
                caused(OSError(), ExceptionGroup("several", [ConnectionRefusedError(), TimeoutError()])),
            ),
            "the connection was refused: no server listens at its address",
        ),
        (caused(httpx.ConnectError("no"), socket.gaierror(-2, "unknown")), "the host of its address is unknown"),
        (httpx.ConnectError("lost"), None),
        (ConnectionResetError(), None),
    ],
)
def test_servers_that_are_not_there(error: Exception, reason: str | None) -> None:
    assert unreachable(error) == reason
    assert reason is None or reason_of(error) == reason


def test_pauses_double_and_have_an_end() -> None:
    for attempt, longest in ((0, 1), (1, 2), (4, 16)):
        assert all(longest / 2 <= pause(attempt, 1.0) <= longest for _ in range(50))
    assert pause(30, 1.0) == MAX_PAUSE_S
    assert pause(0, 1.0, asked=7.0) == 7.0
    assert pause(0, 1.0, asked=1e6) == MAX_PAUSE_S


def test_the_server_says_how_long_to_wait() -> None:
    assert retry_after(StatusError(429, {"Retry-After": "3"})) == 3
    date = formatdate(time.time() + 100, usegmt=True)
    assert 90 < (retry_after(StatusError(429, {"Retry-After": date})) or 0) <= 100
    assert retry_after(StatusError(429, {"Retry-After": formatdate(0, usegmt=True)})) == 0
    assert retry_after(StatusError(429, {"Retry-After": "soon"})) is None
    assert retry_after(StatusError(429)) is None
    response = SimpleNamespace(headers=httpx.Headers({"retry-after": "2"}), status_code=429)
    error = Exception("of another client")
    error.response = response  # type: ignore[attr-defined]
    assert (retry_after(error), status_of(error)) == (2, 429)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StatusError(401), "the token was refused"),
        (StatusError(400, payload={"error": {"message": "too\nlong"}}), "the server answered 400 (too long)"),
        (StatusError(422, payload={"error": "bad"}), "the server answered 422 (bad)"),
        (StatusError(422, payload={"detail": [1]}), "the server answered 422 ([1])"),
        (TimeoutError(), "it took too long to answer"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("two\nlines"), "two lines"),
    ],
)
def test_reasons_are_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
