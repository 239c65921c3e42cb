"""The Space's repository must fit the library and run without a copy of it."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    subprocess.run([sys.executable, ROOT / "space" / "build.py", folder], check=True)
    return folder


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_it_holds_no_copy_of_the_library(space: Path) -> None:
    assert sorted(path.name for path in space.iterdir()) == ["README.md", "app.py", "requirements.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "space"
    file.write_text("mine")
    done = subprocess.run(
        [sys.executable, ROOT / "space" / "build.py", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{file} is a file; name a folder" in done.stderr
    assert file.read_text() == "mine"


def test_the_front_matter_is_that_of_a_gradio_space(space: Path) -> None:
    matter = metadata_load(space / "README.md")
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == version("gradio")
    assert (space / matter["app_file"]).is_file()
    assert SpecifierSet(project()["requires-python"]).contains(matter["python_version"])
    assert "sentence-transformers/all-MiniLM-L6-v2" in matter["models"]
    assert len(matter["short_description"]) <= 60


def test_the_requirements_name_this_version_and_an_extra_that_exists(space: Path) -> None:
    lines = [Requirement(line) for line in (space / "requirements.txt").read_text().splitlines()]
    library = next(line for line in lines if line.name == "blender-hf")
    assert library.specifier.contains(project()["version"])
    assert library.extras <= set(project()["optional-dependencies"])
    assert any(line.name == "torch" for line in lines)


def test_the_app_can_be_imported_from_there(space: Path) -> None:
    code = "import app; print(len(app.build_app().fns) > 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=space, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_library_does_not_import_gradio() -> None:
    code = "import sys, blender_hf, blender_hf.space.service, blender_hf.space.markup; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
