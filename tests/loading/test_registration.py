"""What transformers knows of ours, whichever of the two is imported first."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
AUTO = """
from transformers import AutoConfig, AutoModel, AutoProcessor
for auto in (AutoModel, AutoConfig, AutoProcessor):
    assert type(auto.from_pretrained(sys.argv[1])).__module__.startswith("blender_hf."), auto
"""
TASK = """
from transformers import pipeline
result = pipeline("llm-blending", fuser=None, device="cpu")({"prompt": "2 + 2?", "candidates": ["4", "Bananas."]})
assert sorted(result["ranking"]["order"]) == [0, 1]
"""
KNOWN = """
from transformers.pipelines import PIPELINE_REGISTRY
assert "llm-blending" in PIPELINE_REGISTRY.supported_tasks
"""
# What transformers has imported for its pipelines anyway, and two small ones, is all that ours need.
LIGHT = """
before = {name.partition(".")[0] for name in sys.modules}
import blender_hf
beyond = {name.partition(".")[0] for name in sys.modules} - before
assert beyond <= {"blender_hf", "psutil", "resource"}, beyond
"""
DONE = "assert not any(type(finder).__name__ == '_Watcher' for finder in sys.meta_path)"
PROGRAMS = {
    "ours first": ["import blender_hf", AUTO, TASK, DONE],
    "ours last": ["from transformers import AutoModel, pipeline", LIGHT, AUTO, KNOWN, DONE],
    "ours between": ["from transformers import AutoModel", "import blender_hf", KNOWN, AUTO, DONE],
    # It imports what triggers the registration, which would import it, half done.
    "the pipeline's code first": ["import blender_hf.modeling.pipeline_llm_blending", KNOWN, AUTO, DONE],
}
# Each order starts from a fork of a process in which torch is imported, and transformers is not.
FORKS = """
import os, sys, torch, traceback
# A script of this name was taken for the command line, and had no task.
sys.argv[0] = "blender-hf.py"
failed = []
for name, parts in {programs!r}.items():
    child = os.fork()
    if not child:
        try:
            exec("import sys\\n" + "\\n".join(parts), {{}})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(", ".join(failed) or 0)
"""


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_task_and_the_auto_classes_are_known_in_any_order(checkpoints: Path) -> None:
    run(FORKS.format(programs=PROGRAMS), checkpoints / "ranker")


@pytest.mark.once
def test_the_package_itself_imports_no_library() -> None:
    run("import sys, blender_hf\nassert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()")
