"""Weights of a few bits: packed, restored, kept once in memory, and refused if a file is damaged."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from blender_hf import CheckpointError
from blender_hf.blender import make_items
from blender_hf.engine.fusion import Fuser
from blender_hf.export.low_bits import kept, packed, quantised
from blender_hf.generation.local import LocalModel
from blender_hf.generation.specs import LocalLLM
from blender_hf.loading.checkpoints import BUNDLED_LLM, load_fuser, locate
from blender_hf.loading.low_bits import base_weights, has_low_bits, low_bit_language_model, restored, unpacked
from blender_hf.modeling.tokenizer_files import load_tokenizer
from blender_hf.training.gen_fuser import starting_point
from blender_hf.training.settings import FuserSettings

FOLDER = Path(locate(BUNDLED_LLM))
LARGEST_FILE, MOST_BYTES = 50_000_000, 80_000_000
# Of all weights in float32, in the order of their names.
SHA256 = "9eafa3036159a733d37fcfd4345d568ad46cd370fb1ff5e76e2f622ec33cb0c7"
MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.once
def test_the_bundled_language_model_is_small_whole_and_names_no_path() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {"LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "tokenizer.json"} <= sizes.keys()
    assert max(sizes.values()) < LARGEST_FILE
    assert sum(size for name, size in sizes.items() if name.endswith(".safetensors")) < MOST_BYTES
    assert "/" not in (FOLDER / "config.json").read_text(encoding="utf-8")


def test_the_bundled_weights_are_the_same_on_both_stacks() -> None:
    model = LocalModel(LocalLLM(BUNDLED_LLM, device="cpu", dtype="float32")).model
    weights = dict(model.named_parameters())
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].detach().numpy().tobytes())
    assert digest.hexdigest() == SHA256
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert "low_bits" not in model.config.to_dict()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The capital of France is Paris.", [504, 3575, 282, 4649, 314, 7042, 30]),
        ("Steps:\n\n1. It's 1234.5 €", [21831, 42, 1116, 33, 30, 657, 506, 216, 33, 34, 35, 36, 30, 37, 24927]),
        ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
    ],
)
def test_the_bundled_tokenizer_has_the_same_tokens_on_both_stacks(text: str, ids: list[int]) -> None:
    tokenizer = load_tokenizer(FOLDER)
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_models_of_one_checkpoint_share_their_weights() -> None:
    first, second = (LocalModel(LocalLLM(BUNDLED_LLM, device="cpu", dtype="bfloat16")).model for _ in range(2))
    weights = base_weights(FOLDER, torch.bfloat16)
    assert weights.keys() == dict(first.named_parameters()).keys()
    for name, tensor in weights.items():
        pointers = {model.get_parameter(name).data_ptr() for model in (first, second)}
        assert pointers == {tensor.data_ptr()}


@pytest.mark.once
def test_weights_that_somebody_wrote_to_are_read_anew() -> None:
    expected = {name: weight.clone() for name, weight in base_weights(FOLDER, torch.float16).items()}
    model = LocalModel(LocalLLM(BUNDLED_LLM, device="cpu", dtype="float16")).model
    with torch.no_grad():
        model.get_parameter("model.layers.3.mlp.up_proj.weight").mul_(2)
    found = base_weights(FOLDER, torch.float16)
    assert [name for name, weight in found.items() if not torch.equal(weight, expected[name])] == []


def test_weights_that_were_first_read_in_inference_can_be_trained_on(tmp_path: Path) -> None:
    shutil.copytree(_small(tmp_path), copy := tmp_path / "copy")
    with torch.inference_mode():
        base_weights(copy)
    assert not any(tensor.is_inference() for tensor in base_weights(copy).values())


@pytest.mark.once
@pytest.mark.parametrize("bits", [1, 4, 5, 8])
def test_what_is_packed_is_unpacked(bits: int) -> None:
    codes = torch.randint(2**bits, (6, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(bits))
    assert torch.equal(unpacked(packed(codes, bits)), codes)


@pytest.mark.once
def test_more_bits_lose_less() -> None:
    weights = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    errors = [(restored(quantised(weights, bits, 32)) - weights).abs().max().item() for bits in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    # Half a step of the widest group, and what 8 bits of an offset lose.
    assert errors[-1] < 8 / 255 / 2 + 4 / 127


@pytest.mark.once
def test_blocks_of_a_gguf_file_keep_their_codes_and_can_change_their_order() -> None:
    codes = torch.randint(16, (2, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([[[0.5, -2.0], [0.25, 1.0]], [[1.0, -4.0], [2.0, 3.0]]], dtype=torch.float16)
    blocks = codes.reshape(2, 2, 2, 16)
    halves = blocks[:, :, 0] | (blocks[:, :, 1] << 4)
    data = torch.cat([scales.view(torch.uint8).reshape(2, 2, 4), halves], -1)
    exact = (codes.reshape(2, 2, 32) * scales[..., :1].float() + scales[..., 1:].float()).reshape(2, 64)
    error = (restored(kept(data, 2)) - exact).abs().max()
    assert error < 15 * 2.0 / 255 / 2 + 4.0 / 127 / 2
    assert torch.equal(restored(kept(data, 2, torch.tensor([1, 0]))), restored(kept(data, 2))[[1, 0]])


def _small(tmp_path: Path) -> Path:
    """Return the folder of one matrix and one vector."""
    folder = tmp_path / "small"
    folder.mkdir()
    parts = quantised(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), 4, 32)
    save_file(
        {"model.norm.weight": torch.ones(64), **{f"{MATRIX}.{name}": tensor for name, tensor in parts.items()}},
        folder / "model.safetensors",
    )
    return folder


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _changed(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensor = tensors.pop(f"{MATRIX}.{name}")
        if change is not None:
            tensors[f"{MATRIX}.{name}"] = change(tensor).contiguous()
        save_file(tensors, folder / "model.safetensors")

    return apply


@pytest.mark.once
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "index.json is damaged"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
            ),
            "has no model-00001-of-00002.safetensors",
        ),
        (_cut, "model.safetensors is damaged"),
        (_changed("tops", None), f"{MATRIX} .* are damaged: it lacks tops"),
        (_changed("steps", lambda steps: steps[:, :0]), "shapes do not fit"),
        (_changed("offsets", lambda offsets: offsets[1:]), "shapes do not fit"),
        (_changed("codes", lambda codes: codes.to(torch.int16)), "codes is torch.int16"),
    ],
)
def test_damaged_files_are_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = _small(tmp_path)
    assert base_weights(folder).keys() == {MATRIX, "model.norm.weight"}
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        base_weights(folder)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    config = LlamaConfig(hidden_size=64, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, low_bits=1)
    with pytest.raises(OSError, match="not a complete language model checkpoint"):
        low_bit_language_model(_small(tmp_path), config)


@pytest.mark.once
def test_a_newer_version_of_the_format_is_refused() -> None:
    assert not has_low_bits(LlamaConfig())
    assert has_low_bits(LlamaConfig(low_bits=1))
    with pytest.raises(CheckpointError, match=r"version 2 .* update it"):
        has_low_bits(LlamaConfig(low_bits=2))


@pytest.mark.once
def test_the_bundled_language_model_fuses() -> None:
    """With the weights of the others that are made of it; what is trained has its own, and what is saved is whole."""
    model, processor = load_fuser(BUNDLED_LLM, device="cpu")
    shared = base_weights(locate(BUNDLED_LLM))["model.embed_tokens.weight"]
    assert model.get_input_embeddings().weight.data_ptr() == shared.data_ptr()
    [item], _ = make_items("What is the capital of France?", ["Paris.", "The capital of France is Paris."])
    [fusion] = Fuser(model, processor).fuse([item], {"max_new_tokens": 12})
    assert "Paris" in fusion.text
    trained, _ = starting_point(FuserSettings(data=["none"], model=BUNDLED_LLM), [])
    assert trained.get_input_embeddings().weight.data_ptr() != shared.data_ptr()
    assert not hasattr(trained.config, "low_bits")
