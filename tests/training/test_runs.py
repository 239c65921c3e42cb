"""The folder of a run: which checkpoint it goes on from, and what a start that failed leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blender_hf import InputError
from blender_hf.training.run_folder import RunFolder
from blender_hf.training.settings import DataSettings
from tests.training.test_training import same_weights, train

SETTINGS = DataSettings(["none.jsonl"])


def checkpoint(run: RunFolder, name: str, state: str | None) -> Path:
    folder = run.checkpoints / "all" / name
    folder.mkdir(parents=True)
    if state is not None:
        (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    return folder


@pytest.mark.parametrize("state", [None, "", '{"global_step": 1'])
def test_a_checkpoint_that_was_half_written_is_passed_over(state: str | None, tmp_path: Path) -> None:
    """The trainer writes `trainer_state.json` last; a run that was killed before could never be resumed."""
    run = RunFolder(tmp_path, {})
    assert run.last_checkpoint("all") is None
    checkpoint(run, "checkpoint-30", state)
    assert run.last_checkpoint("all") is None
    whole = [checkpoint(run, f"checkpoint-{step}", "{}") for step in (9, 10)]
    assert run.last_checkpoint("all") == str(whole[1])


@pytest.mark.slow
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(ranker_config: Path, tmp_path: Path) -> None:
    settings = ("num_train_epochs=1", "save_steps=3")
    assert train(ranker_config, *settings) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "straight")
    saved = sorted((tmp_path / "run" / "trainer" / "all").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    for name in ("trainer_state.json", "optimizer.pt", "rng_state.pth"):
        (saved[-1] / name).unlink()
    weights = saved[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    for name in ("model.safetensors", "metrics.json", "README.md"):
        (tmp_path / "run" / name).unlink()
    assert train(ranker_config, *settings, resume=True) == 0
    same_weights(tmp_path / "straight", tmp_path / "run")
    assert (saved[-1] / "trainer_state.json").is_file(), "it was written anew"


def test_a_start_that_failed_leaves_its_folder_free(
    ranker_config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("no JSON\n", encoding="utf-8")
    assert train(ranker_config, f"data=[{bad}]") == 2
    assert train(ranker_config, "sampling=best") == 2
    assert "unknown sampling 'best'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_with_anything_to_lose_is_not_taken_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    run.begin(SETTINGS, resume=False)
    checkpoint(run, "checkpoint-1", "{}")
    run.abandon()
    with pytest.raises(InputError, match="holds a run already"):
        run.begin(SETTINGS, resume=False)


def test_what_is_no_number_is_null_in_its_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    run.write_metrics({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": None}})

    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is not JSON")

    assert json.loads(run.metrics_text(), parse_constant=refuse) == {"a": None, "b": [None, 1.5], "c": {"d": None}}
    assert not list(tmp_path.glob("*.tmp"))
