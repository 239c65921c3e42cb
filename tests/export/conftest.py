"""Real exports of small models, made once."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from blender_hf.export.onnx_export import export_onnx
from blender_hf.modeling import PairRanker, PairRankerProcessor
from tests.conftest import build_fuser, build_ranker, build_separate_ranker, ranker_processor
from tests.stacks.families import config_of


def separate_ranker(**config: Any) -> tuple[PairRanker, PairRankerProcessor]:
    """Return a BERT that encodes each candidate by itself, for two tasks, behind a prompt that does not read it."""
    backbone = config_of("bert", len(ranker_processor().tokenizer))
    return build_separate_ranker(backbone, shared_prompt=True, n_tasks=2, **config)


@pytest.fixture(scope="session")
def ranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker's checkpoint with all of its ONNX files under `onnx/`."""
    folder = tmp_path_factory.mktemp("ranker")
    for part in build_ranker():
        part.save_pretrained(folder)
    export_onnx(folder, folder / "onnx", precisions=("int8", "float16"))
    return folder


@pytest.fixture(scope="session")
def separate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a ranker that encodes each candidate by itself."""
    folder = tmp_path_factory.mktemp("separate")
    for part in separate_ranker():
        part.save_pretrained(folder)
    export_onnx(folder, folder / "onnx", precisions=("int8", "float16"))
    return folder


@pytest.fixture(scope="session")
def fuser_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fuser's checkpoint with its ONNX files under `onnx/`; only where Optimum is installed."""
    folder = tmp_path_factory.mktemp("fuser")
    for part in build_fuser(extractive=True, max_source_length=160):
        part.save_pretrained(folder)
    export_onnx(folder, folder / "onnx")
    return folder


def small_graph(path: Path) -> Path:
    """Write the smallest graph."""
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "small", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path
