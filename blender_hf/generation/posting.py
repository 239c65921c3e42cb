"""Requests of JSON to any path of a server, as the APIs of reward models and of judges have them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from blender_hf.errors import require

from .reply_errors import check_status
from .specs import RemoteLLM

# Sends the fields of a request to an address, or to a path of an API, and returns what the reply holds as JSON.
Post = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


def check_posting() -> None:
    """Raise BlenderError unless the package that sends requests is installed."""
    require("aiohttp", "generate", "asking models over the network")


@asynccontextmanager
async def posting(llm: RemoteLLM) -> AsyncIterator[Post]:
    """Yield what sends one request, with the key of a model; connections are closed at the end.

    It raises ReplyError for a reply with an error, and whatever aiohttp raises without a reply.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {llm.api_key}"} if llm.api_key else {}
    # How long one may take is up to `with_retries`.
    unlimited = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, timeout=unlimited, trust_env=True) as session:

        async def post(url: str, body: Mapping[str, Any]) -> Any:
            async with session.post(url, json=dict(body)) as reply:
                text = await reply.text()
                check_status(reply.status, text, reply.headers)
                return json.loads(text)

        yield post
