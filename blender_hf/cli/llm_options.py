"""Options of the commands that ask language models, and the models that they name."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .options import positive

WAYS = """\
A language model is written as
  org/model or a folder                       runs here, with transformers
  http://host:8000/v1#model                   a server that speaks OpenAI's language: vLLM, TGI, Ollama, ...
  https://host/v1?api_key_env=NAME#model      with the key that the environment variable NAME holds
  providers:org/model, providers:org/model:together   Hugging Face Inference Providers
  qwen=...                                    any of these, called qwen in the records
"""


def llm_options(parser: argparse.ArgumentParser) -> None:
    """Add how language models are run and asked."""
    parser.add_argument("--batch-size", type=positive, metavar="N", help="answers that a model here writes together")
    parser.add_argument("--device", help="where models run here: cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="their precision: float32, bfloat16, float16 or auto (default: auto)")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the Hub for models that run here")
    parser.add_argument("--trust-remote-code", action="store_true", help="let code from their repositories run")
    parser.add_argument("--concurrency", type=positive, metavar="N", help="requests to a server at once (default: 8)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds a request may take (default: 120)")
    parser.add_argument("--max-retries", type=int, metavar="N", help="repetitions of a failed request (default: 5)")


def chosen_llms(texts: Sequence[str], options: argparse.Namespace) -> tuple[Any, ...]:
    """Return the language models that the command line names, with its options.

    Raises:
        InputError: If one can't be read, two have the same name, or a value is out of range.
    """
    from blender_hf.generation.specs import LocalLLM, as_llms

    here = ("batch_size", "device", "dtype", "local_files_only", "trust_remote_code")
    there = ("concurrency", "timeout", "max_retries")
    return tuple(
        replace(llm, **_given(options, here if isinstance(llm, LocalLLM) else there)) for llm in as_llms(texts)
    )


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    # 0 is a value, though it equals False, which is a switch that was not given.
    return {name: value for name, value in values.items() if value is not None and value is not False}
