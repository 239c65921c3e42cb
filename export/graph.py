"""ONNX graphs: the names of their files, inputs and outputs, and where they lie in a checkpoint."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from transformers.utils.hub import cached_file

from blender_hf.errors import CheckpointError
from blender_hf.loading.checkpoints import HubOptions, explained, hub_settings, locate
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.configuration_gen_fuser import is_causal_type
from blender_hf.modeling.configuration_pair_ranker import format_of

MODEL_FILE, INT8_FILE, FLOAT16_FILE = "model.onnx", "model_int8.onnx", "model_fp16.onnx"
FUSER_FILES = ("encoder_model.onnx", "decoder_model_merged.onnx")
# Of a fuser that is a causal language model, which is one graph, with its cache.
CAUSAL_FUSER_FILES = (MODEL_FILE,)
# All that an export of a fuser may write; the merged decoder is made of the other two.
FUSER_GRAPHS = (*FUSER_FILES, "decoder_model.onnx", "decoder_with_past_model.onnx")
# Suffix of the file of weights that don't fit the graph's own, which is limited to 2 GB.
WEIGHTS_SUFFIX = "_data"
MAX_BYTES_INSIDE = 1_900_000_000
FOLDERS = ("", "onnx")
NEEDS_OPTIMUM = "pip install 'blender-hf[onnx]' 'transformers>=4.57,<4.58'"
# What a ranker's graph gives of each row: the logit of a pair or, with separate encodings, the encoding of a candidate.
LOGITS, ENCODINGS = "logits", "encodings"
AXES = {0: "batch_size", 1: "sequence_length"}
OPSET = 18
MAX_OPSET = 23  # the last one that both tracers write and ONNX Runtime reads
ROLE = "ONNX file"


def is_causal_fuser(settings: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of a causal language model, and not of a ranker made of one."""
    return is_causal_type(settings.get("model_type")) and format_of(settings) is None


def fuser_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the graphs that run a fuser, given its config.json."""
    return CAUSAL_FUSER_FILES if is_causal_fuser(settings) else FUSER_FILES


def output_of(config: PairRankerConfig) -> str:
    """Return the name of the output of a ranker's graph."""
    return ENCODINGS if config.is_separate else LOGITS


def inputs_of(config: PairRankerConfig) -> tuple[str, ...]:
    """Return the names of the inputs of a ranker's graph, as its processor makes them."""
    return ("input_ids", "attention_mask", *(["token_type_ids"] if config.is_chat else []))


def has_optimum() -> bool:
    """Return whether Optimum's exporter and runtime for ONNX are installed; they come with optimum-onnx."""
    parts = ("optimum", "optimum.exporters", "optimum.exporters.onnx", "optimum.onnxruntime")
    return all(map(find_spec, parts))  # in this order, since looking up a part imports its parent


def find_onnx_file(name: str | Path, options: HubOptions, file_name: str) -> Path | None:
    """Return the path of an ONNX file at the top or under `onnx/` of a checkpoint, downloaded if necessary, or None."""
    found, place = _find(name, options, file_name, FOLDERS)
    if found is not None:
        # Weights beside a large graph, which the runtime finds by itself.
        _find(name, options, file_name + WEIGHTS_SUFFIX, (place,))
    return found


def find_setting_file(name: str | Path, options: HubOptions, file_name: str) -> Path | None:
    """Return the path of a settings file where ONNX files may be, or None."""
    return _find(name, options, file_name, FOLDERS)[0]


def require_onnx_file(name: str | Path, options: HubOptions, file_name: str) -> Path:
    """Return the path of an ONNX file of a checkpoint; CheckpointError if it has no such file."""
    found = find_onnx_file(name, options, file_name)
    if found is None:
        raise CheckpointError(
            f"{str(name)!r} has no {file_name}, neither at its top nor under onnx/; "
            f"write one with: blender-hf export onnx {name} FOLDER"
        )
    return found


def checkpoint_of(path: Path, name: str | Path, options: HubOptions) -> Path:
    """Return the folder of the checkpoint that has an ONNX file at its top or under `onnx/`."""
    named = Path(locate(name), options.subfolder or "")
    return path.parent.parent if path.parent.name == FOLDERS[-1] and path.parent != named else path.parent


def _find(name: str | Path, options: HubOptions, file_name: str, folders: Sequence[str]) -> tuple[Path | None, str]:
    """Return the path of a file, or None, and in which folder of the checkpoint it is."""
    hub = {key: value for key, value in hub_settings(options).items() if key not in ("trust_remote_code", "subfolder")}
    hub["_raise_exceptions_for_missing_entries"] = False
    for folder in folders:
        place = str(PurePosixPath(options.subfolder or "", folder)).removeprefix(".")
        load = partial(cached_file, locate(name), file_name, subfolder=place, **hub)
        found = explained(load, name, ROLE)
        if found is not None:
            return Path(found), folder
    return None, ""
