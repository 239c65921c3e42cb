"""Outcomes of requests to a language model: a reply, or the reason of a failure."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import huggingface_hub

from blender_hf.modeling.conversations import Message

KNOWN = {
    401: "the token was refused",
    402: "the account has no credits left",
    403: "the token may not be used for this",
    404: "there is no such model at this endpoint",
    429: "too many requests; wait a little",
}
# The same request may succeed a little later. 520 to 524 are Cloudflare's, for a server that it did not reach.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529})
# No request to this model will succeed until somebody changes something.
FATAL = frozenset({401, 402, 403, 404})
# Errors of these libraries that have no status are those of a connection.
CONNECTING = ("aiohttp", "httpcore", "httpx", "httpx2", "openai", "requests")
MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Reply:
    """The answer of a language model without its thoughts, and whether `max_new_tokens` cut it.

    `messages` are those of an answer that calls tools; `text` is then `render_answer` of them.
    """

    text: str
    truncated: bool = False
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """The name of a language model that gave no answer, and why, in one line."""

    model: str
    reason: str


Outcome = Reply | Failure
# A pending call of a model: for each conversation, one outcome per answer wanted.
Answers = Future[list[tuple[Outcome, ...]]]


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error, whichever client raised it; None if it has none."""
    response = getattr(error, "response", None)
    found = (getattr(error, "status", None), *(getattr(one, "status_code", None) for one in (error, response)))
    return next((status for status in found if isinstance(status, int)), None)


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed a little later."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    if isinstance(error, huggingface_hub.errors.OfflineModeIsEnabled):
        return False
    is_of_client = type(error).__module__.split(".")[0] in CONNECTING and not isinstance(error, ValueError)
    return is_of_client or isinstance(error, TimeoutError | ConnectionError)


def unreachable(error: BaseException) -> str | None:
    """Return why a server can't be reached at all, or None: there is no such host, or nothing listens at its port."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: no server listens at its address"
        if isinstance(cause, socket.gaierror):
            return "the host of its address is unknown"
    return None


def retry_after(error: BaseException) -> float | None:
    """Return how many seconds a server asks to wait, or None."""
    headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("Retry-After")
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())


def reason_of(error: BaseException) -> str:
    """Return in one line why a request failed: the meaning of its status, and the message of the server."""
    status = status_of(error)
    said = _said(error)
    if isinstance(error, json.JSONDecodeError):
        return "the server's reply is not JSON, so it does not have OpenAI's API; check the address"
    if status is None:
        return _one_line(said or unreachable(error) or str(error)) or type(error).__name__
    meaning = KNOWN.get(status, f"the server answered {status}")
    return f"{meaning} ({_one_line(said)})" if said else meaning


def empty_reason(truncated: bool) -> str:
    """Return why an answer is empty."""
    if truncated:
        return "it gave no answer within max_new_tokens; a model that thinks first needs more"
    return "it gave an empty answer"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it: clients raise their own errors from those of the system."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__]
            waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long to answer"
    payload = getattr(error, "response_error_payload", None)
    if payload is None:
        payload = _body(getattr(error, "response", None))
    if isinstance(payload, dict):
        # {"error": {"message"}} is OpenAI's form, {"error"} TGI's and Ollama's; older vLLM and FastAPI have others.
        found: Any = payload.get("error") or payload.get("message") or payload.get("detail") or ""
        found = found.get("message", "") if isinstance(found, dict) else found
        return found if isinstance(found, str) else json.dumps(found)
    return getattr(error, "server_message", None) or ""


def _body(response: Any) -> Any:
    try:
        return response.json()
    except (AttributeError, TypeError, ValueError):
        return None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_LENGTH else line[:MESSAGE_LENGTH] + "..."
