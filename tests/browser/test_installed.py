"""The page as a Space runs it: its own folder, and the package from a wheel elsewhere."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from blender_hf.data.examples import MODEL_ANSWERS

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("blender_hf", "modeling", "export", "model_cards", "pyproject.toml", "README.md", "LICENSE")
SECONDS_TO_START = 120


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package from its wheel, which is built of a copy, so that no earlier build can leak in."""
    work = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, work / "sources" / name)
    stored = "--config-setting=--build-option=--compression=stored"  # weights are no smaller when compressed
    build = ["build", "--wheel", "--no-isolation", stored, "--outdir", work, work / "sources"]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    [wheel] = work.glob("*.whl")
    target = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", work / "installed"]
    subprocess.run([sys.executable, "-m", "pip", "install", *target, wheel], check=True, capture_output=True)
    return work / "installed"


@pytest.fixture
def space_url(installed: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the page of a Space, which runs in its folder."""
    subprocess.run([sys.executable, ROOT / "space" / "build.py", tmp_path / "space"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What is on the path comes before the package that is installed for development.
    environment = {**os.environ, "PYTHONPATH": str(installed), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path / "space", env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, process, tmp_path / "log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"the page did not start: {log.read_text()}")


def test_all_files_of_the_page_work_where_the_package_is_installed(visit, space_url: str, tmp_path: Path) -> None:
    page = visit(url=space_url)
    page.get_by_role("tab", name="Batch").click()
    page.locator("#sample").click()
    link = page.locator("#upload a[download]")
    expect(link).to_be_visible()
    expect(page.locator("#batch-status")).to_contain_text("36 prompts, 216 answers by 6 models")
    with page.expect_download() as download:
        link.click()
    assert Path(download.value.path()).read_bytes() == MODEL_ANSWERS.read_bytes()

    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"prompt": "2 + 2?", "candidates": ["4", "Bananas."]}) + "\n")
    page.locator("#upload").get_by_label("Clear").click()
    page.locator("#upload input[type=file]").set_input_files(mine)
    expect(page.locator("#batch-status")).to_contain_text("mine.jsonl")
    page.locator("#run-batch").click()
    for name in ("ranked", "preferences"):
        with page.expect_download() as download:
            page.locator(f"#downloads a[download*={name}]").click()
        assert json.loads(Path(download.value.path()).read_text())["prompt"] == "2 + 2?"
