"""`backend="onnx"` as users call it: the blender, the pipeline, and which fuser runs where."""

from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import Blender, CheckpointError, GenFuser, InputError
from blender_hf.checkpoints import HubOptions
from blender_hf.export.backend import load_fuser_for_onnx
from blender_hf.export.graph import has_optimum
from blender_hf.export.onnx_ranker import OnnxPairRanker
from tests.conftest import example_texts

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


def test_a_pipeline_without_the_file_says_so(checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.onnx"):
        pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None, backend="onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "no backend 'tensorflow'; use torch or onnx"),
        ({"provider": "CPUExecutionProvider"}, "provider='CPUExecutionProvider' is for backend='onnx'"),
        ({"file_name": "model.onnx"}, "file_name='model.onnx' is for backend='onnx'"),
        ({"backend": "onnx", "compile": True}, "compile=True is for backend='torch'"),
    ],
)
def test_options_that_do_not_go_together(checkpoints: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Blender.from_pretrained(checkpoints / "ranker", None, **options)


def test_a_fuser_without_onnx_files_runs_in_torch(ranker_folder: Path, checkpoints: Path) -> None:
    model, _ = load_fuser_for_onnx(checkpoints / "fuser", HubOptions(), "cpu", None, None)
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
    assert isinstance(exported._fuser.model, OnnxGenFuser)
    expected = in_torch.fuse([PROMPT, "x"], [CANDIDATES[:3], ["y", "z"]], generation=generation)
    assert exported.fuse([PROMPT, "x"], [CANDIDATES[:3], ["y", "z"]], generation=generation) == expected
    assert all(fusion.text for fusion in expected)


@with_optimum
@pytest.mark.slow
def test_an_exported_fuser_needs_no_weights(fuser_folder: Path) -> None:
    model, processor = load_fuser_for_onnx(fuser_folder / "onnx", HubOptions(), None, None, None)
    assert type(model).__name__ == "OnnxGenFuser"
    assert model.config.faithful
    assert processor.max_candidate_length == 64


@with_optimum
@pytest.mark.slow
def test_a_wrong_provider_of_a_fuser_is_named(fuser_folder: Path) -> None:
    with pytest.raises(InputError, match="no provider 'GPU'"):
        load_fuser_for_onnx(fuser_folder, HubOptions(), None, None, "GPU")
