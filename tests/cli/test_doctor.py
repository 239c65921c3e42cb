"""`blender-hf doctor`: what is installed, and what is wrong with it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from blender_hf.cli.doctor import EXTRAS, problem_with, requirements
from blender_hf.cli.main import main

ROOT = Path(__file__).parent.parent.parent
# They bring other extras, or what only developers need.
BUNDLES = {"all", "test", "lint", "dev"}
BROKEN = {
    "torch": "raise OSError('libcudart.so.12: cannot open shared object file')",
    "transformers": "import os; os._exit(77)",
}


@pytest.mark.once
def test_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^blender-hf \S+ in .*: works$", out, re.MULTILINE)
    assert re.search(r"^  torch +\d\S+ +works$", out, re.MULTILINE)
    assert re.search(r"^  evaluate +installed +for `blender-hf evaluate`", out, re.MULTILINE)
    assert re.search(r"^  pair-ranker-mini +\d+\.\d MiB  PairRanker$", out, re.MULTILINE)
    assert re.search(r"^  cpu +threads: \d+$", out, re.MULTILINE)
    assert re.search(r"^  flashdeberta +missing ", out, re.MULTILINE)
    assert "pip install 'blender-hf[flashdeberta]'  (flashdeberta>=0.0.8)" in out


@pytest.mark.once
def test_it_works_where_libraries_are_broken(tmp_path: Path) -> None:
    for name, code in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "blender_hf", "doctor", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("blender-hf: error: torch: OSError: libcudart.so.12: cannot open shared object file")
    assert "pip install --force-reinstall 'torch>=2.4'" in done.stderr
    found = json.loads(done.stdout)
    assert found["libraries"]["numpy"]["problem"] is None
    assert found["libraries"]["transformers"]["problem"] == "the import ended the process with 77"
    assert found["problem"].startswith("not tried")
    assert (found["devices"], found["cache"]) == ({}, None)
    assert found["bundled"]["gen-fuser-mini"]["bytes"] > 1e6


@pytest.mark.once
def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) | BUNDLES == set(project["optional-dependencies"])
    table = (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8").split("| extra | for |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(EXTRAS)


@pytest.mark.once
def test_an_extra_has_what_the_extras_in_it_need() -> None:
    needed = {one.name: one for one in requirements("lora")}
    assert {"peft", "accelerate", "protobuf"} <= needed.keys()
    assert not needed.keys() & {one.name for one in requirements()}
    assert problem_with(needed["peft"]) is None
    needed["peft"].specifier &= ">99"
    assert problem_with(needed["peft"]).endswith("is another version")
