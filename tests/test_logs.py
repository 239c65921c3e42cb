"""What a program that uses the library sees on stderr."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.utils as hub
import pytest
from transformers.utils import logging as transformers_logging

import blender_hf
from blender_hf import logs
from tests.forking import forked

PROGRAM = """
import sys
from transformers import pipeline
import blender_hf
blend = pipeline("llm-blending", device="cpu")
blender_hf.Blender.from_pretrained(device="cpu")
blend({"prompt": "2 + 2?", "candidates": ["4", "Bananas."]})
"""
# transformers 4 says of every pipeline where it runs, which is not about a choice of ours.
PLACE = "Device set to use cpu\n"
SILENCING = {"HF_HUB_DISABLE_PROGRESS_BARS": "", "TRANSFORMERS_VERBOSITY": ""}


@pytest.fixture
def talkative() -> Iterator[None]:
    """Show progress bars, which commands that other tests ran have switched off; in the end as they were."""
    verbosity, level = transformers_logging.get_verbosity(), logging.getLogger("blender_hf").level
    transformers_logging.enable_progress_bar()
    yield
    transformers_logging.set_verbosity(verbosity)
    transformers_logging.enable_progress_bar()
    hub.enable_progress_bars("blender_hf")
    logging.getLogger("blender_hf").setLevel(level)


def test_our_own_choices_and_short_loading_make_no_noise() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SILENCING}
    process = forked(PROGRAM, env=environment)
    out, err = process.communicate()
    assert (process.returncode, out, err.replace(PLACE, "")) == (0, "", "")


def test_long_loading_has_a_progress_bar(
    talkative: None, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "PATIENCE", 0.0)
    blender_hf.Blender.from_pretrained(checkpoints / "ranker", None, device="cpu")
    has_bars = hasattr(transformers_logging, "set_tqdm_hook")  # transformers 4 shows none of a single file
    assert ("Loading weights" in capfd.readouterr().err) == has_bars


def test_bars_of_others_stay_as_they_are(checkpoints: Path) -> None:
    """Also where somebody has a hook of their own, which still gets every bar."""
    if not hasattr(transformers_logging, "set_tqdm_hook"):
        before = transformers_logging.tqdm
        blender_hf.Blender.from_pretrained(checkpoints / "ranker", None, device="cpu")
        assert transformers_logging.tqdm is before
        return
    seen = []

    def hook(factory, args, kwargs):
        seen.append(kwargs["desc"])
        return factory(*args, **kwargs)

    transformers_logging.set_tqdm_hook(hook)
    try:
        blender_hf.Blender.from_pretrained(checkpoints / "ranker", None, device="cpu")
    finally:
        assert transformers_logging.set_tqdm_hook(None) is hook
    assert "Loading weights" in seen


def test_one_setting_quietens_everything(
    talkative: None, blender: blender_hf.Blender, capfd: pytest.CaptureFixture[str]
) -> None:
    blender.rank(["2 + 2?"], [["4", "5"]], progress=True)
    assert "1/1 [" in capfd.readouterr().err
    blender_hf.quiet()
    blender.rank(["2 + 2?"], [["4", "5"]], progress=True)
    logging.getLogger("blender_hf.engine").warning("said")
    assert capfd.readouterr().err == ""
    assert transformers_logging.get_verbosity() == logging.ERROR
    assert hub.are_progress_bars_disabled("blender_hf.any")
