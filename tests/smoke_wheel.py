"""Checks an installed wheel from outside the repository; `.ci/run` runs it in an environment that has nothing else.

Usage: python smoke_wheel.py SOURCES, where SOURCES lists the source files, one a line, relative to the repository.
"""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path, PurePosixPath

from transformers import pipeline

import blender_hf
import blender_hf.modeling

PACKAGE = Path(blender_hf.__file__).parent
# Known by name, so that an incomplete list of sources can't hide that one of them is missing.
ESSENTIAL = (
    "py.typed",
    "modeling/modeling_pair_ranker.py",
    "modeling/modeling_gen_fuser.py",
    "bundled/pair-ranker-mini/config.json",
    "bundled/pair-ranker-mini/model.safetensors",
    "bundled/pair-ranker-base/adapter_config.json",
    "bundled/pair-ranker-base/adapter_model.safetensors",
    "bundled/gen-fuser-mini/config.json",
    "bundled/gen-fuser-mini/model.safetensors",
    "bundled/smollm2-135m/LICENSE",
    "bundled/smollm2-135m/config.json",
    "bundled/smollm2-135m/model-00001-of-00002.safetensors",
    "bundled/smollm2-135m/model-00002-of-00002.safetensors",
    "examples/smoke.jsonl",
    "model_cards/pair-ranker-mini.md",
)
N_LINES = 3


def installed_path(source: str) -> str:
    """Return where a source file lies in the package: `modeling/` and `export/` become sub-packages."""
    path = PurePosixPath(source)
    if path.parent == PurePosixPath("export/optimum_cli"):
        return f"../optimum/commands/register/{path.name}"
    return str(path.relative_to("blender_hf") if path.parts[0] == "blender_hf" else path)


def check_files(sources: list[str]) -> None:
    assert PACKAGE.is_relative_to(sys.prefix), f"blender_hf was imported from {PACKAGE}, not from the wheel"
    expected = {*ESSENTIAL, *map(installed_path, sources)}
    missing = sorted(name for name in expected if not (PACKAGE / name).is_file())
    assert not missing, f"not in the wheel, see [tool.setuptools] in pyproject.toml: {', '.join(missing)}"


def check_modules() -> None:
    """Import every module without any extra; one that needs an extra may only fail with the command to install it."""
    for module in pkgutil.walk_packages(blender_hf.__path__, "blender_hf."):
        try:
            import_module(module.name)
        except blender_hf.BlenderError as error:
            if "pip install 'blender-hf[" not in str(error):
                raise


def check_pipeline() -> None:
    candidates = ["Paris is the capital of France.", "I like trains.", "Bananas."]
    result = pipeline("llm-blending")({"prompt": "What is the capital of France?", "candidates": candidates})
    assert result["output"], f"the pipeline gave no answer: {result}"
    assert sorted(result["ranking"]["order"]) == [0, 1, 2], f"not a ranking of three candidates: {result['ranking']}"


def check_command() -> None:
    command = [Path(sys.executable).with_name("blender-hf"), "rank", PACKAGE / "examples" / "smoke.jsonl"]
    done = subprocess.run([*command, "--limit", str(N_LINES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"blender-hf rank ended with {done.returncode}: {done.stderr}"
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == N_LINES, f"blender-hf rank printed {len(results)} lines, not {N_LINES}"


if __name__ == "__main__":
    check_files(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    check_modules()
    check_pipeline()
    check_command()
    sys.stdout.write("the wheel is whole and works\n")
