"""Errors that a server reports in a reply with status 200, and the status that each stands for.

Routers and gateways send the status before they know what the provider behind them says; others never send another.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

# What an error's code, type or message says, by the status that it stands for; the first that matches counts.
MEANINGS = {
    402: r"insufficient.?(quota|balance|credit|fund)|exceeded your current quota|billing|payment|out of credit",
    429: r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl|(requests|tokens) per (second|minute|day)|quota"
    r"|error code: 1015",
    401: r"unauthori[sz]ed|unauthenticated|authenticat|(invalid|incorrect|missing).{0,12}api.?key",
    403: r"permission|forbidden",
    404: r"not.?found|no such model|does not exist",
    400: r"invalid.?(request|argument|param)|bad.?request|context.?length|content.?(filter|policy)|moderation"
    r"|value_error|field required",
    503: r"overload|unavailable|capacity|\bbusy\b|try again|loading|connect(ion)? (error|reset)",
    504: r"time.?out|timed out|deadline",
    500: r"internal|server.?error|api.?error",
}
# Types of errors that providers give to all that have no other, so what the message says of these counts more.
CATCH_ALL, SAID = (400, 500), (402, 429, 503)
# The status of an error that is none of these: one behind a gateway.
UNKNOWN = 502
CODES = ("code", "status", "status_code", "statusCode", "http_status", "error_code", "type")
MESSAGES = ("message", "detail", "msg", "status_msg", "error_msg", "errorMessage", "error", "reason", "title")
NO_ANSWER = "the reply has no answer: the server does not have OpenAI's API, so check the address, or it failed"
PAUSES = ("retry_after", "retry_after_seconds", "retryAfter", "retryDelay")
PAUSE_IN_TEXT = re.compile(r"(?:again|retry) (?:in|after) (\d+(?:\.\d+)?) ?(ms|m)?", re.IGNORECASE)
HTML_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)


class ReplyError(Exception):
    """An error in a reply with status 200.

    Args:
        message: What the server says.
        status: The status that it stands for.
        pause: How many seconds the server asks to wait, or None.
    """

    def __init__(self, message: str, status: int, pause: str | float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.response_error_payload = {"error": message}
        self.headers = (
            {} if pause is None else {"Retry-After": str(pause if isinstance(pause, str) else math.ceil(pause))}
        )


def check_body(body: str | bytes, headers: Mapping[str, str] | None = None) -> None:
    """Raise ReplyError if a body reports an error: as JSON, as an event of a stream, or as the page of a gateway."""
    text = (body.decode(errors="replace") if isinstance(body, bytes) else body).strip()
    pause = (headers or {}).get("Retry-After")
    if not text:
        raise ReplyError("the reply is empty", UNKNOWN, pause)
    try:
        check_reply(json.loads(text), pause)
    except json.JSONDecodeError:
        for event in _events(text):
            if _get(event, "error") or not _get(event, "choices"):
                check_reply(event, pause)
        if text.startswith(("{", "[")):
            raise ReplyError("the reply is cut off", UNKNOWN, pause) from None
        said = _page(text)
        if (status := _status_in(said)) is not None:
            raise ReplyError(said, status, pause) from None


def check_status(status: int, text: str, headers: Mapping[str, str]) -> None:
    """Raise ReplyError unless a reply has status 200 and is JSON without an error; it need be no answer of a chat."""
    pause = headers.get("Retry-After")
    try:
        reply = json.loads(text)
    except json.JSONDecodeError:
        said = _page(text) or "the reply is empty"
        raise ReplyError(said, UNKNOWN if status == 200 else status, pause) from None
    places = [reply, *(_get(reply, name) for name in ("error", "errors", "detail"))]
    if status != 200:
        found = _innermost(next(filter(_says_something, reversed(places)), None))
        raise ReplyError(_message(found) if found else "", status, pause)
    if error := next(filter(_says_something, (_get(reply, name) for name in ("error", "errors"))), None):
        raise _error(error, pause)


def check_reply(reply: Any, pause: str | None = None) -> None:
    """Raise ReplyError if a reply, as JSON or as a client's object, reports an error or has no answer."""
    if isinstance(reply, str | bytes):  # some clients return what is not JSON as it is
        check_body(reply)
        raise ReplyError("the reply is not JSON", 400)
    reply = reply[0] if isinstance(reply, list) and reply else reply  # as Google has it
    choices = _get(reply, "choices")
    first = choices[0] if isinstance(choices, list | tuple) and choices else None
    message = _get(first, "message")
    for place, name in ((reply, "error"), (reply, "errors"), (first, "error"), (message, "error")):
        if _says_something(error := _get(place, name)):
            # A number, or True, is beside what is said of it.
            raise _error(
                {**place, "code": error} if isinstance(error, int) and isinstance(place, dict) else error, pause
            )
    if _get(first, "finish_reason") == "error":
        raise _error(_get(first, "native_finish_reason") or "the provider failed", pause)
    if first is None:
        raise _error(reply if any(_get(reply, name) for name in MESSAGES) else _get(reply, "base_resp"), pause)
    if message is None:
        raise _error(None, pause)


def _error(error: Any, pause: str | None) -> ReplyError:
    error = _innermost(error)
    parts = [
        error,
        _get(error, "metadata"),
        *(_get(error, "details") or () if isinstance(_get(error, "details"), list) else ()),
    ]
    message = _message(error)
    raw = _get(_get(error, "metadata"), "raw")
    message = f"{message}: {raw}" if isinstance(raw, str) and raw and raw != message else message
    stated = pause or next(filter(None, (_get(part, name) for part in parts for name in PAUSES)), None)
    return ReplyError(message, _status(error, message), _seconds(stated, message))


def _page(text: str) -> str:
    """Return in one line what a body says that is not JSON, mostly the page of a gateway."""
    title = HTML_TITLE.search(text)
    return re.sub(r"\s+", " ", title[2] if title is not None else text[:200]).strip()


def _innermost(error: Any) -> Any:
    if isinstance(error, list | tuple):
        return _innermost(error[0]) if error else None
    inner = _get(error, "error")
    return _innermost(inner) if isinstance(inner, Mapping | list) and inner else error


def _message(error: Any) -> str:
    if isinstance(error, str):
        return error
    said = next(filter(None, (_get(error, name) for name in (*MESSAGES, *CODES))), None)
    return said if isinstance(said, str) else json.dumps(said, default=str) if said else NO_ANSWER


def _status(error: Any, message: str) -> int:
    codes = [_get(error, name) for name in CODES]
    numbers = [int(code) for code in codes if isinstance(code, int | str) and str(code).isdecimal()]
    stated = [number for number in numbers if 400 <= number < 600]
    symbols = [found for code in codes if isinstance(code, str) and (found := _meaning(code)) is not None]
    said = _status_in(message)
    if not stated and said in SAID and all(symbol in CATCH_ALL for symbol in symbols):
        return said
    return next(iter((*stated, *symbols)), None) or said or UNKNOWN


def _status_in(text: str) -> int | None:
    number = re.search(r"(?:^|error|status|code|http)\W{0,3}([45]\d\d)\b", text, re.IGNORECASE)
    return int(number[1]) if number is not None else _meaning(text)


def _meaning(text: str) -> int | None:
    return next((status for status, words in MEANINGS.items() if re.search(words, text, re.IGNORECASE)), None)


def _seconds(stated: Any, message: str) -> str | float | None:
    if isinstance(stated, int | float):
        return stated
    if isinstance(stated, str):
        number = stated.removesuffix("s")
        return float(number) if re.fullmatch(r"\d+(\.\d+)?", number) else stated
    found = PAUSE_IN_TEXT.search(message)
    return None if found is None else float(found[1]) * {"ms": 0.001, "m": 60.0, None: 1.0}[found[2]]


def _says_something(error: Any) -> bool:
    return any(map(_says_something, error.values())) if isinstance(error, Mapping) else bool(error)


def _events(text: str) -> Iterator[Any]:
    """Yield the data of a stream's events, which some servers send unasked."""
    for line in text.splitlines():
        if line.startswith("data:") and "{" in line:
            try:
                yield json.loads(line.removeprefix("data:"))
            except json.JSONDecodeError:
                continue


def _get(part: Any, name: str) -> Any:
    if isinstance(part, Mapping):
        return part.get(name)
    return None if isinstance(part, str) else getattr(part, name, None)
