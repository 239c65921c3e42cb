"""What needs an extra says so before any work, with the command that installs it."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# As `pip install blender-hf` leaves it: what only extras bring can't be found.
WITHOUT = """
import json, sys
from importlib.machinery import PathFinder

EXTRAS = sys.argv[1].split()

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in EXTRAS else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from blender_hf.cli.main import main
from blender_hf.errors import BlenderError

for arguments in json.loads(sys.argv[2]):
    print("$", flush=True, file=sys.stderr)
    if arguments == ["app.py"]:
        try:
            import app
        except BlenderError as error:
            print(error, file=sys.stderr)
    else:
        assert main(arguments) == 2, arguments
"""
MODULES = (
    "accelerate aiohttp bert_score datasets gradio matplotlib onnx onnxruntime onnxscript optimum peft pyarrow ray "
    "rouge_score sacrebleu scipy sentence_transformers sklearn trl"
)
# Modules of another name than their distribution.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "optimum": "optimum-onnx"}
ANSWER = '{"prompt": "2 + 2?", "candidates": ["4", "5"], "reference": "4", "ratings": [1, 0]}\n'
# What shows that a folder is a reranker of several modules.
RERANKER = {
    "config.json": {"model_type": "qwen3"},
    "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
    "modules.json": [{"idx": 0}, {"idx": 1}],
}
CASES: dict[str, list[str]] = {
    "the page": ["app.py"],
    "Parquet in": ["rank", "in.parquet"],
    "Parquet out": ["label", "in.jsonl", "--output", "out.parquet"],
    "a dataset": ["label", "org/data", "--output", "out.jsonl"],
    "Ray": ["label", "in.jsonl", "--output", "out.jsonl", "--engine", "ray"],
    "evaluation": ["evaluate", "in.jsonl", "--ranker", "length"],
    "training a ranker": ["train", "ranker", "--config", "in.yaml"],
    "training a fuser": ["train", "fuser", "--config", "in.yaml"],
    "training a reward model": ["train", "reward-model", "--config", "in.yaml"],
    "a reranker": ["rank", "in.jsonl", "--ranker", "reranker"],
    "a large reward model": ["rank", "in.jsonl", "--device-map", "auto"],
    "an export": ["export", "onnx", "pair-ranker-mini", "out"],
    "an export of a fuser": ["export", "onnx", "gen-fuser-mini", "out"],
}


def distributions(extra: str) -> set[str]:
    """Return the distributions that an extra brings, with those of the extras in it."""
    found = set()
    for line in requires("blender-hf") or ():
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == "blender-hf":
            found |= {name for inner in requirement.extras for name in distributions(inner)}
        else:
            found.add(canonicalize_name(requirement.name))
    return found


@pytest.mark.slow
def test_each_message_names_an_extra_that_brings_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ANSWER, encoding="utf-8")
    (tmp_path / "in.parquet").write_bytes(b"PAR1....PAR1")
    (tmp_path / "in.yaml").write_text("output_dir: run\ntrain: [in.jsonl]\n", encoding="utf-8")
    (tmp_path / "reranker").mkdir()
    for name, content in RERANKER.items():
        (tmp_path / "reranker" / name).write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT, MODULES, json.dumps(list(CASES.values()))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # where app.py is
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    messages = dict(zip(CASES, done.stderr.split("$\n")[1:], strict=True))
    for name, message in messages.items():
        needed = re.search(r"(?:needs|lacks) ([\w., -]+?)(?:, which [\w .]+)?: pip install ", message)
        extra = re.search(r"pip install (?:-U )?'blender-hf\[([\w,-]+)\]'", message)
        assert needed, f"{name}: {message}"
        assert extra, f"{name}: {message}"
        assert "Traceback" not in message
        brought = {brings for one in extra[1].split(",") for brings in distributions(one)}
        for module in needed[1].split(", "):
            known = canonicalize_name(DISTRIBUTIONS.get(module, module))
            assert known in brought or module.startswith("transformers"), f"{name}: {message}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.parquet", "in.yaml", "reranker"]
