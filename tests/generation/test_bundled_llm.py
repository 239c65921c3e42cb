"""The language model that comes with the package: it answers, ends, resumes, and goes through the pipeline."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import LocalLLM
from blender_hf.cli.main import main
from blender_hf.generation.local import LocalModel
from blender_hf.generation.sampling import Sampling
from blender_hf.loading.checkpoints import BUNDLED_LLM
from blender_hf.space.models import Models
from blender_hf.space.service import Service

CAPITAL = "What is the capital of France?"
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
SHORT = ["--max-new-tokens", "4", "--temperature", "0", "--quiet"]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel(LocalLLM(BUNDLED_LLM, device="cpu"))


def ask(model: LocalModel, *texts: str, **sampling: Any) -> list[tuple[Any, ...]]:
    options = {"temperature": 0, **sampling}
    return model.start([[{"role": "user", "content": text}] for text in texts], Sampling(**options)).result()


def test_its_chat_template_is_that_of_the_original(model: LocalModel) -> None:
    ids, text = model._encode([{"role": "user", "content": "Hi<|im_end|>"}])
    assert text.startswith(f"{SYSTEM}<|im_start|>user\nHi")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert ids.count(2) == 2  # the text of the user ends no turn
    assert model.name == BUNDLED_LLM
    assert model.context_length == 8192


def test_it_answers_and_ends(model: LocalModel) -> None:
    (whole,), (cut,) = ask(model, CAPITAL, "Tell me a long story.", max_new_tokens=16)
    assert whole.text == "The capital of France is Paris."
    assert not whole.truncated
    assert cut.truncated


def test_the_pipeline_goes_from_a_prompt_to_an_answer() -> None:
    blend = pipeline("llm-blending", llms=[BUNDLED_LLM], sampling={"n": 2, "max_new_tokens": 12, "seed": 0})
    result = blend(CAPITAL)
    assert result["ranking"]["models"] == [BUNDLED_LLM] * 2
    assert result["output"]


@pytest.mark.once
def test_the_page_lets_it_answer() -> None:
    candidates = Service(Models()).small_answers(CAPITAL, max_tokens=8, n=2)
    assert [candidate.model for candidate in candidates] == [f"{BUNDLED_LLM} (1)", f"{BUNDLED_LLM} (2)"]
    assert all(candidate.text for candidate in candidates)


@pytest.mark.once
@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_records(tmp_path: Path) -> None:
    file, whole, resumed = (tmp_path / f"{name}.jsonl" for name in ("in", "whole", "resumed"))
    # Two windows: the run is killed after the first.
    prompts = [{"id": f"{n}", "prompt": f"What is {n} + {n}?"} for n in range(17)]
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    arguments = ["generate", str(file), "--llm", BUNDLED_LLM, *SHORT, "--output"]
    assert main([*arguments, str(whole)]) == 0
    with subprocess.Popen(
        [sys.executable, "-m", "blender_hf", *arguments, str(resumed)],
    ) as run:
        while not (resumed.exists() and resumed.read_bytes().count(b"\n")):
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert main([*arguments, str(resumed)]) == 0
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.once
@pytest.mark.slow
def test_the_demo_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--limit", "1", "--n", "2", "--max-new-tokens", "6", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert f"{BUNDLED_LLM}: 2 answers to each of 1 prompt," in err
    ranked, _, beside = out.partition("Beside the answers of large models:")
    assert ranked.count(f"{BUNDLED_LLM} (") >= 2
    assert "Returned: " in ranked
    assert len(beside.strip().splitlines()) == 1 + 1 + 6
