"""What the documents say must be so: their code runs, their figures were written by a script."""

import doctest
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from blender_hf.cli.main import _parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = [path for path in DOCUMENTS if "<!-- figures:" in path.read_text(encoding="utf-8")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_EXAMPLES = (
    "blender_hf.calibration",
    "blender_hf.aggregation",
    "blender_hf.evaluation.pairwise",
    "blender_hf.evaluation.rankings",
    "blender_hf.scorer",
    "blender_hf.space.answers",
    "blender_hf.space.leaderboard",
    "blender_hf.space.passages",
    "blender_hf.space.prompts",
    "blender_hf.modeling.processing_gen_fuser",
)


def blocks(kind: str) -> list[tuple[str, str]]:
    return [
        (path.name, text)
        for path in DOCUMENTS
        for language, text in BLOCK.findall(path.read_text(encoding="utf-8"))
        if language == kind
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), blocks("python"))
def test_python_examples_run(name: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, name, "exec"), {})
    if "print(" in code:
        assert capsys.readouterr().out.strip()


def test_commands_in_the_documents_exist() -> None:
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    commands = [line.split("blender-hf ", 1)[1].split(">")[0] for line in lines if "blender-hf " in line]
    assert len(commands) >= 3
    for command in commands:
        assert _parser().parse_args(shlex.split(command)).command
    modules = re.findall(r"python -m (blender_hf\.\S+)", "\n".join(lines))
    scripts = re.findall(r"python (benchmarks/\S+)", "\n".join(lines))
    assert all(hasattr(import_module(module), "main") for module in modules)
    assert all((ROOT / script).is_file() for script in scripts)
    assert modules
    assert scripts


def test_every_card_is_measured() -> None:
    assert {path.name for path in (ROOT / "model_cards").glob("*.md")} <= {path.name for path in MEASURED}


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_figures_were_written_by_their_script(path: Path) -> None:
    figures = re.findall(
        r"<!-- figures: written by (\S+) -->\n(.*?)<!-- end of figures -->", path.read_text(), re.DOTALL
    )
    assert figures
    for script, text in figures:
        assert (ROOT / script).is_file()
        assert len(re.findall(r"^\|.*\d", text, re.MULTILINE)) >= 2, f"run {script} with --card"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted
    assert not results.failed


def test_no_module_with_examples_is_forgotten() -> None:
    folders = {"blender_hf": "blender_hf", "modeling": "blender_hf.modeling", "export": "blender_hf.export"}
    found = {
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts])
        for folder, package in folders.items()
        for path in (ROOT / folder).rglob("*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    }
    assert found == set(WITH_EXAMPLES)
