"""`backend="onnx"` as users call it: the blender, the pipeline, and which fuser runs where."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    LlamaConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    Qwen3Config,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
    set_seed,
)

from blender_hf import Blender, CheckpointError, GenFuser, InputError, InputTypeError
from blender_hf.export.backend import check_backend, load_fuser_for_onnx
from blender_hf.export.graph import has_optimum
from blender_hf.export.onnx_export import export_onnx
from blender_hf.export.onnx_ranker import OnnxPairRanker
from tests.conftest import T5_SETTINGS, build_fuser, example_texts, fuser_tokenizer
from tests.generation.tiny_models import save_chat_model

TEXTS = example_texts()
PROMPT, CANDIDATES = TEXTS[0], list(TEXTS[1:5])
with_optimum = pytest.mark.skipif(not has_optimum(), reason="Optimum needs transformers 4.57")


def test_rankings_are_those_of_torch(ranker_folder: Path) -> None:
    expected = Blender.from_pretrained(ranker_folder, None, device="cpu").rank(PROMPT, CANDIDATES)
    found = Blender.from_pretrained(ranker_folder, None, backend="onnx").rank(PROMPT, CANDIDATES)
    assert found.order == expected.order
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)


def test_a_folder_without_weights_is_enough(ranker_folder: Path) -> None:
    blender = Blender.from_pretrained(ranker_folder / "onnx", None, backend="onnx", file_name="model_int8.onnx")
    assert isinstance(blender.scorer.model, OnnxPairRanker)
    ranking = blender.rank(PROMPT, CANDIDATES)
    assert ranking.scores == blender.rank([PROMPT, "x"], [CANDIDATES, ["y", "z"]])[0].scores


def test_the_pipeline_takes_the_file_beside_the_weights(ranker_folder: Path) -> None:
    settings: dict[str, Any] = {"provider": "CPUExecutionProvider", "file_name": "model_int8.onnx"}
    pipe = pipeline("llm-blending", model=str(ranker_folder), fuser=None, backend="onnx", **settings)
    blender = Blender.from_pretrained(ranker_folder, None, backend="onnx", **settings)
    found = pipe({"prompt": PROMPT, "candidates": CANDIDATES})["ranking"]
    assert found["scores"] == list(blender.rank(PROMPT, CANDIDATES).scores)
    assert isinstance(pipe.model, OnnxPairRanker)


@pytest.mark.parametrize("options", [{}, {"backend": "onnx"}])
def test_the_pipeline_takes_a_ranker_in_a_subfolder(
    options: dict[str, str], ranker_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ranker_folder, tmp_path / "deep" / "down")
    settings = {"fuser": None, "device": "cpu", "model_kwargs": {"subfolder": "deep/down"}, **options}
    found = pipeline("llm-blending", model=str(tmp_path), **settings)({"prompt": PROMPT, "candidates": CANDIDATES})
    expected = Blender.from_pretrained(ranker_folder, None, device="cpu").rank(PROMPT, CANDIDATES)
    assert found["ranking"]["scores"] == pytest.approx(expected.scores, abs=1e-4)


def test_a_missing_tokenizer_is_named(ranker_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(ranker_folder, tmp_path / "ranker")
    (tmp_path / "ranker" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json; save the processor"):
        Blender.from_pretrained(tmp_path / "ranker", None, backend="onnx")


def test_a_pipeline_without_the_file_says_so(checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.onnx"):
        pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None, backend="onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "unknown backend 'tensorflow'; use one of torch, onnx"),
        ({"provider": "CPUExecutionProvider"}, "provider='CPUExecutionProvider' is for backend='onnx'"),
        ({"file_name": "model.onnx"}, "file_name='model.onnx' is for backend='onnx'"),
        ({"attn_implementation": "sdqa"}, "unknown attn_implementation 'sdqa'; use one of eager, .*sdpa"),
        ({"backend": "onnx", "attn_implementation": "sdpa"}, "attn_implementation='sdpa' is for backend='torch'"),
        ({"backend": "onnx", "compile": True}, "compile=True is for backend='torch'"),
        ({"backend": "onnx", "provider": ""}, "provider='' names nothing"),
        ({"backend": "onnx", "file_name": ""}, "file_name='' names nothing"),
    ],
)
def test_options_that_do_not_go_together(checkpoints: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Blender.from_pretrained(checkpoints / "ranker", None, **options)


def test_a_file_name_is_a_text(ranker_folder: Path) -> None:
    with pytest.raises(InputTypeError, match="file_name must be a str, not PosixPath"):
        Blender.from_pretrained(ranker_folder, None, backend="onnx", file_name=Path("model.onnx"))


class Longest:
    """Ranks by itself, as an object that is given for the ranker does."""

    def scores(self, items: Any) -> Any:
        return [[float(len(text)) for text in item.texts] for item in items]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "nonsense"}, "the device 'nonsense' can't be used here"),
        ({"dtype": "float99"}, "unknown dtype 'float99'"),
        ({"ranker": Longest(), "file_name": "model.onnx"}, "this object ranks by itself"),
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_backend("onnx", **{"provider": None, "file_name": None, **options})


@pytest.mark.parametrize("options", [("nonsense", None), ("cpu", "float99")])
def test_a_fuser_has_a_device_and_a_precision_wherever_it_runs(checkpoints: Path, options: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"nonsense|float99"):
        load_fuser_for_onnx(checkpoints / "fuser", device=options[0], dtype=options[1])


def test_a_fuser_without_onnx_files_runs_in_torch(ranker_folder: Path, checkpoints: Path) -> None:
    model, _ = load_fuser_for_onnx(checkpoints / "fuser", device="cpu")
    assert isinstance(model, GenFuser)
    blender = Blender.from_pretrained(ranker_folder, checkpoints / "fuser", backend="onnx", device="cpu")
    expected = Blender.from_pretrained(ranker_folder, checkpoints / "fuser", device="cpu").blend(PROMPT, CANDIDATES)
    assert blender.blend(PROMPT, CANDIDATES).fused == expected.fused


@with_optimum
@pytest.mark.slow
@pytest.mark.parametrize("generation", [{}, {"num_beams": 3}, {"max_new_tokens": 5}])
def test_an_exported_fuser_writes_what_torch_writes(
    ranker_folder: Path, fuser_folder: Path, generation: dict[str, int]
) -> None:
    from blender_hf.export.onnx_fuser import OnnxGenFuser

    exported = Blender.from_pretrained(ranker_folder, fuser_folder, backend="onnx")
    in_torch = Blender.from_pretrained(ranker_folder, fuser_folder, device="cpu")
    assert isinstance(exported.fuser.model, OnnxGenFuser)
    expected = in_torch.fuse([PROMPT, "x"], [CANDIDATES[:3], ["y", "z"]], generation=generation)
    assert exported.fuse([PROMPT, "x"], [CANDIDATES[:3], ["y", "z"]], generation=generation) == expected
    assert all(fusion.text for fusion in expected)


@with_optimum
@pytest.mark.slow
@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config])
def test_an_exported_language_model_fuses_as_in_torch(kind: Any, ranker_folder: Path, tmp_path: Path) -> None:
    """In batches with padding on the left, with and without segments; and its graph needs no weights beside it."""
    plain, exported = tmp_path / "plain", tmp_path / "onnx"
    save_chat_model(plain, kind=kind, context=640, head_dim=24)
    assert export_onnx(plain, exported).keys() == {"model.onnx"}
    assert not (exported / "model.safetensors").exists()
    in_onnx = Blender.from_pretrained(ranker_folder, exported, backend="onnx")
    in_torch = Blender.from_pretrained(ranker_folder, plain, device="cpu")
    assert type(in_onnx.fuser.model).__name__ == "OnnxCausalGenFuser"
    assert in_onnx.fuser.model.generation_config.max_new_tokens == 256
    inputs = [PROMPT, "x"], [CANDIDATES[:3], ["y", "z. Yes. No."]]
    for extractive, generation in ((False, {"max_new_tokens": 20}), (False, {"num_beams": 3}), (True, {})):
        in_onnx.fuser.model.config.extractive = in_torch.fuser.model.config.extractive = extractive
        options = {"max_new_tokens": 12, **generation}
        expected = in_torch.fuse(*inputs, generation=options)
        assert in_onnx.fuse(*inputs, generation=options) == expected
    save_chat_model(plain, kind=kind, context=640, head_dim=24, seed=1)
    shutil.move(exported, plain / "onnx")
    with pytest.raises(CheckpointError, match="made of other weights"):
        load_fuser_for_onnx(plain)


@with_optimum
@pytest.mark.slow
def test_an_exported_fuser_needs_no_weights(fuser_folder: Path) -> None:
    model, processor = load_fuser_for_onnx(fuser_folder / "onnx")
    assert type(model).__name__ == "OnnxGenFuser"
    assert model.config.extractive
    assert processor.max_candidate_length == 64


@with_optimum
@pytest.mark.slow
def test_of_a_download_only_the_top_has_a_configuration(fuser_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(fuser_folder, tmp_path / "fuser")
    (tmp_path / "fuser" / "onnx" / "config.json").unlink()
    model, _ = load_fuser_for_onnx(tmp_path / "fuser")
    assert type(model).__name__ == "OnnxGenFuser"


@with_optimum
@pytest.mark.slow
def test_a_wrong_provider_of_a_fuser_is_named(fuser_folder: Path) -> None:
    with pytest.raises(InputError, match="no provider 'GPU'"):
        load_fuser_for_onnx(fuser_folder, provider="GPU")


@with_optimum
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config_class", "model_class", "initializer_factor"),  # so much that they write more than a token or two
    [(T5Config, T5ForConditionalGeneration, 3.0), (MT5Config, MT5ForConditionalGeneration, 1.0)],
)
def test_a_plain_t5_writes_what_torch_writes(
    config_class: Any, model_class: Any, initializer_factor: float, ranker_folder: Path, tmp_path: Path
) -> None:
    """T5 and mT5 state no length of their answers, with or without settings of generation."""
    set_seed(0)
    tokenizer = fuser_tokenizer()
    config = config_class(**T5_SETTINGS, vocab_size=len(tokenizer), initializer_factor=initializer_factor)
    for part in (model_class(config), tokenizer):
        part.save_pretrained(tmp_path)
    export_onnx(tmp_path, tmp_path / "onnx")
    for has_settings in (True, False):
        if not has_settings:
            (tmp_path / "generation_config.json").unlink()
        exported = Blender.from_pretrained(ranker_folder, tmp_path, backend="onnx")
        assert type(exported.fuser.model).__name__ == "OnnxGenFuser"
        assert exported.fuser.model.generation_config.max_new_tokens == 128
        expected = Blender.from_pretrained(ranker_folder, tmp_path, device="cpu").fuse(PROMPT, CANDIDATES[:3])
        assert exported.fuse(PROMPT, CANDIDATES[:3]) == expected
        assert len(tokenizer(expected.text).input_ids) > 20


@with_optimum
@pytest.mark.slow
def test_a_fuser_of_earlier_weights_is_refused(fuser_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(fuser_folder, tmp_path / "fuser")
    build_fuser(extractive=True, max_source_length=160, seed=1)[0].save_pretrained(tmp_path / "fuser")
    with pytest.raises(CheckpointError, match="made of other weights"):
        load_fuser_for_onnx(tmp_path / "fuser")
