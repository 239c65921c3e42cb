"""Results as JSON, and the documents rendered from them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.tables import PLACE, ROOT, Result, Table, documents, publish, read_results, shown
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.once

DOCUMENT = "Before.\n<!-- figures: written by benchmarks/tables.py --quick -->\nold\n<!-- end of figures -->\nAfter.\n"
FACTS = {"command": "c", "revision": "r", "date": "d", "processor": None, "settings": {}, "source": "measured"}


def test_every_table_in_a_document_is_what_its_result_gives() -> None:
    results = read_results()
    places = {place[2]: place[3] for path in documents() for place in PLACE.finditer(path.read_text(encoding="utf-8"))}
    assert places
    assert results.keys() == places.keys(), "every place has a result, and every result a place"
    for mark, text in places.items():
        assert (ROOT / mark.split()[0]).is_file()
        assert results[mark].markdown() == text, "run python -m benchmarks.tables"


def test_every_result_says_what_was_run_and_on_what() -> None:
    for mark, result in read_results().items():
        assert result.path.is_file()
        module = mark.split()[0].removesuffix(".py").replace("/", ".")
        assert f"python -m {module}" in result.command
        assert result.revision
        assert result.date
        assert result.source == "measured" or result.source.startswith("transcribed from")


@pytest.mark.parametrize(
    ("cell", "form", "text"),
    [
        (0.65, ".3f", "0.650"),
        (8, "d", "8"),
        ("8 of 8", "d", "8 of 8"),
        (None, ".3f", ""),
        (0.5, ".0%", "50%"),
        (1.803, "seconds", "1.80"),
        (0.8674, "seconds", "0.867"),
        (11.64, "ms", "11.6"),
        (203.9, "ms", "204"),
        ({"value": 0.5, "low": None, "high": None}, ".3f|.2f", "0.500"),
        ({"value": 0.1, "low": -0.25, "high": 0.75}, "+.3f|.2f", "+0.100 (-0.25 to 0.75)"),
        ({"value": 0.001, "low": -0.02, "high": 0.02, "format": "+.3f|+.3f"}, ".3f", "+0.001 (-0.020 to +0.020)"),
    ],
)
def test_cells(cell: tables.Cell, form: str, text: str) -> None:
    assert shown(cell, form) == text


def test_a_result_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    table = Table({"name": "", "n": "d", "x": ".3f|.2f"}, [["a [b]", 1, interval], ["c", None, 0.25]])
    result = Result("benchmarks/x.py --big", **FACTS, sections=["### Title", table, "A\n\nnote."])
    result.write()
    assert [path.name for path in tmp_path.glob("results/*")] == ["x-big.json"]
    (read,) = read_results().values()
    assert read.markdown() == result.markdown()
    assert '      ["a [b]", 1, {"value": 0.5, "low": 0.25, "high": 0.75}],\n' in result.path.read_text()


def test_a_saved_result_is_shown_by_its_document_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    for path in (page, other):
        path.write_text(DOCUMENT if path == page else DOCUMENT.replace(" --quick", ""))
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "documents", lambda: [other, page])
    monkeypatch.setattr("sys.argv", ["tables.py", str(EXAMPLES), "--save"])
    from benchmarks.studies.common import draw

    table = Table({"": "", "x": ".1f"}, [["a", 1.25], ["b", 2.0]])
    options = {"data": EXAMPLES, "several": [EXAMPLES], "name": "mini"}
    for save in (False, True):
        assert "old" in page.read_text()
        publish(tables.__file__, [table], Namespace(**options, save=save), variant="--quick", drawing=draw(1)[0])
    assert "](page.png)\n\n|  | x |\n" in page.read_text()
    assert "old" not in page.read_text()
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert "old" in other.read_text()
    saved = json.loads(next(tmp_path.glob("results/*")).read_text())
    assert saved["command"] == f"python -m benchmarks.tables {EXAMPLES.name}", "no folder of this machine"
    assert saved["settings"] == {"data": EXAMPLES.name, "several": [EXAMPLES.name], "name": "mini"}
    assert (saved["source"], saved["sections"][1]["rows"]) == ("measured", [["a", 1.25], ["b", 2.0]])
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1])["mark"] == "benchmarks/tables.py --quick"
