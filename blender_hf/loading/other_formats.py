"""Folders that hold something else than a model that loads as it is, each with the step that works."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CONFIG, ADAPTER = "config.json", "adapter_config.json"
# What loads an adapter with its base, by the task that it states, and what else that needs.
MERGERS = {
    "SEQ_CLS": ("AutoPeftModelForSequenceClassification", ", num_labels=1"),
    "CAUSAL_LM": ("AutoPeftModelForCausalLM", ""),
    "SEQ_2_SEQ_LM": ("AutoPeftModelForSeq2SeqLM", ""),
}
# The module that runs weights of a quantisation method, and the package that has it.
QUANTISERS = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes accelerate"),
    "gptq": ("gptqmodel", "gptqmodel optimum"),
    "awq": ("gptqmodel", "gptqmodel"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "hqq": ("hqq", "hqq"),
    "aqlm": ("aqlm", "aqlm"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "torchao": ("torchao", "torchao"),
}
EMBEDS = "holds an embedding model of sentence-transformers, which neither scores answers nor writes texts"
WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def other_format(folder: Path, causes: str, name: str | None = None) -> str | None:
    """Return what a folder is that could not be loaded, and the step that works; None if it is no known other form.

    Args:
        folder: The folder, perhaps with a part of the files of a repository.
        causes: What the errors said.
        name: How the checkpoint is named, if not by the folder.
    """
    return next(filter(None, (rule(folder, causes, name or str(folder)) for rule in RULES)), None)


def _adapter(folder: Path, causes: str, name: str) -> str | None:
    if (stated := json_object(folder / ADAPTER)) is None or (folder / CONFIG).is_file():
        return None
    base, task = stated.get("base_model_name_or_path"), stated.get("task_type")
    loader, options = MERGERS.get(str(task), MERGERS["CAUSAL_LM"])
    merged = f"{Path(name).name}-merged"
    tokenizer = name if (folder / "tokenizer_config.json").is_file() else base
    code = (
        f"from peft import {loader}; from transformers import AutoTokenizer; "
        f"{loader}.from_pretrained({name!r}{options}).merge_and_unload().save_pretrained({merged!r}); "
        f"AutoTokenizer.from_pretrained({tokenizer!r}).save_pretrained({merged!r})"
    )
    kind = {"LORA": "a LoRA adapter"}.get(str(stated.get("peft_type")), f"a PEFT adapter ({stated.get('peft_type')})")
    return (
        f"this is {kind} of {base}, not a whole model: merge it first with `pip install 'blender-hf[lora]'` and "
        f'`python -c "{code}"`, then give {merged}'
    )


def _gguf(folder: Path, causes: str, name: str) -> str | None:
    files = sorted(folder.glob("*.gguf"))
    if not files or (folder / CONFIG).is_file():
        return None
    return (
        f"{files[0].name} is a GGUF file: as a language model it is named {name}#{files[0].name}, or served with "
        f"`llama-server -m {files[0]}`, and is then http://localhost:8080/v1#{files[0].stem}; for all else give "
        "the repository that has its safetensors"
    )


def _dataset(folder: Path, causes: str, name: str) -> str | None:
    files = ("dataset_info.json", "dataset_dict.json", "state.json", "*.parquet", "*.arrow", "*.jsonl", "*.csv")
    inner = (*files, *(f"*/{file}" for file in files))
    if (folder / CONFIG).is_file() or not any(any(folder.glob(file)) for file in inner):
        return None
    return f"{name} holds a data set, not a model: give it as the input, and the folder or the Hub id of a model here"


def _parts_alone(folder: Path, causes: str, name: str) -> str | None:
    if (folder / CONFIG).is_file():
        return None
    if (folder / "model_index.json").is_file():
        return f"{name} holds a diffusers pipeline, which makes pictures and does not score or write texts"
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS) and (folder / "tokenizer_config.json").is_file():
        return f"{name} holds a tokenizer without a model: save both in one folder with save_pretrained, and give that"
    return None


def _sentence_transformers(folder: Path, causes: str, name: str) -> str | None:
    if not (folder / "modules.json").is_file() or (folder / CONFIG).is_file():
        return None
    inner = next(
        (path.parent for path in sorted(folder.glob(f"*/{CONFIG}")) if "model_type" in (json_object(path) or {})), None
    )
    if inner is None:
        return f"{name} {EMBEDS}"
    heads = (json_object(inner / CONFIG) or {}).get("architectures") or ()
    if any(str(head).endswith("ForSequenceClassification") for head in heads):
        return f"{name} holds a model of sentence-transformers, whose files are in {inner.name}: give {inner}"
    return f"{name} {EMBEDS}; a ranker can be trained on its encoder, by blender_hf.training.pair_ranker with {inner}"


def _sentencepiece(folder: Path, causes: str, name: str) -> str | None:
    needs_it = any(folder.glob("*.model")) and not (folder / "tokenizer.json").is_file()
    if not needs_it:
        return None
    if _installed("sentencepiece") and _installed("google.protobuf"):
        return _unreadable(folder)
    return (
        "its tokenizer is a SentencePiece model without tokenizer.json, which needs two packages: "
        "pip install 'blender-hf[sentencepiece]'"
    )


def _unreadable(folder: Path) -> str | None:
    from sentencepiece import SentencePieceProcessor

    for path in sorted(folder.glob("*.model")):
        try:
            SentencePieceProcessor(model_file=str(path))
        except RuntimeError:
            return (
                f"{path} is damaged, or no SentencePiece model: copy or download it again, or the tokenizer.json "
                "of the same tokenizer"
            )
    return None


def _quantised(folder: Path, causes: str, name: str) -> str | None:
    stated = (json_object(folder / CONFIG) or {}).get("quantization_config") or {}
    method = str(stated.get("quant_method", ""))
    module, packages = QUANTISERS.get(method, (None, ""))
    if module is None or _installed(module):
        return None
    return f"its weights are quantised by {method}, which needs: pip install {packages}; or give those before it"


def _onnx(folder: Path, causes: str, name: str) -> str | None:
    if any(any(folder.glob(pattern)) for pattern in WEIGHTS) or not any(folder.glob("**/*.onnx")):
        return None
    return (
        f"{name} has only ONNX files: load it with backend='onnx' (--backend onnx), or give the repository that has "
        "its safetensors"
    )


def _pickled(folder: Path, causes: str, name: str) -> str | None:
    if any(folder.glob("*.safetensors*")) or "eights" not in causes or not any(folder.glob("*.bin")):
        return None
    if not any(words in causes for words in ("eights only load failed", "weights_only", "Unable to load weights")):
        return None
    return (
        "its weights are a pickle that is damaged or holds more than weights, and is not run: where it was made, save "
        "it as safetensors with model.save_pretrained(folder)"
    )


def _remote_code(folder: Path, causes: str, name: str) -> str | None:
    if "trust_remote_code" not in causes and "contains custom code" not in causes:
        return None
    return (
        f"it brings code of its own, which is not run unasked: read the .py files of {name}, then give "
        "trust_remote_code=True (--trust-remote-code)"
    )


RULES = (
    *(_adapter, _gguf, _dataset, _sentence_transformers, _parts_alone, _sentencepiece, _quantised, _onnx, _pickled),
    _remote_code,
)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the object that a file of JSON holds; None if it can't be read, or holds none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
