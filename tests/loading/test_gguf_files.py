"""GGUF files as language models: the numbers and the tokens of the checkpoint that they were made of."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from blender_hf import BlenderError, CheckpointError, LocalLLM
from blender_hf.cli.main import main
from blender_hf.export.low_bits import LAYER, OUTER, ROTATED, low_bit_weights
from blender_hf.generation.local import LocalModel
from blender_hf.loading.gguf_files import CUTS
from blender_hf.loading.low_bits import restored

TEXTS = ("What is the capital of France?", "Steps:\n\n1. It's 1234.5 €  x\n", "<|im_start|>user\nHi<|im_end|>\n")


def write_gguf(source: Path, path: Path, *, architecture: str = "llama", quantised: bool = False) -> Path:
    """Write a checkpoint of a small Llama as a GGUF file, as llama.cpp's converter does."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("chat")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(len(tokenizer))
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([3 if n in tokenizer.all_special_ids else 1 for n in range(len(words))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weights in model.state_dict().items():
        stem, part = _gguf_name(name)
        if part in ROTATED:
            heads = getattr(config, ROTATED[part])
            weights = weights.reshape(heads, 2, -1, weights.shape[1]).transpose(1, 2).reshape(weights.shape)
        array = np.ascontiguousarray(weights.numpy())
        if quantised and part in ("ffn_up", "attn_q"):
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(stem, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stem, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> tuple[str, str]:
    stem = name.removesuffix(".weight")
    for theirs, ours in OUTER.items():
        if stem == ours:
            return f"{theirs}.weight", theirs
    _, _, number, inner = stem.split(".", 3)
    part = next(theirs for theirs, ours in LAYER.items() if ours == inner)
    return f"blk.{number}.{part}.weight", part


@pytest.fixture(scope="module")
def folder(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a GGUF file of the chat model, and files that are none."""
    made = tmp_path_factory.mktemp("gguf")
    write_gguf(chat_model, made / "chat.gguf")
    write_gguf(chat_model, made / "clip.gguf", architecture="clip")
    (made / "page.gguf").write_bytes(b"<html>")
    (made / "cut.gguf").write_bytes((made / "chat.gguf").read_bytes()[:3000])
    return made


def test_a_gguf_file_is_the_checkpoint_that_it_was_made_of(folder: Path, chat_model: Path) -> None:
    options = {"device": "cpu", "dtype": "float32"}
    found = LocalModel(LocalLLM(str(folder), gguf_file="chat.gguf", **options))
    plain = LocalModel(LocalLLM(str(chat_model), **options))
    assert found.name == f"{folder}#chat.gguf"
    assert found.context_length == plain.context_length
    assert found.tokenizer.chat_template == plain.tokenizer.chat_template
    for name in ("eos_token", "pad_token", "bos_token"):
        assert getattr(found.tokenizer, name) == getattr(plain.tokenizer, name)
    for text in TEXTS:
        ids = plain.tokenizer(text)["input_ids"]
        assert found.tokenizer(text)["input_ids"] == ids
        inputs = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(found.model(inputs).logits, plain.model(inputs).logits)


def test_the_command_line_reads_one(folder: Path, chat_model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hi"}\n', encoding="utf-8")
    options = ["--max-new-tokens", "6", "--temperature", "0", "--dtype", "float32", "--device", "cpu", "--quiet"]
    for name, llm in (
        ("gguf", f"m={folder}#chat.gguf"),
        ("path", f"m={folder}/chat.gguf"),
        ("plain", f"m={chat_model}"),
    ):
        assert (
            main(["generate", str(prompts), "--llm", llm, "--output", str(tmp_path / f"{name}.jsonl"), *options]) == 0
        )
    written = {(tmp_path / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("gguf", "path", "plain")}
    assert len(written) == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.gguf", r"has no file none\.gguf; it has chat\.gguf, clip\.gguf"),
        ("page.gguf", r"page\.gguf is no GGUF file, or damaged"),
        ("cut.gguf", r"can't load the language model .*cut\.gguf"),
        ("clip.gguf", r"architecture clip is not supported.*llama-server -m \S+clip\.gguf` is http://localhost:8080"),
    ],
)
def test_what_can_not_be_read_says_what_to_do(folder: Path, file: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        LocalModel(LocalLLM(str(folder), gguf_file=file, device="cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.once
def test_without_the_package_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BlenderError, match=r"a GGUF file needs gguf: pip install 'blender-hf\[gguf\]'"):
        LocalModel(LocalLLM(str(folder), gguf_file="chat.gguf", device="cpu"))


@pytest.mark.once
@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "a 123\n\n1", ["a", "Ġ123", "Ċ", "Ċ", "1"]),
        ("smollm", "a 123\n\n1", ["a", "Ġ", "1", "2", "3", "ĊĊ", "1"]),
        ("llama-bpe", "a 1234\n\n1", ["a", "Ġ", "123", "4", "ĊĊ", "1"]),
        ("qwen2", "a 12\n\n1", ["a", "Ġ", "1", "2", "ĊĊ", "1"]),
    ],
)
def test_texts_are_cut_as_llama_cpp_cuts_them(pre: str, text: str, pieces: list[str]) -> None:
    assert [piece for piece, _ in CUTS[pre].pieces.pre_tokenize_str(text)] == pieces


@pytest.mark.once
def test_low_bits_are_made_of_a_gguf_file(chat_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float32)
    path = write_gguf(chat_model, tmp_path / "q4.gguf", quantised=True)
    stored = low_bit_weights(path, model.config, bits=8, group=32)
    for name, weights in model.named_parameters():
        if weights.ndim == 1:
            assert torch.equal(stored[name], weights.detach())
            continue
        found = restored({part: stored[f"{name}.{part}"] for part in ("codes", "steps", "offsets", "tops")})
        bits = 4 if name.endswith(("up_proj.weight", "q_proj.weight")) else 8
        assert len(stored[f"{name}.codes"]) == bits
        assert (found - weights).norm() / weights.norm() < {4: 0.12, 8: 0.02}[bits]
