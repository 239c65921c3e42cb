"""`blender-hf export onnx`, and ranking with what it writes."""

import json
from pathlib import Path

import pytest

from blender_hf.cli.main import main
from tests.conftest import EXAMPLES


@pytest.mark.slow
def test_a_ranker_is_exported_and_ranks(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "onnx"
    assert main(["export", "onnx", str(checkpoints), str(output), "--subfolder", "ranker", "--quantize", "int8"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "model.onnx: largest difference of a logit" in printed.err
    assert "model_int8.onnx: largest difference" in printed.err
    orders = []
    for options in ([str(checkpoints / "ranker")], [str(output), "--backend", "onnx", "--file-name", "model.onnx"]):
        assert main(["rank", str(EXAMPLES), "--limit", "3", "--quiet", "--ranker", *options]) == 0
        orders.append([json.loads(line)["ranking"]["order"] for line in capsys.readouterr().out.splitlines()])
    assert orders[0] == orders[1]
    assert len(orders[0]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "out", "--local-files-only"], "can't load the model 'nothing'"),
        (["nothing", "out", "--opset", "3"], "opset=3; use 18"),
        (["nothing", "out", "--opset", "99"], "opset=99; use 18 to 23"),
        (["nothing", __file__], "test_export.py is a file, and an export is a folder"),
        (["nothing", "out", "--tolerance", "0.3"], "--tolerance is for the files of --quantize int8"),
        (["nothing", "out", "--quantize", "int8", "--tolerance", "0"], "above 0"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
