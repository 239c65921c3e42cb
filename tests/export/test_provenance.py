"""What ONNX files say of the weights that they were made of, and what that catches."""

import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from blender_hf import CheckpointError
from blender_hf.export.provenance import (
    WEIGHTS,
    add_metadata,
    check_weights,
    fingerprints,
    read_metadata,
    saved_fingerprints,
    statement_of,
)
from blender_hf.modeling import PairRanker
from tests.conftest import build_fuser, build_ranker
from tests.export.conftest import small_graph


@pytest.mark.parametrize("value", ["", "abc", "é" * 100, "long " * 10_000])
def test_what_is_added_is_read_by_us_and_by_others(tmp_path: Path, value: str) -> None:
    path = small_graph(tmp_path / "model.onnx")
    add_metadata(path, {"first": "1"})
    add_metadata(path, {"first": "1", "second": value})
    expected = {"first": "1", "second": value}
    assert read_metadata(path) == expected
    assert [(entry.key, entry.value) for entry in onnx.load(path).metadata_props] == list(expected.items())
    assert onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map == expected


@pytest.mark.parametrize("content", [b"", b"weights", b"\xff" * 40, b"\x72\x7f", b"\x72\x02\x08\x01"])
def test_a_file_that_is_no_graph_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert read_metadata(path) == {}
    assert read_metadata(tmp_path / "nothing.onnx") == {}


def test_precision_and_order_do_not_count_and_weights_do() -> None:
    first, second = torch.randn(7, 300).half(), torch.randn(300).half()
    known = fingerprints([first, second])
    assert known == fingerprints([second.float(), first.float()])
    assert known != fingerprints([first, second + 0.01])
    assert fingerprints([first]) != fingerprints([first.reshape(300, 7)])
    assert len(fingerprints([torch.zeros(0), torch.zeros(1), torch.tensor(0.0)])) == 3


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_saved_weights_are_those_of_the_model(tmp_path: Path, shard: str) -> None:
    for name, (model, _) in {"ranker": build_ranker(), "fuser": build_fuser()}.items():
        model.half().save_pretrained(tmp_path / name, max_shard_size=shard)
        assert (len(list((tmp_path / name).glob("*.safetensors"))) > 1) == (shard == "20KB")
        assert saved_fingerprints(tmp_path / name) == set(statement_of(model.float())[WEIGHTS].split())


def test_weights_that_are_not_whole_say_nothing(tmp_path: Path) -> None:
    build_ranker()[0].save_pretrained(tmp_path, max_shard_size="20KB")
    next(tmp_path.glob("*.safetensors")).unlink()
    assert saved_fingerprints(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert saved_fingerprints(tmp_path) is None


def test_a_file_of_earlier_weights_is_told(ranker_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ranker"
    shutil.copytree(ranker_folder, folder)
    paths = sorted((folder / "onnx").glob("*.onnx"))
    assert len(paths) == 3
    for path in paths:
        check_weights(read_metadata(path), path, folder)
    model = PairRanker.from_pretrained(folder)
    with torch.no_grad():
        model.head.out_proj.weight.neg_()
    model.save_pretrained(folder)
    for path in paths:
        with pytest.raises(CheckpointError, match=rf"{path.name} was made of other weights .*: blender-hf export onnx"):
            check_weights(read_metadata(path), path, folder)
