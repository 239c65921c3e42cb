"""The folder of an export has what is proved, and what it had before."""

from pathlib import Path

import pytest

from blender_hf import InputError
from blender_hf.export.onnx_export import check_output, keep, unproved_folder
from blender_hf.export.provenance import add_metadata, statement_of
from tests.conftest import build_ranker
from tests.export.conftest import small_graph


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_what_was_not_kept(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with unproved_folder(tmp_path / "deep" / "onnx") as unproved:
            (unproved / "model.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_what_is_kept_replaces_the_weights_beside_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx_data").write_bytes(b"of an earlier one")
    with unproved_folder(tmp_path) as unproved:
        (unproved / "model.onnx").write_bytes(b"whole")
        keep(unproved / "model.onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("place", ["file", "file/onnx"])
def test_a_file_is_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match=r"can't write .*file is a file, and an export is a folder"),
        unproved_folder(tmp_path / place),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_other_weights_are_not_joined(tmp_path: Path) -> None:
    model, other = build_ranker()[0], build_ranker(seed=1)[0]
    stale = tmp_path / "model_int8.onnx"
    add_metadata(small_graph(stale), statement_of(other))
    check_output(tmp_path, statement_of(other), ["model.onnx"], is_source=False)
    check_output(tmp_path, statement_of(model), ["model.onnx", stale.name], is_source=False)
    with pytest.raises(InputError, match=r"model_int8\.onnx was made of other weights, .* remove it"):
        check_output(tmp_path, statement_of(model), ["model.onnx"], is_source=False)


def test_an_export_does_not_go_into_the_checkpoint_of_another(tmp_path: Path) -> None:
    model = build_ranker()[0]
    model.save_pretrained(tmp_path)
    check_output(tmp_path, statement_of(model), [], is_source=False)
    with pytest.raises(InputError, match="has the weights of another model"):
        check_output(tmp_path, statement_of(build_ranker(seed=1)[0]), [], is_source=False)
