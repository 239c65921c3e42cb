"""Candidates written by language models, over Inference Providers or any endpoint that speaks OpenAI's language."""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import InferenceClient, get_token

from blender_hf.errors import InputError
from blender_hf.generation.outcomes import Failure
from blender_hf.generation.prompts import prompt_item
from blender_hf.generation.remote import RemoteModel
from blender_hf.generation.sampling import Sampling
from blender_hf.generation.specs import RemoteLLM
from blender_hf.inputs import Candidate

from .settings import DEFAULT_LIMITS

TIMEOUT_S = 120
# Somebody waits for the answers, so a server that is busy is not asked for long.
MAX_RETRIES = 2


def on_space() -> bool:
    """Tell whether this runs on Hugging Face Spaces, where visitors are strangers."""
    return "SPACE_ID" in os.environ


def make_client(base_url: str, token: str, *, public: bool) -> InferenceClient:
    """Return a client for the language models."""
    token = token.strip()
    if base_url.strip():
        # A token of the Hub is never sent to another host, so without one of its own an endpoint gets a placeholder.
        return InferenceClient(
            base_url=check_endpoint(base_url.strip(), public), api_key=token or "none", timeout=TIMEOUT_S
        )
    found = token or (None if public else get_token())
    if not found:
        raise InputError(
            "Inference Providers need a token: make one at huggingface.co/settings/tokens and paste it, "
            "or name an OpenAI-compatible endpoint"
        )
    return InferenceClient(api_key=found, timeout=TIMEOUT_S)


def check_endpoint(base_url: str, public: bool) -> str:
    """Return the address of an endpoint if it may be asked."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise InputError("the endpoint is no address; write it as https://host/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("the endpoint must begin with http:// or https://, as in https://host/v1")
    if public and (parts.scheme != "https" or not _is_outside(parts.hostname, port)):
        raise InputError("only public endpoints that begin with https:// can be asked from here")
    return base_url


def answer_models(names: str) -> list[str]:
    r"""Return the models of a list with commas or line breaks, each once.

    >>> answer_models("org/a, org/b\norg/a")
    ['org/a', 'org/b']
    """
    models = list(dict.fromkeys(name.strip() for name in names.replace("\n", ",").split(",") if name.strip()))
    if not 1 <= len(models) <= DEFAULT_LIMITS.models:
        raise InputError(f"{len(models)} language models are named; name from 1 to {DEFAULT_LIMITS.models}")
    return models


def iter_answers(
    client: Any, prompt: str | Sequence[dict[str, Any]], models: Sequence[str], max_tokens: int
) -> Iterator[Candidate | Failure]:
    """Ask all models at once, and yield their answers as they come."""
    messages, sampling = prompt_item(prompt).messages, Sampling(max_new_tokens=max_tokens)
    llms = (RemoteLLM(model, client=client, timeout=TIMEOUT_S, max_retries=MAX_RETRIES) for model in models)
    asked = {RemoteModel(llm).start([messages], sampling): llm.model for llm in llms}
    for done in as_completed(asked):
        ((outcome,),) = done.result()
        yield outcome if isinstance(outcome, Failure) else Candidate(outcome.text, asked[done], outcome.messages)


def _is_outside(host: str, port: int | None, resolve: Callable[..., Any] = socket.getaddrinfo) -> bool:
    try:
        found = {entry[4][0] for entry in resolve(host, port or 443)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address.split("%")[0]).is_global for address in found)
