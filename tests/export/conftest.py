"""Real exports of small models, made once."""

from pathlib import Path

import pytest

from blender_hf.export.onnx_export import export_onnx
from tests.conftest import build_fuser, build_ranker


@pytest.fixture(scope="session")
def ranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker's checkpoint with all of its ONNX files under `onnx/`."""
    folder = tmp_path_factory.mktemp("ranker")
    for part in build_ranker():
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
