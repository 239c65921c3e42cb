"""Remote language models: Inference Providers, or any server with OpenAI's API."""

import asyncio
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub import AsyncInferenceClient, get_token
from packaging.version import Version

from blender_hf.engine.concurrency import in_background, lock_of
from blender_hf.errors import InputError, require
from blender_hf.modeling.conversations import Message, as_answer, plain_values, render_answer, turns

from .outcomes import (
    FATAL,
    Answers,
    Failure,
    Outcome,
    Reply,
    empty_reason,
    is_transient,
    reason_of,
    retry_after,
    status_of,
    unreachable,
)
from .reply_errors import check_body, check_reply
from .sampling import Sampling
from .specs import RemoteLLM
from .thoughts import answer_in

# After so many requests in a row that failed with all their retries, a model is given up,
MAX_FAILURES_IN_A_ROW = 3
# for so many seconds; a server that was restarted is then found again.
REST_S = 60.0
# A server that asks for a longer pause is asked again after this one.
MAX_PAUSE_S = 60.0

Result = TypeVar("Result")
Create = Callable[..., Any]


class RemoteModel:
    """A language model behind an API, asked by many requests at once.

    A model whose requests keep failing, or that is unavailable (no such model, a refused token), is given up: for a
    minute, all that follows fails at once, for the same reason. So is, without a retry, a server that refuses the
    connection or has an unknown host, unless it has answered before: then it may be starting again.

    Args:
        llm: Which model, and how to ask it.

    Raises:
        InputError: If Inference Providers are meant and there is no token.
        BlenderError: If a package that the client needs is not installed.
    """

    runs_here = False

    def __init__(self, llm: RemoteLLM) -> None:
        if llm.client is None:
            check_client(llm)
        self.llm = llm
        self.name = llm.label
        self._has_answered = False
        self._failed_in_a_row = 0
        self._resting: tuple[str, float] | None = None
        self._limits: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_limits": {}}  # event loops belong to a process

    @property
    def given_up(self) -> str | None:
        """Why it is not asked for now, or None."""
        resting = self._resting
        return resting[0] if resting is not None and time.monotonic() < resting[1] else None

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Ask in the background; the future never raises what a request raises.

        Each of the `n` answers to a conversation is a request of its own, as not all servers give several.
        """
        return in_background(self._answer_all(requests, sampling))

    async def _answer_all(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.llm.concurrency))
        async with connected(self.llm) as create:
            asked = [
                self._answer(create, messages, sampling, sample, limit)
                for messages in requests
                for sample in range(sampling.n)
            ]
            outcomes = await asyncio.gather(*asked)
        return [tuple(outcomes[start : start + sampling.n]) for start in range(0, len(outcomes), sampling.n)]

    async def _answer(
        self, create: Create, messages: Sequence[Message], sampling: Sampling, sample: int, limit: asyncio.Semaphore
    ) -> Outcome:
        async with limit:
            if (reason := self.given_up) is not None:
                return Failure(self.name, reason)
            body = _body(self.llm, messages, sampling, sample)
            try:
                completion = await with_retries(
                    lambda: _checked(create, body),
                    timeout=self.llm.timeout,
                    max_retries=self.llm.max_retries,
                    backoff=self.llm.backoff,
                    may_pass=self._may_pass,
                )
                outcome = _outcome(self.name, completion)
            # An error of one server must not cost the answers of the others.
            except Exception as error:
                return self._failure(error)
        with lock_of(self):
            self._has_answered = True
            self._failed_in_a_row = 0
            self._resting = None
        return outcome

    def _may_pass(self, error: BaseException) -> bool:
        return is_transient(error) and (self._has_answered or unreachable(error) is None)

    def _failure(self, error: Exception) -> Failure:
        reason = reason_of(error)
        with lock_of(self):
            # A request that is refused for its content says nothing about the next one.
            self._failed_in_a_row = self._failed_in_a_row + 1 if is_transient(error) else 0
            self._has_answered |= status_of(error) is not None
            is_absent = status_of(error) in FATAL or (is_transient(error) and not self._may_pass(error))
            if is_absent or self._failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
                self._resting = reason, time.monotonic() + REST_S
        return Failure(self.name, reason)


@asynccontextmanager
async def connected(llm: RemoteLLM) -> AsyncIterator[Create]:
    """Yield the function that asks for a chat completion, as `chat.completions.create` of OpenAI's client."""
    if llm.client is not None:
        yield awaitable(llm.client.chat.completions.create)
        return
    # huggingface_hub would send the Hub's token to any server; a placeholder prevents it.
    key = llm.api_key if llm.base_url is None else llm.api_key or "none"
    client = (_CheckingClient if llm.base_url is None else _ServerClient)(
        base_url=llm.base_url,
        provider=llm.provider,  # type: ignore[arg-type]  # the names that exist change with each release
        api_key=key,
        timeout=llm.timeout,
    )
    # One client per batch of requests: it belongs to one event loop, and is always closed.
    async with client:
        yield client.chat.completions.create


class _CheckingClient(AsyncInferenceClient):
    """Raises what a reply with status 200 reports as an error, while its headers are at hand."""

    async def _get_async_client(self) -> Any:  # of huggingface_hub 1
        client = await super()._get_async_client()
        hooks = client.event_hooks
        if _check_response not in hooks["response"]:
            client.event_hooks = {**hooks, "response": [*hooks["response"], _check_response]}
        return client

    def _get_client_session(self, headers: dict[str, str] | None = None) -> Any:  # of 0.36, which has aiohttp
        from aiohttp import TraceConfig

        async def check(session: Any, context: Any, parameters: Any) -> None:
            if parameters.response.status == 200:
                check_body(await parameters.response.read(), parameters.response.headers)

        session = super()._get_client_session(headers)  # type: ignore[misc]
        trace = TraceConfig()
        trace.on_request_end.append(check)
        trace.freeze()
        session.trace_configs.append(trace)
        return session


async def _check_response(response: Any) -> None:
    if response.status_code == 200:
        check_body(await response.aread(), response.headers)


class _ServerClient(_CheckingClient):
    """Asks a server other than the Hub's, perhaps local, despite HF_HUB_OFFLINE."""

    async def _get_async_client(self) -> Any:  # of huggingface_hub 1; 0.36 does not heed the switch here
        client = await super()._get_async_client()
        hooks = client.event_hooks
        foreign = [hook for hook in hooks["request"] if not hook.__module__.startswith("huggingface_hub")]
        client.event_hooks = {**hooks, "request": foreign}
        return client


async def _checked(create: Create, body: Mapping[str, Any]) -> Any:
    completion = await create(**body)
    check_reply(completion)
    return completion


async def with_retries(
    ask: Callable[[], Awaitable[Result]],
    *,
    timeout: float,
    max_retries: int,
    backoff: float,
    may_pass: Callable[[BaseException], bool] = is_transient,
) -> Result:
    """Await a request, repeated after transient failures: 429, an overloaded server, a lost connection, a time-out.

    Raises the last error if no request succeeds, or the first one that is not transient.
    """
    attempt = 0
    while True:
        try:
            return await asyncio.wait_for(ask(), timeout)
        # Every client raises errors of its own.
        except Exception as error:
            if attempt == max_retries or not may_pass(error):
                raise
            await asyncio.sleep(pause(attempt, backoff, retry_after(error)))
        attempt += 1


def pause(attempt: int, backoff: float, asked: float | None = None) -> float:
    """Return how many seconds to wait after attempt 0, 1, ...; never less than the server asked for, up to a maximum.

    The pause doubles each time. A random part of up to a half is taken off, so that many callers do not return at once.
    """
    doubled = backoff * 2**attempt * random.uniform(0.5, 1)
    return min(max(doubled, asked or 0.0), MAX_PAUSE_S)


def _body(llm: RemoteLLM, messages: Sequence[Message], sampling: Sampling, sample: int) -> dict[str, Any]:
    extra = dict(llm.extra_body or {})
    options = {
        # OpenAI's reasoning models refuse the old name of this field.
        "max_tokens": None if "max_completion_tokens" in extra else sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": None if sampling.seed is None else sampling.seed + sample,
        "extra_body": extra or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": llm.model, "messages": [*map(dict, messages)], **given}


def _outcome(name: str, completion: Any) -> Outcome:
    choice = completion.choices[0]
    if choice.finish_reason == "content_filter":
        return Failure(name, "the server's content filter stopped the answer")
    truncated = choice.finish_reason == "length"
    try:
        reply = _reply(choice.message, truncated)
    except (TypeError, ValueError) as error:
        return Failure(name, f"its answer can't be read: {error}")
    return reply if reply.text else Failure(name, empty_reason(truncated))


def _reply(said: Any, truncated: bool) -> Reply:
    """Return the answer of a server: a text, perhaps in parts or a refusal, or calls of tools that it was offered."""
    stated = {
        key: plain_reply(getattr(said, key, None)) for key in ("content", "refusal", "tool_calls", "function_call")
    }
    message = {"role": "assistant", **{key: value for key, value in stated.items() if value}}
    (turn,) = turns([{"content": "", **message}])
    # JSON can spell a lone surrogate, as where an answer was cut within an emoji; UTF-8 can't encode it.
    answer = answer_in(turn.said.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if not turn.calls:
        return Reply(answer, truncated)
    content = message.get("content", "")
    messages = as_answer({**message, "content": (answer or None) if isinstance(content, str) else content})
    return Reply(render_answer(messages), truncated, messages)


def plain_reply(value: Any) -> Any:
    """Return a part of a reply in dictionaries and lists: clients have classes of their own."""
    if isinstance(value, list | tuple):
        return [*map(plain_reply, value)]
    if isinstance(value, Mapping) or not hasattr(value, "__dict__"):
        return plain_values(value)
    known = plain_values(value)  # an object of pydantic
    return known if isinstance(known, Mapping) else plain_values({k: plain_reply(v) for k, v in vars(value).items()})


def awaitable(create: Create) -> Create:
    """Return an async function; a synchronous one runs in a thread."""
    if inspect.iscoroutinefunction(create):
        return create

    async def in_thread(**body: Any) -> Any:
        found = await asyncio.to_thread(create, **body)
        return await found if inspect.isawaitable(found) else found

    return in_thread


def check_client(llm: RemoteLLM) -> None:
    """Raise unless a language model can be asked: with the package and the token that it needs."""
    if Version(huggingface_hub.__version__).major < 1:
        require("aiohttp", "generate", "asking models over the network")
    if llm.base_url is None and not (llm.api_key or get_token()):
        raise InputError(
            f"{llm.model}: Inference Providers need a token: make one at huggingface.co/settings/tokens and log in "
            "with `hf auth login`, or set HF_TOKEN"
        )
