"""The choice between torch and ONNX Runtime, `backend="onnx"`: for the ranker, and for the fuser where possible."""

from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME

from blender_hf.engine.pointwise import PointwiseRanker
from blender_hf.errors import InputError, InputTypeError, chosen
from blender_hf.loading.checkpoints import (
    DEFAULT_OPTIONS,
    HubOptions,
    explained,
    hub_settings,
    load_fuser,
    locate,
    pick_attention,
    pick_device,
    pick_dtype,
)
from blender_hf.modeling.tokenizer_files import settings_of

from .graph import find_onnx_file, fuser_files, has_optimum

BACKENDS = ("torch", "onnx")


def check_backend(
    backend: str,
    *,
    provider: str | None,
    file_name: str | None,
    compile: bool = False,
    ranker: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> None:
    """Check the options that choose what runs the models."""
    chosen(dict.fromkeys(BACKENDS), backend, "backend")
    for name, value in (("provider", provider), ("file_name", file_name)):
        if value is not None and backend != "onnx":
            raise InputError(f"{name}={value!r} is for backend='onnx', and the backend is {backend!r}")
        if value is not None and not isinstance(value, str):
            raise InputTypeError(f"{name} must be a str, not {type(value).__name__}")
        if value == "":
            raise InputError(f"{name}='' names nothing; leave it out for the default")
    if compile and backend == "onnx":
        raise InputError("compile=True is for backend='torch'; ONNX Runtime optimises its graph by itself")
    if file_name is not None and isinstance(ranker, PointwiseRanker):
        raise InputError(f"file_name={file_name!r} is for a ranker in ONNX, and this object ranks by itself")
    pick_attention(attn_implementation)  # a name that does not exist fails before anything is loaded
    if backend == "onnx":
        pick_dtype(dtype, pick_device(device))
        if attn_implementation is not None:
            raise InputError(
                f"attn_implementation={attn_implementation!r} is for backend='torch'; an ONNX file states its own"
            )


def load_fuser_for_onnx(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    provider: str | None = None,
) -> tuple[Any, Any]:
    """Load a fuser in ONNX Runtime if it has the files and Optimum is installed, else in torch; the output is equal.

    Device and precision are those in torch, as in `load_fuser`; the provider is that of ONNX Runtime.
    """
    pick_dtype(dtype, pick_device(device))
    if has_optimum() and all(find_onnx_file(name, options, file) is not None for file in _fuser_files(name, options)):
        from .onnx_fuser import load_onnx_fuser

        return load_onnx_fuser(name, options, provider)
    return load_fuser(name, options, device=device, dtype=dtype)


def _fuser_files(name: str | Path, options: HubOptions) -> tuple[str, ...]:
    where, hub = locate(name), hub_settings(options)
    return fuser_files(explained(lambda: settings_of(where, CONFIG_NAME, **hub), name, "fuser", options))
