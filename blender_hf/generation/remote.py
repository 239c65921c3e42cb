"""Language models elsewhere: Inference Providers, or any server that speaks OpenAI's language."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import huggingface_hub
from huggingface_hub import AsyncInferenceClient, get_token
from packaging.version import Version

from blender_hf.errors import BlenderError, InputError
from blender_hf.modeling.tokenization import Message

from .chat import answer_in
from .loop import in_background
from .outcomes import FATAL, Answers, Failure, Outcome, Reply, empty_reason, is_transient, reason_of, status_of
from .retrying import with_retries
from .sampling import Sampling
from .specs import RemoteLLM

# After so many requests in a row that failed with all their repetitions, a model is left alone,
PATIENCE = 3
# for so many seconds. A server that was started again is then found again, by whatever lives that long.
REST_S = 60.0

Create = Callable[..., Any]


class RemoteModel:
    """A language model that is asked over the network, many requests at once.

    A model whose requests keep failing, or that can't be had (no such model, a refused token), is given up: for a
    minute, all that follows fails at once, with the same reason.

    Args:
        llm: Which it is, and how it is asked.

    Raises:
        InputError: If Inference Providers are meant and there is no token.
        BlenderError: If a package that the client needs is not installed.
    """

    runs_here = False

    def __init__(self, llm: RemoteLLM) -> None:
        if llm.client is None:
            _check_client(llm)
        self.llm = llm
        self.name = llm.label
        self._failed_in_a_row = 0
        self._resting: tuple[str, float] | None = None
        self._lock = threading.Lock()
        self._limits: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    @property
    def given_up(self) -> str | None:
        """Why it is not asked now, or None."""
        resting = self._resting
        return resting[0] if resting is not None and time.monotonic() < resting[1] else None

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Ask in the background.

        Args:
            requests: Conversations.
            sampling: How the model writes; each of its `n` answers is a request of its own, as not all servers give
                several.

        Returns:
            A future of `n` replies or failures for each conversation; it never raises what a request raises.
        """
        return in_background(self._answer_all(requests, sampling))

    async def _answer_all(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.llm.concurrency))
        async with self._connection() as create:
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
                    lambda: create(**body),
                    timeout=self.llm.timeout,
                    max_retries=self.llm.max_retries,
                    backoff=self.llm.backoff,
                )
                outcome = _outcome(self.name, completion)
            # Whatever one server does wrong must not cost the answers of the others.
            except Exception as error:
                return self._failure(error)
        with self._lock:
            self._failed_in_a_row = 0
            self._resting = None
        return outcome

    def _failure(self, error: Exception) -> Failure:
        reason = reason_of(error)
        with self._lock:
            # A request that is refused for what is in it says nothing about the next one.
            self._failed_in_a_row = self._failed_in_a_row + 1 if is_transient(error) else 0
            if status_of(error) in FATAL or self._failed_in_a_row >= PATIENCE:
                self._resting = reason, time.monotonic() + REST_S
        return Failure(self.name, reason)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Create]:
        if self.llm.client is not None:
            yield _awaitable(self.llm.client.chat.completions.create)
            return
        llm = self.llm
        # huggingface_hub would send the Hub's token to any server, so without one of its own it gets a placeholder.
        key = llm.api_key if llm.base_url is None else llm.api_key or "none"
        client = (AsyncInferenceClient if llm.base_url is None else _ServerClient)(
            base_url=llm.base_url,
            provider=llm.provider,
            api_key=key,
            timeout=llm.timeout,  # type: ignore[arg-type]
        )
        # A client for each batch of requests: it belongs to one event loop, and is closed with certainty.
        async with client:
            yield client.chat.completions.create


class _ServerClient(AsyncInferenceClient):
    """Asks a server that is not the Hub's, perhaps on this machine, where HF_HUB_OFFLINE forbids to ask the Hub too."""

    async def _get_async_client(self) -> Any:  # of huggingface_hub 1; 0.36 does not heed the switch here
        client = await super()._get_async_client()  # type: ignore[misc]
        hooks = client.event_hooks
        foreign = [hook for hook in hooks["request"] if not hook.__module__.startswith("huggingface_hub")]
        client.event_hooks = {**hooks, "request": foreign}
        return client


def _body(llm: RemoteLLM, messages: Sequence[Message], sampling: Sampling, sample: int) -> dict[str, Any]:
    extra = dict(llm.extra_body or {})
    options = {
        # OpenAI's reasoning models refuse the old name of this field; whoever gives the new one means it.
        "max_tokens": None if "max_completion_tokens" in extra else sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": None if sampling.seed is None else sampling.seed + sample,
        "extra_body": extra or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": llm.model, "messages": [*map(dict, messages)], **given}


def _outcome(name: str, completion: Any) -> Outcome:
    if not completion.choices:
        return Failure(name, "the server sent no answer")
    choice = completion.choices[0]
    content = _text_of(choice.message.content)
    # JSON can spell half of a character, as where an answer was cut within an emoji; no file of text can hold it.
    text = answer_in(content.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    truncated = choice.finish_reason == "length"
    if text:
        return Reply(text, truncated)
    return Failure(name, empty_reason(truncated))


def _text_of(content: Any) -> str:
    """Return the text of a reply, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content or ""


def _awaitable(create: Create) -> Create:
    """Return a function to await, whether the client is async or not; one that is not runs in a thread."""
    if inspect.iscoroutinefunction(create):
        return create

    async def in_thread(**body: Any) -> Any:
        found = await asyncio.to_thread(create, **body)
        return await found if inspect.isawaitable(found) else found

    return in_thread


def _check_client(llm: RemoteLLM) -> None:
    if Version(huggingface_hub.__version__).major < 1 and find_spec("aiohttp") is None:
        raise BlenderError("asking models over the network needs aiohttp: pip install 'blender-hf[generate]'")
    if llm.base_url is None and not (llm.api_key or get_token()):
        raise InputError(
            f"{llm.model}: Inference Providers need a token: make one at huggingface.co/settings/tokens and log in "
            "with `hf auth login`, or set HF_TOKEN"
        )
