"""Where requests of a judge go: a server by its address, Inference Providers, or a client."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from blender_hf.generation.posting import Post, check_posting, posting
from blender_hf.generation.remote import awaitable, check_client, connected, plain_reply
from blender_hf.generation.reply_errors import ReplyError
from blender_hf.generation.specs import RemoteLLM

from .asking import CHAT

# The status of what a client or a provider has no method for.
NOT_FOUND = 404


def check_endpoint(llm: RemoteLLM) -> None:
    """Raise if a judge can't be asked: without the package or the token that it needs."""
    if llm.base_url is not None:
        check_posting()
    elif llm.client is None:
        check_client(llm)


@asynccontextmanager
async def opened(llm: RemoteLLM) -> AsyncIterator[Post]:
    """Yield what sends requests; connections are closed at the end."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(_server(llm) if llm.base_url is not None else _client(llm))


@asynccontextmanager
async def _server(llm: RemoteLLM) -> AsyncIterator[Post]:
    async with posting(llm) as send:

        async def post(path: str, body: Mapping[str, Any]) -> Any:
            return await send(_url(str(llm.base_url), path), body)

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
