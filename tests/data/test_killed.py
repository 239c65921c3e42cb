"""Every resumable job on a real file, killed by SIGKILL again and again: in the end, no byte differs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from blender_hf.data.sources import read_values
from tests.conftest import EXAMPLES, build_ranker
from tests.generation.tiny_models import save_chat_model
from tests.labelling.conftest import written

# With the number of lines in the result.
Command = Callable[[Path, Path], tuple[list[str], int]]


def values(n: int) -> list[dict[str, Any]]:
    return [{**value, "candidates": value["candidates"][:2]} for value in islice(read_values(EXAMPLES), n)]


def label(work: Path, checkpoints: Path) -> tuple[list[str], int]:
    found = values(24)
    data = written(work / "in.jsonl", [*found[:15], "not JSON", *found[15:]])
    command = ["label", str(data), "--ranker", str(checkpoints / "ranker"), "--device", "cpu", "--quiet", "--skip-bad"]
    return [*command, "--format", "rewards", "--part-size", "2"], 24 * 2


def generate(work: Path, checkpoints: Path) -> tuple[list[str], int]:
    """A model that samples: its answers depend on what is in its batch."""
    prompts = [{"id": n, "prompt": f"{'What ' * (n % 5)}{n} + {n}?"} for n in range(40)]
    data, model = written(work / "in.jsonl", prompts), save_chat_model(work / "model")
    options = ["--temperature", "2", "--seed", "3", "--max-new-tokens", "6", "--batch-size", "3", "--dtype", "float32"]
    return ["generate", str(data), "--llm", f"tiny={model}", "--device", "cpu", "--quiet", *options], 40


def annotate(work: Path, checkpoints: Path) -> tuple[list[str], int]:
    pairs = [{"id": n, "prompt": f"{n}?", "candidates": ["yes", "no"]} for n in range(18)]
    data, model = written(work / "in.jsonl", pairs), save_chat_model(work / "model", context=2048)
    options = ["--max-new-tokens", "4", "--dtype", "float32", "--device", "cpu", "--quiet"]
    return ["annotate", str(data), "--judge", str(model), *options], 18


def teach(work: Path, checkpoints: Path) -> tuple[list[str], int]:
    records = [
        {"prompt": value["prompt"], "candidates": ["A.", "No idea."], "pairs": [{"a": 0, "b": 1, "label": 1}]}
        for value in values(20)
    ]
    for part in build_ranker(seed=5):
        part.save_pretrained(work / "other")
    data = written(work / "in.jsonl", records)
    return ["teach", str(data), str(checkpoints / "ranker"), str(work / "other")], 2 * 10


JOBS: dict[str, tuple[Command, str, int]] = {
    "label": (label, ".parts.jsonl", 20),
    "generate": (generate, "", 12),
    "annotate": (annotate, "", 12),
    "teach": (teach, "", 12),
}


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", JOBS)
def test_killed_at_random_moments(name: str, checkpoints: Path, tmp_path: Path) -> None:
    """No line is lost, none is there twice, no byte differs."""
    make, log_suffix, n_kills = JOBS[name]
    work = tmp_path / "work"
    work.mkdir()
    command, n_lines = make(work, checkpoints)
    script = [sys.executable, "-m", "tests.data.killing", str(n_kills), str(work), ".jsonl", log_suffix, *command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == n_kills
    # Some were killed in the middle of the work, at different places.
    assert len(set(found["lines"])) > 3, found
    whole = {path.name.removeprefix("whole"): path.read_bytes() for path in work.glob("whole*")}
    assert len(whole[".jsonl"].splitlines()) == n_lines
    if name == "label":
        assert whole[".jsonl.bad.jsonl"].count(b"\n") == 1
    for output in found["outputs"]:
        stem = output.removesuffix(".jsonl")
        made = {path.name.removeprefix(stem): path.read_bytes() for path in work.glob(f"{stem}.*")}
        assert set(made) == set(whole)
        for suffix in set(whole) - {".jsonl.label.json"}:  # it has the name of the output
            assert made[suffix] == whole[suffix], (output, suffix)
    assert not list(work.glob("*.parts*"))
    assert not [path for path in work.iterdir() if path.suffix in (".tmp", ".lock")]
