"""Where requests of a judge go: a server by its address, Inference Providers, or a client."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from blender_hf.errors import require
from blender_hf.generation.remote import awaitable, check_client, connected, plain_reply
from blender_hf.generation.reply_errors import ReplyError
from blender_hf.generation.specs import RemoteLLM

from .asking import CHAT

# Sends the fields of a request to a path of the API, and returns the reply as JSON has it.
Post = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
# The status of what a client or a provider has no method for.
NOT_FOUND = 404


def check_endpoint(llm: RemoteLLM) -> None:
    """Raise if a judge can't be asked: without the package or the token that it needs."""
    if llm.base_url is not None:
        require("aiohttp", "generate", "asking a judge on a server")
    elif llm.client is None:
        check_client(llm)


@asynccontextmanager
async def opened(llm: RemoteLLM) -> AsyncIterator[Post]:
    """Yield what sends requests; connections are closed at the end."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(_server(llm) if llm.base_url is not None else _client(llm))


@asynccontextmanager
async def _server(llm: RemoteLLM) -> AsyncIterator[Post]:
    import aiohttp

    headers = {"Authorization": f"Bearer {llm.api_key}"} if llm.api_key else {}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def post(path: str, body: Mapping[str, Any]) -> Any:
            async with session.post(_url(str(llm.base_url), path), json=dict(body)) as reply:
                return _checked(reply.status, await reply.text(), reply.headers)

        yield post


@asynccontextmanager
async def _client(llm: RemoteLLM) -> AsyncIterator[Post]:
    async with connected(llm) as complete:
        decide = getattr(getattr(llm.client, "decisions", None), "create", None)
        ways: dict[str, Any] = {CHAT: complete} | ({"decisions": awaitable(decide)} if callable(decide) else {})

        async def post(path: str, body: Mapping[str, Any]) -> Any:
            if path not in ways:
                raise ReplyError(f"the client has no /{path}", NOT_FOUND)
            return plain_reply(await ways[path](**body))

        yield post


def _url(base_url: str, path: str) -> str:
    """Return an address of the API, which is under /v1 if the server's address does not say so."""
    parts = urlsplit(base_url)
    home = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=f"{home}/{path}" if home.endswith("/v1") else f"{home}/v1/{path}"))


def _checked(status: int, text: str, headers: Mapping[str, str]) -> Any:
    try:
        reply = json.loads(text)
    except ValueError:
        reply = None
    error = reply.get("error") or reply.get("detail") if isinstance(reply, Mapping) else None
    if status == 200 and isinstance(reply, Mapping) and not error:
        return reply
    said = error.get("message", error) if isinstance(error, Mapping) else error
    message = said if isinstance(said, str) else json.dumps(said) if said else text[:200] or "the reply is empty"
    raise ReplyError(message, 502 if status == 200 else status, headers.get("Retry-After"))
