"""What `backend="onnx"` loads: the ranker in ONNX Runtime, and the fuser too where that is possible."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from blender_hf.checkpoints import BUNDLED, HubOptions, load_fuser, locate, pick_device
from blender_hf.errors import InputError

from .graph import FOLDERS, FUSER_FILES, INT8_FILE, find_onnx_file, has_optimum

BACKENDS = ("auto", "torch", "onnx")


def choose_backend(
    backend: str,
    ranker: object,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    provider: str | None = None,
    file_name: str | None = None,
    compile: bool = False,
) -> tuple[str, str | None]:
    """Check the options that choose what runs the models, and choose where they leave it open.

    "auto" is torch, but for a bundled ranker that has a graph of eight bits: on a CPU, with no precision asked for, and
    where ONNX Runtime is installed, it runs that, which is faster and judges the same.

    Args:
        backend: One of `BACKENDS`.
        ranker: A bundled name, a folder or a Hub id, or a ranker itself.
        device: Where it runs; None takes a GPU where there is one.
        dtype: Its precision; None leaves it open.
        provider: Execution provider, for ONNX alone.
        file_name: ONNX file, for ONNX alone.
        compile: Whether the ranker is compiled, for torch alone.

    Returns:
        "torch" or "onnx", and the ONNX file.

    Raises:
        InputError: If there is no such backend, or it does not have an option.
    """
    if backend not in BACKENDS:
        raise InputError(f"there is no backend {backend!r}; use {', '.join(BACKENDS)}")
    asked = backend
    if backend == "auto":
        free = dtype is None and not compile and provider is None and file_name is None
        use = free and pick_device(device).type == "cpu" and _has_int8(ranker)
        backend, file_name = ("onnx", INT8_FILE) if use else ("torch", file_name)
    _check_options(backend, asked, provider, file_name, compile)
    return backend, file_name


def _has_int8(ranker: object) -> bool:
    """Tell whether it is a bundled ranker, by its name or its folder, with a graph of eight bits that can run here."""
    bundled = {name: locate(name) for name in BUNDLED}
    folder = next((folder for name, folder in bundled.items() if str(ranker) in (name, folder)), None)
    if folder is None or find_spec("onnxruntime") is None:
        return False
    return any((Path(folder) / place / INT8_FILE).is_file() for place in FOLDERS)


def _check_options(backend: str, asked: str, provider: str | None, file_name: str | None, compile: bool) -> None:
    for name, value in (("provider", provider), ("file_name", file_name)):
        if value is not None and backend != "onnx":
            raise InputError(f"{name}={value!r} is for backend='onnx', and the backend is {asked!r}")
    if compile and backend == "onnx":
        raise InputError("compile=True is for backend='torch'; ONNX Runtime optimises its graph by itself")


def load_fuser_for_onnx(
    name: str | Path,
    options: HubOptions,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    provider: str | None,
) -> tuple[Any, Any]:
    """Load a fuser in ONNX Runtime if it has the files and Optimum is here to run them, else in torch.

    Both write the same tokens.

    Args:
        name: A bundled name, a folder or a Hub id.
        options: How it is looked up.
        device: Where it runs in torch, as in `load_fuser`.
        dtype: Its precision in torch.
        provider: Name of an execution provider of ONNX Runtime.

    Returns:
        The fuser and its processor.
    """
    if has_optimum() and all(find_onnx_file(name, options, file) is not None for file in FUSER_FILES):
        from .onnx_fuser import load_onnx_fuser

        return load_onnx_fuser(name, options, provider)
    return load_fuser(name, options, device, dtype)
