"""Makes a checkpoint of a few bits, as `blender_hf.loading.low_bits` reads it, of a GGUF file of a Llama.

Usage: python -m blender_hf.export.low_bits FILE.gguf FOLDER

What the file has in 4 bits with a step and an offset (Q4_1) keeps its codes; the steps and offsets become numbers of
8 bits. All other matrices, such as the table of embeddings, are rounded to `--bits`. Vectors stay float32.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from blender_hf.errors import CheckpointError, require
from blender_hf.loading.gguf_files import load_gguf_tokenizer
from blender_hf.loading.low_bits import ENTRY, LARGEST_PARTS, VERSION

# What the parts of a Llama are called in GGUF, and in transformers.
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# GGUF has the two halves of each head that are rotated together in turns, transformers one after the other.
ROTATED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
# A block of Q4_1: a float16 step and a float16 offset, and 32 codes of 4 bits, the first 16 in the lower halves.
BLOCK, BLOCK_BYTES = 32, 20
# Smallest step and offset of a unit, where a row has none.
LEAST = 1e-12
SHARD = "45MB"
# What a configuration says of the file and the program that it was made with.
UNUSED_SETTINGS = ("_model_name_or_path", "_name_or_path", "dtype", "pretraining_tp", "transformers_version")


def packed(codes: Tensor, bits: int) -> Tensor:
    """Return the planes of the bits of numbers: uint8 (rows, columns) to (bits, rows, columns / 8)."""
    rows, columns = codes.shape
    planes = torch.stack([(codes >> place) & 1 for place in range(bits)]).reshape(bits, rows, columns // 8, 8)
    return (planes << torch.arange(8, dtype=torch.uint8)).sum(-1).to(torch.uint8)


def quantised(weights: Tensor, bits: int, group: int) -> dict[str, Tensor]:
    """Return the four tensors of a matrix whose weights are rounded to numbers of `bits`, for groups of columns."""
    grouped = weights.reshape(len(weights), -1, group)
    offsets, largest = grouped.amin(-1), grouped.amax(-1)
    steps = (largest - offsets) / (2**bits - 1)
    tops, units = _units(steps, offsets)
    # Rounded with the steps as they are stored, so that the codes make up for their error; a step is never 0.
    steps8 = (steps / units[:, :1]).round().clamp(1, 255)
    offsets8 = (offsets / units[:, 1:]).round().clamp(-127, 127)
    places = (grouped - (offsets8 * units[:, 1:])[..., None]) / (steps8 * units[:, :1])[..., None]
    codes = places.round().clamp(0, 2**bits - 1).to(torch.uint8).reshape(weights.shape)
    return _parts(packed(codes, bits), steps8, offsets8, tops)


def kept(data: Tensor, rows: int, order: Tensor | None = None) -> dict[str, Tensor]:
    """Return the four tensors of the blocks of a matrix in Q4_1, with its own codes.

    Args:
        data: Its bytes.
        rows: How many rows it has.
        order: The rows in their new order; None leaves them.
    """
    blocks = data.reshape(rows, -1, BLOCK_BYTES)
    steps, offsets = blocks[..., :4].contiguous().view(torch.float16).float().unbind(-1)
    halves = blocks[..., 4:]
    codes = torch.cat([halves & 15, halves >> 4], -1).reshape(rows, -1)
    if order is not None:
        codes, steps, offsets = codes[order], steps[order], offsets[order]
    tops, units = _units(steps, offsets)
    steps8 = (steps / units[:, :1]).round().clamp(0, 255)
    return _parts(packed(codes, 4), steps8, (offsets / units[:, 1:]).round().clamp(-127, 127), tops)


def _units(steps: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    tops = torch.stack([steps.abs().amax(1), offsets.abs().amax(1)], 1).to(torch.float16)
    return tops, (tops.float() / LARGEST_PARTS).clamp(min=LEAST)


def _parts(codes: Tensor, steps: Tensor, offsets: Tensor, tops: Tensor) -> dict[str, Tensor]:
    return {"codes": codes, "steps": steps.to(torch.uint8), "offsets": offsets.to(torch.int8), "tops": tops}


def low_bit_weights(file: str | Path, config: Any, bits: int = 5, group: int = 64) -> dict[str, Tensor]:
    """Return the weights of the GGUF file of a Llama as they are stored.

    Raises:
        BlenderError: If the package gguf is not installed.
        CheckpointError: If the file has weights that no Llama has.
    """
    gguf = require("gguf", "gguf", "reading a GGUF file")
    stored: dict[str, Tensor] = {}
    for found in gguf.GGUFReader(file).tensors:
        name, part = _name(found.name)
        shape = [int(n) for n in reversed(found.shape)]
        order = _order(shape[0], getattr(config, ROTATED[part])) if part in ROTATED else None
        if found.tensor_type == gguf.GGMLQuantizationType.Q4_1:
            parts = kept(torch.from_numpy(found.data.copy()), shape[0], order)
        else:
            numbers = gguf.quants.dequantize(found.data.copy(), found.tensor_type)
            weights = torch.from_numpy(numbers).float().reshape(shape)
            if len(shape) == 1:
                stored[name] = weights
                continue
            parts = quantised(weights if order is None else weights[order], bits, group)
        stored |= {f"{name}.{key}": tensor.contiguous() for key, tensor in parts.items()}
    return stored


def _name(name: str) -> tuple[str, str]:
    """Return the name in transformers of a tensor of a GGUF file, and which part of a layer it is."""
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight", stem
    _, number, part = (*stem.split(".", 2), "", "")[:3]
    if part not in LAYER:
        raise CheckpointError(f"{name} belongs to no Llama, and only those can be stored in a few bits")
    return f"model.layers.{number}.{LAYER[part]}.weight", part


def _order(rows: int, n_heads: int) -> Tensor:
    return torch.arange(rows).reshape(n_heads, -1, 2).transpose(1, 2).reshape(-1)


def write(file: str | Path, folder: str | Path, bits: int = 5, group: int = 64) -> None:
    """Write the folder of a checkpoint of a few bits: weights, configurations, tokenizer and chat template."""
    file, folder = Path(file), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = load_gguf_tokenizer(str(file.parent), file.name)
    _write_weights(low_bit_weights(file, config, bits, group), folder)
    _write_json(folder / "config.json", _settings(config))
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(folder / "generation_config.json", {name: getattr(config, name) for name in ends})
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    _write_tokenizer(tokenizer, folder)


def _write_weights(stored: Mapping[str, Tensor], folder: Path) -> None:
    split = split_torch_state_dict_into_shards(dict(sorted(stored.items())), max_shard_size=SHARD)
    for name, keys in split.filename_to_tensors.items():
        save_file({key: stored[key] for key in keys}, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)
    _write_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def _settings(config: Any) -> dict[str, Any]:
    settings = config.to_diff_dict()
    rotation = settings.pop("rope_parameters", None) or settings
    # As transformers 4 writes it, which both read.
    settings |= {"architectures": ["LlamaForCausalLM"], "rope_theta": rotation["rope_theta"], ENTRY: VERSION}
    return {key: settings[key] for key in sorted(settings) if key not in UNUSED_SETTINGS}


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    text = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    tokens = {name: str(getattr(tokenizer, name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **tokens}
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Make a checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", help="the GGUF file")
    parser.add_argument("folder", help="where the checkpoint is written")
    parser.add_argument("--bits", type=int, default=5, help="of what the file does not have in 4 bits; default: 5")
    parser.add_argument("--group", type=int, default=64, help="columns that share a step and an offset; default: 64")
    options = parser.parse_args(argv)
    write(options.file, options.folder, options.bits, options.group)
    sys.stdout.write(f"{options.folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
