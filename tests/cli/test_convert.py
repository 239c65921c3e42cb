"""`blender-hf convert`: every format that is read, written in ours."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blender_hf import Blender
from blender_hf.cli.main import main
from tests.original_checkpoints import KINDS, PAIRS, make_pairrm, make_ranker


@pytest.fixture(scope="module")
def pairrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairrm(tmp_path_factory.mktemp("pairrm"), KINDS[1]).folder


def logits(folder: Path) -> list[float]:
    blender = Blender.from_pretrained(folder, None, device="cpu", local_files_only=True)
    return [blender.compare(*pair).logit for pair in PAIRS]


@pytest.mark.parametrize("kind", KINDS)
def test_pairrm_hf(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    make_pairrm(source, kind)
    assert main(["convert", str(source), str(output)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"blender-hf: wrote {output}\n"
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= {
        path.name for path in output.iterdir()
    }
    assert logits(output) == pytest.approx(logits(source), abs=1e-6)
    settings = json.loads((output / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] != "TokenizersBackend", "transformers 4 knows no such class"
    assert "extra_special_tokens" not in settings, "transformers 4 can't read the form in which 5 writes them"


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_the_older_format_then_needs_its_encoder_no_more(weights: str, tmp_path: Path) -> None:
    source = make_ranker(tmp_path / "ranker", KINDS[1], weights).folder
    expected = logits(source)
    assert main(["convert", str(source), str(tmp_path / "output")]) == 0
    (tmp_path / "encoder").rename(tmp_path / "elsewhere")
    assert logits(tmp_path / "output") == pytest.approx(expected, abs=1e-6)
    for path in (tmp_path / "output").glob("*config.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), f"{path.name} names a path"


def test_our_own_format_and_half_precision(checkpoints: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoints / "ranker"), str(tmp_path / "half"), "--dtype", "float16"]) == 0
    assert {weight.dtype for weight in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    found = Blender.from_pretrained(tmp_path / "half", None, device="cpu").compare("p", "a", "b").logit
    expected = Blender.from_pretrained(checkpoints / "ranker", None, device="cpu").compare("p", "a", "b").logit
    assert found == pytest.approx(expected, abs=0.02)


def test_lengths_are_written(pairrm: Path, tmp_path: Path) -> None:
    """For a checkpoint whose lengths only its card knows."""
    lengths = ["--max-pair-length", "3370", "--max-source-length", "2030", "--source-truncation-side", "left"]
    assert main(["convert", str(pairrm), str(tmp_path), *lengths]) == 0
    for name in ("config", "processor_config"):
        stated = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert (stated["max_pair_length"], stated["max_source_length"]) == (3370, 2030)
        assert (stated["source_truncation_side"], stated["max_candidate_length"]) == ("left", 1024)


def test_a_folder_that_is_not_empty_is_left_alone_unless_forced(pairrm: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["convert", str(pairrm), str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["convert", str(pairrm), str(tmp_path), "--force"]) == 0
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such", "{new}", "--local-files-only"], "can't load the ranker 'no/such'"),
        (["{fuser}", "{new}"], "can't load the ranker"),
        (["{pairrm}", "{new}", "--dtype", "int3"], "unknown dtype 'int3'"),
        (["{pairrm}", "{new}/deep/down"], "its folder does not exist"),
        (["{pairrm}", "{file}"], "it is a file"),
        (["{pairrm}", "{pairrm}", "--force"], "is the input itself"),
        (
            ["{pairrm}", "{new}", "--max-source-length", "2040"],
            "truncation: max_source_length=2040 leaves fewer than 8",
        ),
    ],
)
def test_errors_are_one_line_and_code_2(
    arguments: list[str],
    message: str,
    pairrm: Path,
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    names = {"pairrm": pairrm, "fuser": checkpoints / "fuser", "new": tmp_path / "new", "file": tmp_path / "file"}
    assert main(["convert", *(argument.format(**names) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("blender-hf: error: ")
    assert message in line
    assert not (tmp_path / "new").exists()
