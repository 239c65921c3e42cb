"""Names of judges, and loading them.

"judge:" stands before any name of a language model, as `generation.specs` lists them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from blender_hf.errors import InputError
from blender_hf.generation.specs import HUB_FIELDS, ChatClient, LLMInput, LocalLLM, RemoteLLM, as_llm
from blender_hf.loading.checkpoints import HubOptions

from .local_judge import LocalJudge
from .remote_judge import RemoteJudge
from .settings import JudgeSettings, as_settings

JUDGE = "judge:"
Judge = LocalJudge | RemoteJudge


def names_judge(ranker: object) -> TypeGuard[str | LocalLLM | RemoteLLM | ChatClient]:
    """Return whether `ranker=` means a judge: "judge:MODEL", a `LocalLLM`, a `RemoteLLM` or a client."""
    if isinstance(ranker, str):
        return ranker.startswith(JUDGE)
    return isinstance(ranker, LocalLLM | RemoteLLM) or (hasattr(ranker, "chat") and not isinstance(ranker, type | Path))


def load_judge(llm: LLMInput, *, settings: JudgeSettings | Mapping[str, Any] | None = None, **options: Any) -> Judge:
    """Return a language model as a ranker: it is asked which of two answers is better.

    Args:
        llm: A name of a language model, with or without "judge:": "http://host:8000/v1#model" for a server,
            "providers:org/model" for Inference Providers, else a Hub id or folder that runs here; or a `LocalLLM`, a
            `RemoteLLM`, or a client with `chat.completions.create`.
        settings: A `JudgeSettings`, or its fields as a mapping.
        **options: Fields of `JudgeSettings`: `criteria`, `template`, `ask`, `max_comparisons`, `cache`, ...

    Returns:
        A ranker for `Blender`, with its `usage` so far.

    Raises:
        InputError: If the name can't be read or a setting does not exist.
        CheckpointError: If a model that runs here can't be loaded, or is no chat model.
        BlenderError: If a package is missing that asks servers.
    """
    if settings is not None and options:
        raise InputError("give settings=, or options by their names, not both")
    chosen = as_settings(options if settings is None else settings)
    spec = as_llm(llm.removeprefix(JUDGE) if isinstance(llm, str) else llm)
    return RemoteJudge(spec, chosen) if isinstance(spec, RemoteLLM) else LocalJudge(spec, chosen)


def load_named_judge(
    ranker: str | LLMInput,
    settings: JudgeSettings | Mapping[str, Any] | None,
    options: HubOptions,
    device: Any = None,
    dtype: Any = None,
    attn_implementation: str | None = None,
) -> Judge:
    """Return the judge that `ranker=` means; the options of a blender are for a name of a model that runs here."""
    if not isinstance(ranker, str):
        return load_judge(ranker, settings=as_settings(settings))
    llm = as_llm(ranker.removeprefix(JUDGE))
    if isinstance(llm, LocalLLM):
        hub = {name: getattr(options, name) for name in HUB_FIELDS}
        running = {"device": device, "dtype": dtype or llm.dtype, "attn_implementation": attn_implementation}
        llm = replace(llm, **running, **hub)
    elif options.revision is not None:
        raise InputError(f"{llm.label}: revision={options.revision!r} is for a model that runs here")
    return load_judge(llm, settings=as_settings(settings))
