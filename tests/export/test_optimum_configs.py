"""Optimum's own command and classes know our models."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blender_hf.export.graph import ENCODINGS, LOGITS, has_optimum
from blender_hf.export.onnx_ranker import OnnxPairRanker
from blender_hf.loading.checkpoints import HubOptions
from blender_hf.modeling import PairRanker, PairRankerOutput
from tests.conftest import build_ranker, example_texts
from tests.export.conftest import separate_ranker
from tests.generation.tiny_models import build_chat_ranker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_optimum(), reason="Optimum's exporter needs transformers 4.57"),
]
TEXTS = example_texts()


def optimum_cli(checkpoint: Path, task: str, output: Path) -> str:
    """Run the command as users do: a program of its own, to which nothing has introduced our models."""
    command = [Path(sys.executable).with_name("optimum-cli"), "export", "onnx", "--model", checkpoint, "--task", task]
    done = subprocess.run([*command, output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("task", "build"),
    [("text-classification", build_ranker), ("text-ranking", separate_ranker), ("text-ranking", build_chat_ranker)],
)
def test_optimum_cli_exports_a_ranker(task: str, build: Callable[..., Any], tmp_path: Path) -> None:
    """The second task is what the Hub says of a published ranker; random tokens without markers have no mean."""
    model, processor = build(pooling="mean")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    said = optimum_cli(tmp_path / "ranker", task, tmp_path / "onnx")
    assert "values not close enough" not in said
    exported = OnnxPairRanker(tmp_path / "onnx" / "model.onnx", model.config)
    texts = (["hello!", TEXTS[0]], ["hi!", TEXTS[1]], ["no", TEXTS[2]])
    batch = processor(*texts[: len(model.config.row_markers)])
    with torch.no_grad():
        torch.testing.assert_close(dict(exported(**batch)), _numbers(model(**batch)), atol=1e-4, rtol=1e-4)


def _numbers(output: PairRankerOutput) -> dict[str, torch.Tensor]:
    """Return what of an output a graph gives."""
    return {name: value for name, value in output.items() if name in (LOGITS, ENCODINGS)}


def test_optimum_cli_exports_a_fuser(checkpoints: Path, tmp_path: Path) -> None:
    from blender_hf.export.onnx_fuser import load_onnx_fuser
    from blender_hf.modeling import GenFuser

    optimum_cli(checkpoints / "fuser", "text2text-generation-with-past", tmp_path)
    exported, processor = load_onnx_fuser(tmp_path, HubOptions())
    inputs = processor([TEXTS[0]], [list(TEXTS[1:4])])
    model = GenFuser.from_pretrained(checkpoints / "fuser")
    assert exported.generate(**inputs).tolist() == model.generate(**inputs).tolist()


def test_optimum_runs_an_exported_ranker(ranker_folder: Path) -> None:
    """Optimum's class for classification reads our file too; its logits are ours."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    exported = ORTModelForSequenceClassification.from_pretrained(ranker_folder / "onnx", file_name="model.onnx")
    model = PairRanker.from_pretrained(ranker_folder)
    batch = build_ranker()[1](["hello!"], ["hi!"], ["no"])
    with torch.no_grad():
        torch.testing.assert_close(exported(**batch).logits, model(**batch).logits, atol=1e-4, rtol=1e-4)
