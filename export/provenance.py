"""What an ONNX file states of the model that it was made of, so that outdated ones are detected: `metadata_props`."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from blender_hf.errors import CheckpointError, require
from blender_hf.loading.other_formats import json_object
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.configuration_gen_fuser import LOADABLE_TYPES, is_causal_type
from blender_hf.modeling.configuration_pair_ranker import TOKEN_IDS

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTS, DISTINCT_TOKEN_WEIGHT = "blender_hf.weights", "blender_hf.distinct_token_weight"
SETTINGS = "blender_hf.settings"
# Settings of a ranker that are part of its graph: changing them later in `config.json` would not change what it gives.
GRAPH_SETTINGS = (
    *("candidate_encoding", "shared_prompt", "preference_dim", "layout", "pooling", "symmetric"),
    *("cross_candidate_bias", *TOKEN_IDS),
)
# Formats whose files hold the weights as the model has them; those of the original authors are converted.
OWN_TYPES = (PairRankerConfig.model_type, *LOADABLE_TYPES)
# How many numbers of a tensor its fingerprint covers. Training changes nearly all numbers of all tensors, so a few are
# enough, and fingerprints of gigabytes take no time. A change of a few single numbers goes unnoticed.
N_SAMPLES = 64


def statement_of(model: PreTrainedModel) -> dict[str, str]:
    """Return what the ONNX files of a model state: fingerprints of its weights, and settings of a ranker."""
    statement = {WEIGHTS: " ".join(sorted(fingerprints(model.parameters())))}
    if isinstance(model.config, PairRankerConfig):
        statement[DISTINCT_TOKEN_WEIGHT] = repr(float(model.config.distinct_token_weight))
        statement[SETTINGS] = json.dumps({name: getattr(model.config, name) for name in GRAPH_SETTINGS})
    return statement


def fingerprints(tensors: Iterable[torch.Tensor]) -> frozenset[str]:
    """Return the fingerprints of tensors: of their shapes and of `N_SAMPLES` evenly spread numbers each, in float32.

    The stored precision and names don't count, since releases of transformers differ in the latter, nor does how often
    tied weights are stored.
    """
    return frozenset(map(_fingerprint, tensors))


def saved_fingerprints(folder: Path) -> frozenset[str] | None:
    """Return the fingerprints of a checkpoint's safetensors, or None if they are incomplete or in another format."""
    kind = settings_in(folder).get("model_type")
    if kind not in OWN_TYPES and not is_causal_type(kind):
        return None
    try:
        paths = weight_files(folder)
        return fingerprints(tensor for path in paths for tensor in _tensors_in(path)) if paths else None
    except (OSError, SafetensorError):
        return None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a folder that transformers would read, whether or not all of them exist."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    names = (json_object(index) or {}).get("weight_map", {}).values()
    return [folder / name for name in sorted(set(names))]


def check_weights(metadata: Mapping[str, str], path: Path, folder: Path) -> None:
    """Check that an ONNX file was made of the weights in a folder, as far as both state them."""
    stated = metadata.get(WEIGHTS)
    saved = None if stated is None else saved_fingerprints(folder)
    # A checkpoint may hold more than the model has, as those of T5 do.
    if stated is not None and saved is not None and not saved.issuperset(stated.split()):
        raise CheckpointError(outdated(path, folder))


def check_settings(metadata: Mapping[str, str], path: Path, config: PairRankerConfig) -> None:
    """Check that an ONNX file was made with the settings of a configuration, as far as it states them."""
    for name, exported in json.loads(metadata.get(SETTINGS, "{}")).items():
        found = getattr(config, name, None)
        if found != exported:
            raise CheckpointError(
                f"{path} was exported with {name}={exported!r}, and the configuration says {found!r}: correct "
                "config.json, or export it again"
            )


def outdated(path: Path, folder: Path) -> str:
    """Return the message for an outdated ONNX file."""
    return (
        f"{path} was made of other weights than those in {folder}; "
        f"remove the ONNX files there and export them again: blender-hf export onnx {folder} {path.parent}"
    )


def settings_in(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `config.json`; nothing if it can't be read."""
    return json_object(folder / "config.json") or {}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the `metadata_props` of an ONNX file; nothing if it can't be read."""
    try:
        return require_metadata(path)
    except CheckpointError:
        return {}


def require_metadata(path: Path) -> dict[str, str]:
    """Return the `metadata_props` of an ONNX file."""
    return {entry.key: entry.value for entry in _load(path).metadata_props}


def add_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Add entries that the `metadata_props` of an ONNX file lacks; weights beside it stay there."""
    import onnx

    model = _load(path)
    known = {entry.key for entry in model.metadata_props}
    for key, value in entries.items():
        if key not in known:
            model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def _load(path: Path) -> "ModelProto":
    onnx = require("onnx", "onnx-export", f"reading {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    # The errors of the file system and of protocol buffers, which may come from two implementations.
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it, download it or export it again") from None
    if not model.HasField("graph"):
        raise CheckpointError(f"{path} is damaged (it has no graph); copy it, download it or export it again")
    return model


def _fingerprint(tensor: torch.Tensor) -> str:
    n, shape = tensor.numel(), tuple(tensor.shape)
    taken = min(n, N_SAMPLES)
    indices = torch.arange(taken, device=tensor.device) * (n - 1) // max(taken - 1, 1)
    numbers = tensor.detach().reshape(-1)[indices].float().cpu().numpy()
    return hashlib.blake2s(f"{shape}".encode() + numbers.tobytes(), digest_size=4).hexdigest()


def _tensors_in(path: Path) -> Iterator[torch.Tensor]:
    # Memory-mapped: only the pages of the sampled numbers are read.
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            yield file.get_tensor(name)
