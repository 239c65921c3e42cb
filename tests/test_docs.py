"""What the documents say must be so: code runs; commands, names and links exist; figures were written by a script."""

import doctest
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from pkgutil import resolve_name

import pytest

from blender_hf.cli.main import parser

ROOT = Path(__file__).parent.parent
INDEX = ROOT / "docs" / "README.md"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = [path for path in DOCUMENTS if "<!-- figures:" in path.read_text(encoding="utf-8")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+://)([^)\s#]*)(?:#([^)\s]+))?\)")
COMMAND = re.compile(r"^(?:\$|.*\|) blender-hf (.+)")
# What ends a command of a shell.
ENDS = ("|", ">", "#", "&&")
# Paths and names that stand in the text as code.
FOLDERS = "benchmarks|blender_hf|configs|docs|export|model_cards|modeling|space|tests"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
NAME = re.compile(r"`(blender_hf(?:\.\w+)+)`")
WITH_EXAMPLES = (
    "blender_hf.modeling.conversations",
    "benchmarks.inputs",
    "benchmarks.peer.products",
    "benchmarks.studies.similarity",
    "benchmarks.tables",
    "blender_hf.engine.aggregation",
    "blender_hf.evaluation.calibration",
    "blender_hf.evaluation.pairwise",
    "blender_hf.evaluation.rankings",
    "blender_hf.cli.parser",
    "blender_hf.engine.scorer",
    "blender_hf.generation.specs",
    "blender_hf.logs",
    "blender_hf.judging.cost",
    "blender_hf.engine.streaming",
    "blender_hf.space.answers",
    "blender_hf.space.leaderboard",
    "blender_hf.space.about",
    "blender_hf.space.fused",
    "blender_hf.space.prompts",
    "blender_hf.export.cards",
    "blender_hf.data.columns",
    "blender_hf.data.labelled",
    "blender_hf.data.preferences",
    "blender_hf.training.fuser_trainer",
    "blender_hf.training.prompt_data",
    "blender_hf.training.ranker_trainer",
    "blender_hf.training.settings",
    "blender_hf.modeling.fusion_encoding",
    "blender_hf.modeling.ranking_math",
    "blender_hf.modeling.segmentation",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, kind: str) -> list[tuple[int, str]]:
    """Return the blocks of a kind in a document, each with the number of lines before it."""
    text = path.read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match[1] == kind]
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in found]


def console_lines() -> Iterator[tuple[str, str]]:
    """Yield the name of a document and a line of its console blocks, those that go on in the next put together."""
    for path in DOCUMENTS:
        for _, text in blocks(path, "console"):
            yield from ((name_of(path), line) for line in text.replace("\\\n", " ").splitlines())


COMMANDS = [(name, match[1]) for name, line in console_lines() if (match := COMMAND.match(line))]


# TRL's own settings have the old name of activation checkpointing.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning:transformers")
@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path, "python")], ids=name_of)
def test_python_of_a_document_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its blocks, one after the other as a reader would, offline and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it has read the variable already
    namespace: dict[str, object] = {}
    for n_lines_before, code in blocks(path, "python"):
        # With the lines in their places a traceback shows the line of the document.
        exec(compile("\n" * n_lines_before + code, str(path), "exec"), namespace)
        if "print(" in code:
            assert capsys.readouterr().out.strip(), f"nothing was printed by: {code}"


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_command_in_a_document_exists(name: str, command: str) -> None:
    words = list(takewhile(lambda word: word not in ENDS, shlex.split(command)))
    assert parser().parse_args(words).command == words[0]


def test_all_commands_are_in_the_readme() -> None:
    known = next(action.choices for action in parser()._actions if action.dest == "command")
    assert {command.split()[0] for name, command in COMMANDS if name == "README.md"} == set(known)


def test_programs_in_the_documents_exist() -> None:
    lines = "\n".join(line for _, line in console_lines())
    modules = re.findall(r"python -m ((?:blender_hf|benchmarks)\.\S+)", lines)
    targets = re.findall(r"^\$ make ([\w-]+)", lines, re.MULTILINE)
    assert all(hasattr(import_module(module), "main") for module in modules)
    assert all((ROOT / script).is_file() for script in re.findall(r"python (space/\S+)", lines))
    assert set(targets) <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert modules
    assert targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_names_and_paths_in_a_document_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [name for name in PATH.findall(text) if not (ROOT / name).exists()] == []
    for name in NAME.findall(text):
        resolve_name(name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_of_a_document_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        found = path.parent / target if target else path
        assert found.exists(), f"there is no {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(found.resolve())} has no section {anchor}"


def anchors(path: Path) -> set[str]:
    """Return what a link to a section of a document ends in, as GitHub makes it of the heading."""
    headings = HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_all_pages_are_in_the_index() -> None:
    linked = {target for target, _ in LINK.findall(INDEX.read_text(encoding="utf-8"))}
    assert {path.name for path in INDEX.parent.glob("*.md")} - {INDEX.name} <= linked


def test_all_packages_are_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = [path.parent.relative_to(ROOT) for path in ROOT.glob("blender_hf/*/__init__.py")]
    assert [package for package in packages if f"`{package.as_posix()}/`" not in text] == []


def test_every_card_is_measured() -> None:
    assert {path.name for path in (ROOT / "model_cards").glob("*.md")} <= {path.name for path in MEASURED}


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_figures_were_written_by_their_script(path: Path) -> None:
    """That they are those of its results, tests/benchmarks/test_tables.py checks."""
    figures = re.findall(r"<!-- figures: written by (\S+).*? -->\n(.*?)<!-- end of", path.read_text(), re.DOTALL)
    assert figures
    for script, text in figures:
        assert (ROOT / script).is_file()
        assert len(re.findall(r"^\|.*\d", text, re.MULTILINE)) >= 2, f"run {script} with --save"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted
    assert not results.failed


def test_no_module_with_examples_is_forgotten() -> None:
    folders = {
        "benchmarks": "benchmarks",
        "blender_hf": "blender_hf",
        "modeling": "blender_hf.modeling",
        "export": "blender_hf.export",
    }
    found = {
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts])
        for folder, package in folders.items()
        for path in (ROOT / folder).rglob("*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    }
    assert found == set(WITH_EXAMPLES)
