"""Weights of a few bits, as the bundled language model has them: read, and made into numbers that torch computes with.

A checkpoint states `"low_bits": 1`, the version of this format, in its config.json. Each matrix of it, (rows, columns),
is stored as four tensors, of which `restored` makes it again; all other weights are stored as they are.

| tensor | type and shape | what it holds |
| --- | --- | --- |
| `NAME.codes` | uint8 (bits, rows, columns / 8) | a number of so many bits for each weight; a byte has a bit of eight |
| `NAME.steps` | uint8 (rows, groups) | what one more in a code adds, for each group of columns |
| `NAME.offsets` | int8 (rows, groups) | the weight of code 0 |
| `NAME.tops` | float16 (rows, 2) | what 255 of the steps and 127 of the offsets stand for |
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from blender_hf.errors import CheckpointError
from blender_hf.modeling.hub_mixins import raise_if_incomplete
from blender_hf.modeling.tokenizer_files import file_options

ENTRY, VERSION = "low_bits", 1
PARTS = {"codes": torch.uint8, "steps": torch.uint8, "offsets": torch.int8, "tops": torch.float16}
# What the largest step and the largest offset of a row are stored as.
LARGEST_PARTS = torch.tensor([255.0, 127.0])
# Two precisions of one model, or two models in one: more would only keep memory.
MOST_KEPT = 2


def has_low_bits(config: PretrainedConfig) -> bool:
    """Return whether the weights of a checkpoint are stored in a few bits, so that transformers can't read them.

    Raises:
        CheckpointError: If they are in a version of the format that this package does not know.
    """
    version = getattr(config, ENTRY, None)
    if version not in (None, VERSION):
        raise CheckpointError(
            f"its weights are in version {version!r} of the low-bit format, and this package reads version {VERSION}: "
            "update it (pip install -U blender-hf)"
        )
    return version is not None


def whole_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return a configuration for a model that is made of such weights: what is saved of it has whole ones."""
    if not has_low_bits(config):
        return config
    whole = deepcopy(config)
    delattr(whole, ENTRY)
    return whole


def base_weights(where: str | Path, dtype: torch.dtype = torch.float32, **hub: Any) -> dict[str, Tensor]:
    """Return the weights of a checkpoint of a few bits, by the names that they have in a checkpoint of transformers.

    Whoever asks again for the same checkpoint in the same precision gets the same tensors, so that several models made
    of them are in memory once. Nobody should write to them; after somebody did, as training of such a model does, they
    are read anew for whoever asks next.

    Args:
        where: Its folder or Hub id; a bundled one is found by `locate`.
        dtype: The precision: float32, in which they are exact, or that rounded to bfloat16 or float16.
        **hub: The options of `from_pretrained` that say how a repository of the Hub is looked up.

    Raises:
        CheckpointError: If a file is missing or damaged; the message names it.
    """
    files = tuple((path, *_stamp(path)) for path in _weight_files(where, hub))
    weights, versions = _kept(files, dtype)
    if versions != _versions(weights):
        _kept.cache_clear()
        weights, _ = _kept(files, dtype)
    return dict(weights)


def low_bit_language_model(
    where: str | Path,
    config: PretrainedConfig,
    *,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    **hub: Any,
) -> Any:
    """Return the language model of a checkpoint of a few bits, made of the tensors of `base_weights`.

    Args:
        where: Its folder or Hub id.
        config: Its configuration.
        dtype: The precision.
        attn_implementation: How it computes attention; None leaves it to transformers.
        **hub: As for `base_weights`.

    Raises:
        CheckpointError: As `base_weights`; or if the weights do not fit the configuration.
    """
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise CheckpointError(f"transformers has no language model for a configuration of type {config.model_type!r}")
    weights = base_weights(where, dtype, **hub)
    model, info = model_class.from_pretrained(
        None,
        config=whole_config(config),
        state_dict=weights,
        dtype=dtype,
        output_loading_info=True,
        **({} if attn_implementation is None else {"attn_implementation": attn_implementation}),
    )
    raise_if_incomplete(info, where, "language model")
    return model


def restored(parts: Mapping[str, Tensor]) -> Tensor:
    """Return a matrix in float32 of the four tensors that it is stored as, by the names in `PARTS`.

    Raises:
        ValueError: If their types or their shapes do not belong together.
    """
    _check(parts)
    units = parts["tops"].float() / LARGEST_PARTS
    steps = parts["steps"].float() * units[:, :1]
    offsets = parts["offsets"].float() * units[:, 1:]
    rows, groups = steps.shape
    codes = unpacked(parts["codes"]).reshape(rows, groups, -1)
    return (codes.float().mul_(steps[..., None]).add_(offsets[..., None])).reshape(rows, -1)


def unpacked(planes: Tensor) -> Tensor:
    """Return the numbers, uint8 (rows, columns), whose bits lie in planes, (bits, rows, columns / 8), lowest first."""
    # For each byte the eight bits in it, a byte each: as one integer, eight numbers are put together at a time.
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    eights = bits.to(torch.uint8).view(torch.int64)[:, 0]
    codes = torch.zeros(planes.shape[1:], dtype=torch.int64)
    for place, plane in enumerate(planes):
        codes |= eights[plane.int()] << place
    return codes.view(torch.uint8)


def _check(parts: Mapping[str, Tensor]) -> None:
    if missing := [name for name in PARTS if name not in parts]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, dtype in PARTS.items():
        if parts[name].dtype != dtype or parts[name].ndim != (3 if name == "codes" else 2):
            raise ValueError(f"{name} is {parts[name].dtype} of shape {tuple(parts[name].shape)}")
    bits, rows, eighths = parts["codes"].shape
    groups = parts["steps"].shape[1]
    fits = 1 <= bits <= 8 and groups > 0 and eighths * 8 % groups == 0
    widths = {"steps": groups, "offsets": groups, "tops": 2}
    if not fits or any(parts[name].shape != (rows, width) for name, width in widths.items()):
        raise ValueError(f"its shapes do not fit: {', '.join(f'{name} {tuple(parts[name].shape)}' for name in PARTS)}")


@lru_cache(maxsize=MOST_KEPT)
@torch.inference_mode(False)  # or what one caller asks for while it generates could not be trained by the next
def _kept(files: tuple[tuple[str, int, int], ...], dtype: torch.dtype) -> tuple[Mapping[str, Tensor], dict[str, int]]:
    """Return weights, and how often each was written to until now."""
    stored: dict[str, Tensor] = {}
    for path, *_ in files:
        try:
            with safe_open(path, framework="pt") as file:
                stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # not a mapping
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}); copy or download it again") from None
    matrices: dict[str, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        name, _, part = key.rpartition(".")
        if part in PARTS:
            matrices.setdefault(name, {})[part] = tensor
        else:
            weights[key] = tensor.to(dtype)
    for name, parts in matrices.items():
        try:
            weights[name] = restored(parts).to(dtype)
        except ValueError as error:
            raise CheckpointError(f"the weights {name} of {Path(files[0][0]).parent} are damaged: {error}") from None
    return weights, _versions(weights)


def _versions(weights: Mapping[str, Tensor]) -> dict[str, int]:
    # A parameter that is made of a tensor has its count.
    return {name: weight._version for name, weight in weights.items()}


def _weight_files(where: str | Path, hub: Mapping[str, Any]) -> list[str]:
    """Return the paths of the files with the weights; one from the Hub is downloaded."""

    def found(name: str) -> str | None:
        return cached_file(str(where), name, _raise_exceptions_for_missing_entries=False, **file_options(hub))

    if (index := found(SAFE_WEIGHTS_INDEX_NAME)) is None:
        names = [SAFE_WEIGHTS_NAME]
    else:
        try:
            names = sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} is damaged ({error}); copy or download it again") from None
    paths = [(name, found(name)) for name in names]
    if missing := [name for name, path in paths if path is None]:
        raise CheckpointError(f"{where} has no {', '.join(missing)}; copy or download it again")
    return [path for _, path in paths if path is not None]


def _stamp(path: str) -> tuple[int, int]:
    """Return what changes when a file is written anew."""
    state = Path(path).stat()
    return state.st_mtime_ns, state.st_size
