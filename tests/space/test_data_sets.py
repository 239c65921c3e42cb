"""A data set on the Hub as a batch, from a real server, in a process that knows no other Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blender_hf import InputError
from blender_hf.space.batches import read_data_set
from tests.hub_server import TOKEN, running_hub

pytestmark = pytest.mark.once

READ = """
import json, sys
from blender_hf.errors import InputError
from blender_hf.space.batches import read_data_set
from blender_hf.space.settings import Limits
found = [r.item.prompt for r in read_data_set(" org/answers ", "", Limits(prompts=2))]
try:
    read_data_set("org/answers", "nowhere")
except InputError as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_first_prompts_of_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    rows = [
        {"prompt": f"{n} + {n}?", "candidates": [{"text": str(2 * n), "model": "m"}, {"text": "a hen", "model": "h"}]}
        for n in range(4)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "answers" / "train.jsonl").write_text(lines, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    with running_hub() as hub:
        hub.add("org/answers", tmp_path / "answers")
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        command = [sys.executable, "-c", READ]
        done = subprocess.run(command, capture_output=True, text=True, env=kept | own, check=False)
    assert done.returncode == 0, done.stderr
    *prompts, refused = json.loads(done.stdout.splitlines()[-1])
    assert prompts == ["0 + 0?", "1 + 1?"]
    assert "has the splits train, not 'nowhere'" in refused


@pytest.mark.parametrize(
    "name", ["", "answers", "../secrets", "/etc/passwd", "org/name/more", "https://host/x", "tests/space"]
)
def test_only_ids_of_the_hub_are_opened(name: str) -> None:
    with pytest.raises(InputError, match="is no id of a data set"):
        read_data_set(name)
