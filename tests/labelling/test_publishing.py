"""Data from a Hub, labelled, and published there again, over real HTTP and in a process of its own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.hub_server import TOKEN, running_hub

from .conftest import N_RECORDS, written

RUN = """
import contextlib, io, json, sys
from blender_hf.cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue()])
import datasets
loaded = datasets.load_dataset("org/preferences", split="train", streaming=True)
print(json.dumps([results, [row["id"] for row in loaded]]))
"""


@pytest.mark.slow
def test_from_a_hub_to_a_hub(values: list[dict[str, Any]], checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    written(tmp_path / "answers" / "train.jsonl", values)
    command = ["label", "org/answers", "--ranker", str(checkpoints / "ranker"), "--format", "rankings", "--quiet"]
    with running_hub() as hub:
        hub.add("org/answers", tmp_path / "answers")
        shards = [
            ["--output", str(tmp_path / f"out{n}.parquet"), "--shard", f"{n}/2", "--push-to-hub", "org/preferences"]
            for n in (1, 2)
        ]
        commands = [[*command, *shard, "--json"] for shard in shards]
        refused = [*command, "--output", str(tmp_path / "x.jsonl"), "--push-to-hub", "org/preferences", "--token", "no"]
        found, ids = run([*commands, refused], hub.url, tmp_path)
        files = hub.files("org/preferences")
        (commit,) = hub.repositories["org/answers"].commits
    for number, (code, out, err) in enumerate(found[:2], 1):
        assert code == 0, err
        summary = json.loads(out)
        assert summary["url"].startswith(f"{hub.url}/org/preferences/commit/")
        assert files[f"data/train-{number - 1:05d}-of-00002.parquet"] == Path(summary["output"]).read_bytes()
        about = json.loads(Path(f"{summary['output']}.label.json").read_text())
        assert about["settings"]["input revision"] == commit, "the commit is kept, as a branch may move"
    assert sorted(ids) == sorted(value["id"] for value in values)
    rows = pq.read_table(io.BytesIO(files["data/train-00000-of-00002.parquet"])).to_pylist()
    assert [row["id"] for row in rows] == [value["id"] for value in values[::2]]
    assert len(rows) == (N_RECORDS + 1) // 2
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["blender-hf", "preference", "rankings"]
    assert "| ranker | ranker |" in card
    assert str(tmp_path) not in card
    code, _, err = found[2]
    assert code == 2
    assert "can't publish org/preferences" in err
    assert "log in with `hf auth login`" in err


def run(commands: list[list[str]], url: str, folder: Path) -> Any:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        capture_output=True,
        text=True,
        env=kept | own,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
