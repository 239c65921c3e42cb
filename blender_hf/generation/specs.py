"""Names of language models: which model, and where it runs.

| name | language model |
| --- | --- |
| `org/model` or a folder | local, with transformers |
| `smollm2-135m` | local, the one that comes with the package |
| `org/model#file.gguf`, or the path of a GGUF file | local, from that file |
| `http://host:8000/v1#model` | a server with OpenAI's API (vLLM, TGI, Ollama, ...) |
| `https://host/v1?api_key_env=NAME#model` | the same, with the key in the environment variable NAME |
| `providers:org/model` | Hugging Face Inference Providers, with automatic choice of the provider |
| `providers:org/model:together` | the same, with that provider |
| `qwen=...` | any of these; its candidates are named `qwen` |
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from blender_hf.errors import InputError, InputTypeError

# The fields of a `LocalLLM` that say how to load it from the Hub, named as in `HubOptions`.
HUB_FIELDS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
PROVIDERS = "providers:"
ADDRESSES = ("http://", "https://")
# Says of the name of a fuser that it is a language model's.
CHAT = "chat:"
GGUF_SUFFIX = ".gguf"
KEY_VARIABLE = "api_key_env"
# A name before an equals sign; an address, or a path such as "./a=b", has another separator before it.
NAMED = re.compile(r"([^\s=/\\:?#]+)=(.+)")
WAYS = (
    "a Hub id or folder, or 'org/model#file.gguf', runs here, 'http://host:8000/v1#model' is asked at that address, "
    "'providers:org/model' through Inference Providers"
)


class _Labelled:
    model: str
    name: str | None

    @property
    def origin(self) -> str:
        """Which model it is, whatever its candidates are called."""
        return self.model

    @property
    def label(self) -> str:
        """The name of its candidates."""
        return self.name or self.origin


@dataclass(frozen=True)
class LocalLLM(_Labelled):
    """A local language model, run with transformers.

    Args:
        model: Hub id or folder of a causal or an encoder-decoder model, or "smollm2-135m", which is bundled.
        name: The name of its candidates; None is `model`, with `gguf_file` if there is one.
        revision: Branch, tag or commit.
        device: The device; None is a GPU if there is one.
        dtype: Its precision; "auto" is bfloat16 where the device has it in hardware, else float32.
        attn_implementation: How it computes attention: "eager", "sdpa", ...; None leaves it to transformers.
        batch_size: How many answers are generated together.
        token: Token for a private repository.
        cache_dir: Folder of downloads.
        local_files_only: Never ask the Hub.
        trust_remote_code: Whether code from the repository may run.
        gguf_file: Path, within the repository or folder, of a GGUF file that is the model, its tokenizer included;
            None is a checkpoint of transformers.
    """

    model: str
    name: str | None = None
    revision: str | None = None
    device: Any = None
    dtype: Any = "auto"
    attn_implementation: str | None = None
    batch_size: int = 8
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    gguf_file: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.model)
        if self.batch_size < 1:
            raise InputError(f"{self.model}: batch_size={self.batch_size}; use 1 or more")
        if self.gguf_file is not None and not str(self.gguf_file).lower().endswith(GGUF_SUFFIX):
            raise InputError(f"{self.model}: gguf_file={self.gguf_file!r}; use a file that ends with .gguf")

    @property
    def origin(self) -> str:
        """Which model it is, as `as_llm` reads it."""
        return self.model if self.gguf_file is None else f"{self.model}#{self.gguf_file}"


@dataclass(frozen=True)
class RemoteLLM(_Labelled):
    """A remote language model.

    Args:
        model: Its name on the server, or its Hub id for Inference Providers.
        base_url: Address of a server with OpenAI's API, such as `http://localhost:8000/v1`; None is Inference
            Providers.
        name: The name of its candidates; None is `model`.
        provider: One of the Inference Providers; None chooses automatically.
        api_key: Key of the server, or token of the Hub for Inference Providers (None is the one that is logged in).
            The Hub's token is never sent to a `base_url` unless it is given here.
        client: A client in place of the three above: an `InferenceClient`, or any with `chat.completions.create`.
        timeout: Seconds that one request may take.
        max_retries: How often a request is repeated after 429, 5xx, a time-out or a lost connection.
        backoff: Seconds before the first retry; they double each time, and `Retry-After` of the server is obeyed.
        concurrency: Most requests at the same time.
        extra_body: Server-specific fields of each request.
    """

    model: str
    base_url: str | None = None
    name: str | None = None
    provider: str | None = None
    api_key: str | None = field(default=None, repr=False)
    client: Any = field(default=None, repr=False)
    timeout: float = 120.0
    max_retries: int = 5
    backoff: float = 1.0
    concurrency: int = 8
    extra_body: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_name(self.model)
        if self.base_url is not None:
            _check_address(self.base_url)
        if self.client is not None and (self.base_url, self.provider, self.api_key) != (None, None, None):
            raise InputError(f"{self.model}: a client has its own address, provider and key; give it, or them")
        if self.base_url is not None and self.provider is not None:
            raise InputError(f"{self.model}: give a base_url, or a provider of Inference Providers, not both")
        for name, least in (("timeout", 1e-3), ("max_retries", 0), ("backoff", 0), ("concurrency", 1)):
            value = getattr(self, name)
            if not value >= least:
                raise InputError(f"{self.model}: {name}={value!r}; use {least} or more")


class ChatClient(Protocol):
    """A client with `chat.completions.create`, and its model as `model`."""

    @property
    def chat(self) -> Any:
        """The part with `completions`."""
        ...


LLM = LocalLLM | RemoteLLM
LLMInput = str | Path | LocalLLM | RemoteLLM | ChatClient


def as_llm(value: LLMInput) -> LLM:
    """Return a language model, which is neither loaded nor asked yet.

    Args:
        value: A name as in the table above, a `LocalLLM`, a `RemoteLLM`, or a client that has `chat.completions.create`
            and knows its model.

    Raises:
        InputTypeError: If it is something else.
        InputError: If the name can't be read.
    """
    if isinstance(value, LocalLLM | RemoteLLM):
        return value
    if isinstance(value, str | Path):
        return _from_text(str(value).strip())
    if hasattr(value, "chat") and not isinstance(value, type):
        model = getattr(value, "model", None)
        if not isinstance(model, str) or not model:
            raise InputError(
                f"the {type(value).__name__} does not say which model to ask; give RemoteLLM('model', client=...)"
            )
        return RemoteLLM(model, client=value)
    raise InputTypeError(
        f"a language model is a text, a LocalLLM, a RemoteLLM or a client, not {type(value).__name__}: {WAYS}"
    )


def chat_name(fuser: str) -> str | None:
    """Return the name of the language model that a fuser's name means; None if it is a checkpoint's.

    >>> chat_name("chat:org/model"), chat_name("http://localhost:8000/v1#m"), chat_name("org/gen-fuser")
    ('org/model', 'http://localhost:8000/v1#m', None)
    """
    if fuser.startswith(CHAT):
        return fuser.removeprefix(CHAT)
    return fuser if fuser.startswith((*ADDRESSES, PROVIDERS)) else None


def as_llms(values: Iterable[LLMInput]) -> tuple[LLM, ...]:
    """Return language models, as `as_llm` does, in their order."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise InputTypeError(f"llms must be a list of language models, not {type(values).__name__}: {WAYS}")
    llms = tuple(map(as_llm, values))
    if not llms:
        raise InputError("there are no language models; name at least one")
    labels = [llm.label for llm in llms]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(
            f"two language models are called {', '.join(twice)}; give one of them another name=, or ask for n=2 answers"
        )
    return llms


def on_device(llms: Iterable[LLMInput], device: Any) -> tuple[LLM, ...]:
    """Return language models, with a device for local ones that name none."""
    return tuple(
        replace(llm, device=device) if isinstance(llm, LocalLLM) and llm.device is None else llm
        for llm in as_llms(llms)
    )


def _from_text(text: str) -> LLM:
    if not text:
        raise InputError(f"the name of a language model is empty: {WAYS}")
    if named := NAMED.fullmatch(text):
        return replace(_from_text(named[2].strip()), name=named[1])
    if text.startswith(ADDRESSES):
        return _from_address(text)
    if text.startswith(PROVIDERS):
        model, _, provider = text.removeprefix(PROVIDERS).partition(":")
        return RemoteLLM(model, provider=provider or None)
    if "://" in text:
        raise InputError(f"{text!r} has an unknown scheme: {WAYS}")
    if text.lower().endswith(GGUF_SUFFIX):
        return _from_gguf(text)
    if "#" in text and not Path(text).exists():
        raise InputError(f"{text!r} is neither a folder nor an address, which begins with http:// or https://")
    return LocalLLM(text)


def _from_gguf(text: str) -> LocalLLM:
    if Path(text).is_file():
        return LocalLLM(str(Path(text).parent), gguf_file=Path(text).name)
    model, separator, file = text.partition("#")
    if not separator:
        raise InputError(f"there is no file {text}; one of a repository is written org/model#file.gguf")
    return LocalLLM(model, gguf_file=file)


def _from_address(text: str) -> RemoteLLM:
    # What the model is called comes after the first "#", whatever else is in it.
    address, separator, model = text.partition("#")
    if not separator or not model.strip():
        raise InputError(
            f"{_without_query(address)!r} does not say which model; write it as {address.split('?')[0]}#model"
        )
    _check_address(address)
    parts = urlsplit(address)
    query = parse_qsl(parts.query, keep_blank_values=True)
    variables = [value for key, value in query if key == KEY_VARIABLE]
    rest = urlencode([pair for pair in query if pair[0] != KEY_VARIABLE])
    base_url = urlunsplit(parts._replace(query=rest))
    return RemoteLLM(model.strip(), base_url, api_key=_key(variables[-1]) if variables else None)


def _key(variable: str) -> str:
    # Whoever writes the key itself here must not find it in a message.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) or variable not in os.environ:
        raise InputError(f"{KEY_VARIABLE} must name an environment variable that is set and holds the key")
    return os.environ[variable]


def _check_name(model: Any) -> None:
    if not isinstance(model, str) or not model.strip():
        raise InputError(f"the language model {model!r} has no name: {WAYS}")


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise InputError(f"{_without_query(address)!r} is no address; write it as http://host:8000/v1")


def _without_query(address: str) -> str:
    """Return an address for a message, without its query, which may hold a secret."""
    return address.split("?")[0]
