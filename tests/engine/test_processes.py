"""Forks of a process that has used a model, as `Dataset.map(num_proc=2)` starts them, and copies for others."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from blender_hf import Blender, BlenderError, RemoteLLM
from blender_hf.engine import concurrency
from blender_hf.engine.concurrency import lock_to_run
from blender_hf.generation.chat_fuser import load_chat_fuser
from tests.conftest import SMALL, encoder_tokenizer

ROOT = Path(__file__).parents[2]
# Used here, then in forks; what a fork gives must be the same.
IN_FORKS = """
import multiprocessing, sys
import torch
from blender_hf import Blender, LocalLLM, generate
from blender_hf.generation.candidates import CandidateWriter
from blender_hf.generation.prompts import prompt_items

torch.set_num_threads(2)
mini = Blender.from_pretrained(device="cpu")
rewards = Blender.from_pretrained(sys.argv[1], None, device="cpu")
writer = CandidateWriter([LocalLLM(sys.argv[2], device="cpu")], {"max_new_tokens": 4, "temperature": 0})
texts = ["It is 4, I am sure of it.", "Bananas are yellow. I like them."] * 8
actions = {
    "rank": lambda: mini.rank("2 + 2?", texts).order,
    "fuse": lambda: mini.fuse("2 + 2?", texts[:2]).text,
    "reward model": lambda: rewards.rank("2 + 2?", texts).order,
    "local model": lambda: [found.candidates[0].text for found in writer.iter(prompt_items(["Hi"], None)[0])],
}
here = {name: action() for name, action in actions.items()}
torch.nn.LayerNorm(512)(torch.randn(256, 512))  # surely in parallel


def check(name):
    assert actions[name]() == here[name], name


processes = {name: multiprocessing.get_context("fork").Process(target=check, args=(name,)) for name in actions}
for process in processes.values():
    process.start()
for name, process in processes.items():
    process.join(60)
    if process.exitcode != 0:
        print(name, process.exitcode, file=sys.stderr)
        process.kill()
sys.exit(any(process.exitcode for process in processes.values()) or None in [p.exitcode for p in processes.values()])
"""
OF_DATASETS = """
from datasets import Dataset, disable_progress_bars
from torch.utils.data import DataLoader
from blender_hf import Blender

disable_progress_bars()
data = Dataset.from_dict({"prompt": ["2 + 2?", "3 + 3?"], "candidates": [["4", "x"], ["6", "y"]]})
blender = Blender.from_pretrained(fuser=None, device="cpu")


def order(rows):
    return {"order": [list(ranking.order) for ranking in blender.rank(rows["prompt"], rows["candidates"])]}


here = order(data)["order"]
assert data.map(order, batched=True, num_proc=2)["order"][:] == here
together = lambda rows: order({key: [row[key] for row in rows] for key in rows[0]})
loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=together)
assert [found for batch in loader for found in batch["order"]] == here
"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")


def run(code: str, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("rewards"), encoder_tokenizer()
    config = BertConfig(**SMALL, vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_fork_of_a_process_that_has_computed_computes(reward_model: Path, chat_model: Path) -> None:
    """It waited forever for torch's threads, which only its parent has."""
    run(IN_FORKS, str(reward_model), str(chat_model))


@pytest.mark.slow
@pytest.mark.once
def test_a_data_set_is_mapped_by_several_processes() -> None:
    run(OF_DATASETS)


@pytest.mark.once
def test_a_device_that_forks_can_not_share_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1, 1, device="meta")
    model.device = torch.device("meta")
    monkeypatch.setattr(concurrency, "_ran_in", os.getpid() + 1)
    with pytest.raises(BlenderError, match=r"a fork of one that has used meta.*get_context\('spawn'\)"):
        lock_to_run(model)


def test_a_blender_can_be_pickled(blender: Blender) -> None:
    ranking = blender.rank("2 + 2?", ["4", "5"])
    copy = pickle.loads(pickle.dumps(blender))
    assert copy.rank("2 + 2?", ["4", "5"]) == ranking
    fuser = load_chat_fuser(RemoteLLM("m", "http://localhost:9/v1"), None)
    assert pickle.loads(pickle.dumps(fuser)).model.name == "m"
