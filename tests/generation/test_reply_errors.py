"""Errors of a server in a reply with status 200: asked again, or named, like the status that they stand for."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from blender_hf import RemoteLLM, generate
from blender_hf.generation.chat_fuser import ChatFuser
from blender_hf.generation.judge import Judge, Task
from blender_hf.generation.outcomes import Failure, Reply, retry_after
from blender_hf.generation.reply_errors import ReplyError, check_body
from blender_hf.inputs import make_item
from tests.generation.test_remote import ask, model_of
from tests.language_server import Fault, LanguageServer

BUSY = {"error": {"message": "Rate limit exceeded", "code": 429}}
TOO_MANY = "too many requests; wait a little"


def of_choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, **fields}]}


# What a body says, the status that it stands for, and its reason.
BODIES = [
    (BUSY, 429, "Rate limit exceeded"),
    ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
    ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, "slow down"),
    ({"error": {"message": "slow down", "type": "too_many_requests"}}, 429, "slow down"),
    ({"error": {"message": "m", "status": "RESOURCE_EXHAUSTED"}}, 429, "m"),
    ({"error": "Rate limit reached, try again in 20s"}, 429, "Rate limit reached"),
    ({"error": {"error": {"message": "m", "status_code": 503}}}, 503, "m"),
    ([{"error": {"message": "m", "code": 503}}], 503, "m"),
    ({"errors": [{"message": "m", "code": 500}]}, 500, "m"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 503, "Overloaded"),
    ({"object": "error", "message": "the engine is dead", "type": "InternalServerError", "code": 500}, 500, "engine"),
    ({"detail": "Service unavailable"}, 503, "Service unavailable"),
    ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429, "rate limit"),
    ({"error": {"message": "no credit", "code": "insufficient_quota"}}, 402, "no credit"),
    ({"error": {"message": "m", "type": "invalid_api_key"}}, 401, "m"),
    ({"error": "model 'm' not found"}, 404, "not found"),
    ({"error": {"message": "too long", "type": "invalid_request_error"}}, 400, "too long"),
    ({"error": {"message": "odd"}}, 502, "odd"),
    (
        {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "no slots"}}},
        *(429, "Provider returned error: no slots"),
    ),
    (of_choice(finish_reason="error", error={"code": 503, "message": "gone"}), 503, "gone"),
    (of_choice(finish_reason="error"), 502, "the provider failed"),
    (of_choice(message=None), 502, "check the address"),
    ({"choices": []}, 502, "check the address"),
    ({"choices": None}, 502, "check the address"),
    ({}, 502, "check the address"),
    ("", 502, "the reply is empty"),
    ("<html><head><title>503 Service Temporarily Unavailable</title></head></html>", 503, "Temporarily"),
    ("<html><body><h1>502 Bad Gateway</h1></body></html>", 502, "Bad Gateway"),
    ("upstream request timeout", 504, "upstream request timeout"),
    ('event: error\ndata: {"error": {"message": "m", "code": 529}}\n\n', 529, "m"),
    (of_choice(message={"content": None, "error": {"message": "rate limit"}}), 429, "rate limit"),
    ({"error": True, "message": "Too many requests"}, 429, "Too many requests"),
    ({"error": 503, "message": "odd"}, 503, "odd"),
    ({"status": "fail", "reason": "quota exhausted"}, 429, "quota exhausted"),
    ({"object": "error", "message": "Service tier capacity exceeded", "type": "invalid_request_error"}, 503, "tier"),
    ({"detail": [{"loc": ["body"], "msg": "field required", "type": "value_error.missing"}]}, 400, "field required"),
    ('{"choices": [{"message": {"role": "ass', 502, "the reply is cut off"),
    ("upstream connect error or disconnect/reset before headers", 503, "upstream connect error"),
    ("error code: 1015", 429, "1015"),
    (': PING\n\ndata: {"error": {"message": "m", "type": "server_error"}}\n\ndata: [DONE]\n', 500, "m"),
]
WHOLE = of_choice(message={"role": "assistant", "content": "4"}, finish_reason="stop")


@pytest.mark.once
@pytest.mark.parametrize(("body", "status", "reason"), BODIES, ids=lambda value: str(value)[:40])
def test_the_status_that_a_reply_stands_for(body: Any, status: int, reason: str) -> None:
    with pytest.raises(ReplyError, match=reason) as caught:
        check_body(body if isinstance(body, str) else json.dumps(body))
    assert caught.value.status == status


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        {**WHOLE, "error": None},
        {**WHOLE, "error": {}},
        {**WHOLE, "error": {"code": 0, "message": ""}},
        "<p>Hi</p>",
    ],
)
def test_no_error_where_there_is_none(body: Any) -> None:
    check_body(body if isinstance(body, str) else json.dumps(body))


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "headers", "seconds"),
    [
        ({}, {"Retry-After": "7"}, 7),
        ({"retry_after": 2.5}, {}, 3),
        ({"metadata": {"retry_after_seconds": 8}}, {}, 8),
        ({"details": [{"@type": "Help"}, {"retryDelay": "17s"}]}, {}, 17),
        ({"message": "Please try again in 1.5s."}, {}, 2),
        ({"message": "retry after 2m"}, {}, 120),
        ({}, {"Retry-After": "0.5"}, 1),
        ({}, {"Retry-After": "soon"}, None),
        ({"message": "later"}, {}, None),
    ],
)
def test_how_long_the_server_asks_to_wait(
    error: dict[str, Any], headers: dict[str, str], seconds: float | None
) -> None:
    with pytest.raises(ReplyError) as caught:
        check_body(json.dumps({"error": {"code": 429, **error}}), headers)
    assert retry_after(caught.value) == seconds


@pytest.mark.parametrize("body", [BUSY, of_choice(finish_reason="error", error={"code": 503}), "", {"choices": []}])
def test_it_is_repeated_until_there_is_an_answer(server: LanguageServer, body: Any) -> None:
    """It was asked once, and the reason was lost."""
    server.faults = [Fault("echo", body=body, times=2)]
    assert ask(model_of(server), "Hi") == [(Reply("echo: Hi"),)]
    assert len(server.requests) == 3


def test_the_reason_is_kept_and_a_failing_model_is_left_alone(server: LanguageServer) -> None:
    server.faults = [Fault("echo", body=BUSY, times=100)]
    model = model_of(server, max_retries=1, concurrency=1)
    reason = f"{TOO_MANY} (Rate limit exceeded)"
    assert ask(model, *"abcde") == [(Failure("echo", reason),)] * 5
    assert len(server.requests) == 2 * 3, "three requests with all their retries"
    assert model.given_up == reason


def test_retry_after_of_such_a_reply_is_obeyed(server: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("blender_hf.generation.remote.asyncio.sleep", note)
    server.faults = [Fault("echo", body=BUSY, headers={"Retry-After": "17"})]
    assert ask(model_of(server), "Hi") == [(Reply("echo: Hi"),)]
    assert 17.0 in waited


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "no", "code": 401}}, "the token was refused (no)"),
        ({"error": {"message": "too long", "code": 400}}, "the server answered 400 (too long)"),
        (of_choice(finish_reason="content_filter"), "the server's content filter stopped the answer"),
        ("<p>Welcome</p>", "the server's reply is not JSON, so it does not have OpenAI's API; check the address"),
    ],
)
def test_what_no_repetition_helps_is_asked_once(server: LanguageServer, body: Any, reason: str) -> None:
    server.faults = [Fault("echo", body=body)]
    assert ask(model_of(server), "Hi") == [(Failure("echo", reason),)]
    assert len(server.requests) == 1


def test_judges_and_fusers_ask_again_too(server: LanguageServer) -> None:
    server.answers["judge"] = lambda messages: "[[A]]"
    server.faults = [Fault(name, body=BUSY) for name in ("judge", "loud")]
    item = make_item("2 + 2?", ["4", "5"])
    [[judgment]] = Judge(model_of(server, "judge")).iter([Task(item, ((0, 1),))])
    assert judgment.replied
    assert ChatFuser(model_of(server, "loud")).fuse([item])[0].text


@pytest.mark.parametrize(
    "reply",
    [
        SimpleNamespace(choices=None, error={"message": "m", "code": 429}),
        SimpleNamespace(choices=[SimpleNamespace(message=None, finish_reason="error", error={"code": 503})]),
        json.dumps(BUSY),
    ],
)
def test_replies_of_clients_of_ones_own(reply: Any) -> None:
    good = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content="4"), finish_reason="stop")])
    replies = iter([reply, good])
    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **body: next(replies))))
    found = generate("2 + 2?", [RemoteLLM("m", client=client, backoff=0.0)])
    assert [candidate.text for candidate in found.candidates] == ["4"]
