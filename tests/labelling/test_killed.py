import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from blender_hf.data.sources import read_values
from tests.conftest import EXAMPLES

from .conftest import written

N_KILLS = 20


@pytest.mark.slow
@pytest.mark.once
def test_killed_at_random_moments(checkpoints: Path, tmp_path: Path) -> None:
    """Twenty times SIGKILL to a real process on a real file: no row is lost, none is there twice, no byte differs."""
    work = tmp_path / "work"
    work.mkdir()
    values = [{**value, "candidates": value["candidates"][:2]} for value in islice(read_values(EXAMPLES), 24)]
    data = written(work / "in.jsonl", [*values[:15], "not JSON", *values[15:]])
    command = ["label", str(data), "--ranker", str(checkpoints / "ranker"), "--device", "cpu", "--quiet", "--skip-bad"]
    command += ["--format", "rewards", "--part-size", "2"]
    script = [sys.executable, "-m", "tests.labelling.killing", str(N_KILLS), str(work), ".jsonl", "7", *command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["kills"]) == N_KILLS
    # Some were killed in the middle of the work, at different places.
    assert len(set(found["parts"])) > 3, found
    whole = (work / "whole.jsonl").read_bytes()
    assert len(whole.splitlines()) == 24 * 2
    bad = (work / "whole.jsonl.bad.jsonl").read_bytes()
    assert bad.count(b"\n") == 1
    for name in found["outputs"]:
        assert (work / name).read_bytes() == whole
        assert (work / f"{name}.bad.jsonl").read_bytes() == bad
    assert not list(work.glob("*.parts*"))
    assert not list(work.glob("*.tmp"))
