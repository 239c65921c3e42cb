"""What an ONNX file says of the model that it was made of, so that one of earlier weights does not pass for these.

It stands in the file's `metadata_props`. ONNX Runtime and the package `onnx` show it too, but neither is needed to
publish a checkpoint, so it is read and written here: what is appended to a message of protocol buffers joins it.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from blender_hf.errors import CheckpointError
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.configuration_gen_fuser import LOADABLE_TYPES

WEIGHTS, DISTINCT_TOKEN_WEIGHT = "blender_hf.weights", "blender_hf.distinct_token_weight"
# Formats whose files hold the weights as the model has them; those of the original authors are converted.
OWN_TYPES = (PairRankerConfig.model_type, *LOADABLE_TYPES)
# Numbers of a tensor that its fingerprint covers. Training moves nearly all numbers of all tensors, so these tell it,
# and the fingerprints of gigabytes are there at once. A change of a few single numbers is not noticed.
SAMPLES = 64
METADATA_FIELD, KEY_FIELD, VALUE_FIELD, TEXT = 14, 1, 2, 2  # numbers of fields in ONNX's ModelProto; the type of a text


def statement_of(model: nn.Module) -> dict[str, str]:
    """Return what the ONNX files of a model say of it: the fingerprints of its weights, and a ranker's preference."""
    statement = {WEIGHTS: " ".join(sorted(fingerprints(model.parameters())))}
    if isinstance(model.config, PairRankerConfig):
        statement[DISTINCT_TOKEN_WEIGHT] = repr(float(model.config.distinct_token_weight))
    return statement


def fingerprints(tensors: Iterable[torch.Tensor]) -> frozenset[str]:
    """Return the fingerprints of tensors: of their shapes and of `SAMPLES` numbers each, evenly spread, in float32.

    Neither the precision in which weights are stored nor their names count, for releases of transformers differ in the
    latter, nor how often tied ones are stored.
    """
    return frozenset(map(_fingerprint, tensors))


def saved_fingerprints(folder: Path) -> frozenset[str] | None:
    """Return the fingerprints of a checkpoint's safetensors, or None if they are not whole or in another's format."""
    if settings_in(folder).get("model_type") not in OWN_TYPES:
        return None
    try:
        paths = weight_files(folder)
        return fingerprints(tensor for path in paths for tensor in _tensors_in(path)) if paths else None
    except (OSError, SafetensorError):
        return None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a folder that transformers would read, whether or not all of them are there."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    names = _json(index).get("weight_map", {}).values()
    return [folder / name for name in sorted(set(names))]


def check_weights(path: Path, folder: Path) -> None:
    """Make sure that an ONNX file was made of the weights that lie in a folder, as far as both say.

    Args:
        path: The ONNX file. One that states no weights, as those of `optimum-cli`, passes.
        folder: The checkpoint's. One without safetensors, or in the original authors' format, lets every file pass.

    Raises:
        CheckpointError: If it was made of others.
    """
    stated = read_metadata(path).get(WEIGHTS)
    saved = None if stated is None else saved_fingerprints(folder)
    # A file may hold more than the model has, as those of T5 do.
    if stated is not None and saved is not None and not saved.issuperset(stated.split()):
        raise CheckpointError(other_weights(path, folder))


def other_weights(path: Path, folder: Path) -> str:
    """Return what is said of a stale ONNX file."""
    return (
        f"{path} was made of other weights than those in {folder}; "
        f"remove the ONNX files there and export them again: blender-hf export onnx {folder} {path.parent}"
    )


def settings_in(folder: Path) -> dict[str, Any]:
    """Return what stands in the `config.json` of a folder; nothing if there is none that can be read."""
    return _json(folder / "config.json")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the `metadata_props` of an ONNX file; nothing if it can't be read."""
    try:
        return require_metadata(path)
    except CheckpointError:
        return {}


def require_metadata(path: Path) -> dict[str, str]:
    """Return the `metadata_props` of an ONNX file.

    Raises:
        CheckpointError: If it can't be read, or is no such file, or not all of it is there.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            entries = [content[start:end] for number, start, end in _fields(content) if number == METADATA_FIELD]
        return dict(_entry(entry) for entry in entries)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it, download it or export it again") from None


def add_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Add to the `metadata_props` of an ONNX file, however large it is, what it does not have yet."""
    known = read_metadata(path)
    with path.open("ab") as file:
        for key, value in entries.items():
            if key not in known:
                entry = _encoded(KEY_FIELD, key.encode()) + _encoded(VALUE_FIELD, value.encode())
                file.write(_encoded(METADATA_FIELD, entry))


def _fingerprint(tensor: torch.Tensor) -> str:
    n, shape = tensor.numel(), tuple(tensor.shape)
    taken = min(n, SAMPLES)
    places = torch.arange(taken, device=tensor.device) * (n - 1) // max(taken - 1, 1)
    numbers = tensor.detach().reshape(-1)[places].float().cpu().numpy()
    return hashlib.blake2s(f"{shape}".encode() + numbers.tobytes(), digest_size=4).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensors_in(path: Path) -> Iterator[torch.Tensor]:
    # Mapped into memory: only the pages of the numbers that are looked at are read.
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            yield file.get_tensor(name)


def _fields(content: Any) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the start and the end of each field of a message that is a text or a message."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        size = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 in (0, TEXT):
            size, place = _varint(content, place)
        if tag & 7 not in (0, 1, TEXT, 5):
            raise ValueError(f"no type of a field: {tag & 7}")
        if tag & 7 == 0:
            continue
        if place + size > len(content):
            raise ValueError("the file ends too early")
        if tag & 7 == TEXT:
            yield tag >> 3, place, place + size
        place += size


def _entry(content: bytes) -> tuple[str, str]:
    parts = {number: content[start:end].decode() for number, start, end in _fields(content)}
    return parts[KEY_FIELD], parts.get(VALUE_FIELD, "")


def _varint(content: Any, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[place]
        number, place = number | (byte & 127) << shift, place + 1
        if byte < 128:
            return number, place
        shift += 7


def _encoded(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | TEXT) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _as_varint(rest) if rest else bytes([low])
