"""`blender-hf evaluate`: reports of a ranker, and the tables of the paper."""

import io
import json
import os
import threading
import weakref
from pathlib import Path
from statistics import fmean

import pytest

from blender_hf.cli.main import main
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import from_mapping
from tests.evaluation.conftest import JUDGED, models  # noqa: F401
from tests.evaluation.samples import chosen_and_rejected, mixinstruct_records

BASES = ["--base", "vicuna-13b", "--base", "guanaco-7b"]


@pytest.fixture
def arguments(checkpoints: Path) -> list[str]:
    return ["--ranker", str(checkpoints / "ranker"), "--device", "cpu", "--local-files-only", "--quiet"]


@pytest.fixture
def mixinstruct(tmp_path: Path) -> Path:
    path = tmp_path / "mixinstruct.jsonl"
    records = mixinstruct_records(on_the_hub=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_report(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "report"
    options = ["--baseline", "random", "--baseline", "length", "--output", str(folder), "--json", "--limit", "3"]
    assert main(["evaluate", str(JUDGED), *arguments, *options]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert set(found["rankers"]) == {arguments[1], "random", "longer is better", "best single model", "chance"}
    assert (found["n_prompts"], found["n_pairs"], found["n_ranked"]) == (3, 69, 3)
    figures = found["rankers"][arguments[1]]["figures"]
    assert 0 <= figures["flips"]["low"] <= figures["flips"]["value"] <= figures["flips"]["high"] <= 1
    assert figures["cycles"]["n"] == 60
    assert f"blender-hf: {arguments[1]}: accuracy {figures['accuracy']['value']:.3f} on" in printed.err
    assert {path.name for path in folder.iterdir()} == {
        "report.json",
        "report.md",
        "pairs.jsonl",
        "accuracy.png",
        "calibration.png",
    }
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == found
    summary, warning = printed.err.splitlines()[-2:]
    for name, ranker in ((arguments[1], arguments[1]), ("random", "random"), ("length", "longer is better")):
        assert f"{name}: accuracy {found['rankers'][ranker]['figures']['accuracy']['value']:.3f} on" in summary
    difference = found["differences"]["random"]["accuracy"]
    ours, dice = (found["rankers"][name]["figures"]["accuracy"]["value"] for name in (arguments[1], "random"))
    assert difference["value"] == pytest.approx(ours - dice)
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert f"({arguments[1]} minus this: {difference['value']:+.3f} [{difference['low']:+.3f}, " in summary
    assert warning.startswith("blender-hf: warning: Only 3 prompts: with so few the intervals are rough")
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(pairs) == found["n_pairs"]
    assert set(pairs[0]["rankers"]) == {arguments[1], "random", "longer is better"}
    for name in (arguments[1], "random"):
        credits = [pair["rankers"][name]["credit"] for pair in pairs]
        assert sum(credit is None for credit in credits) == found["n_ties"]
        assert fmean(credit for credit in credits if credit is not None) == pytest.approx(
            found["rankers"][name]["figures"]["accuracy"]["value"]
        )
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_keeps_no_more_of_a_file_than_it_works_on(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says what it says of the same records from a pipe, which can be read only once."""
    data = tmp_path / "preferences.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in 5 * chosen_and_rejected()), encoding="utf-8")
    alive: list[object] = []
    most = 0

    def watched(*given: object, **options: object) -> LabelledPrompt:
        nonlocal most
        prompt = from_mapping(*given, **options)
        alive.append(None)
        weakref.finalize(prompt, alive.pop)
        most = max(most, len(alive))
        return prompt

    monkeypatch.setattr("blender_hf.data.labelled_formats.from_mapping", watched)
    options = [*arguments, "--pairs-only", "--batch-size", "2"]
    assert main(["evaluate", str(data), *options]) == 0
    report = capsys.readouterr().out
    assert most < 10
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data.read_bytes())))
    most = 0
    assert main(["evaluate", "-", *options]) == 0
    assert most == 40
    assert capsys.readouterr().out.replace("| stdin |", "| preferences |") == report


def test_markdown_and_pairs_alone(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "preferences.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in chosen_and_rejected()), encoding="utf-8")
    assert main(["evaluate", str(data), *arguments, "--pairs-only", "--tie-threshold", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "8 prompts, 8 judged pairs, 0 of them ties; rankings of 0 prompts" in out
    assert "| accuracy, one order |" in out
    assert "win rate" not in out
    assert "best single model" not in out  # nobody says which models wrote the answers


def test_the_tables_of_the_paper(
    arguments: list[str],
    checkpoints: Path,
    models: Path,  # noqa: F811
    mixinstruct: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = [
        f"bertscore={models / 'encoder'}@1",
        f"bartscore={models / 'bart'}",
        f"bleurt={models / 'bleurt'}",
        "rougeL",
    ]
    options = [text for metric in metrics for text in ("--metric", metric)]
    options += ["--fuser", str(checkpoints / "fuser"), "--max-new-tokens", "8", "--judge", "length", *BASES]
    options += ["--baseline", f"mlm:{models / 'mlm'}", "--baseline", f"simcls:{models / 'encoder'}", "--limit", "3"]
    options += ["--cache", str(tmp_path / "scores.sqlite"), "--table", "mixinstruct"]
    assert main(["evaluate", str(mixinstruct), *arguments, *options]) == 0
    first = capsys.readouterr().out
    assert main(["evaluate", str(mixinstruct), *arguments, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "| answers of | kind | bertscore | bartscore | bleurt | rougeL | GPT-Rank | >= vicuna-13b (%) |" in first
    rows = {(row["kind"], row["name"]): row["figures"] for row in found["rows"]}
    assert {kind for kind, _ in rows} == {"single model", "oracle", "ranker", "blend"}
    assert rows["single model", "vicuna-13b"][">= vicuna-13b (%)"]["value"] == 100
    for metric in ("bertscore", "bartscore", "bleurt", "rougeL"):
        best = rows["oracle", metric][metric]["value"]
        assert all(figures[metric]["value"] <= best + 1e-9 for (kind, _), figures in rows.items() if kind != "blend")
        assert metric in found["correlations"]
    assert rows["blend", "Blend"]["GPT-Rank"]["n"] == 3
    assert set(found["correlations"]) >= {
        "Random",
        arguments[1],
        f"mlm:{models / 'mlm'}",
        f"simcls:{models / 'encoder'}",
    }
    assert found["judged_by"] == "length"


def test_rules_are_rankers_too(mixinstruct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(JUDGED), "--ranker", "length", "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert list(json.loads(printed.out)["rankers"]) == ["longer is better", "best single model", "chance"]
    assert "length: accuracy" in printed.err
    table = ["--table", "mixinstruct", "--ranker", "oracle:chrf", "--baseline", "length", "--json", "--quiet", *BASES]
    assert main(["evaluate", str(mixinstruct), *table]) == 0
    rows = {(row["kind"], row["name"]): row["figures"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert ("ranker", "oracle:chrf") in rows
    assert "blend" not in {kind for kind, _ in rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gold", "bleurt"], "no candidate has scores named 'bleurt'"),
        (["--tie-threshold", "2"], "tie_threshold=2.0; it is a distance"),
        (["--baseline", "oracle:bleurt"], "no candidate has scores named 'bleurt'; there are none at all"),
        (["--metric", "meteor"], "unknown metric 'meteor'"),
        (
            ["--table", "mixinstruct", "--no-blend"],
            "no prompt has a verdict on every pair of its candidates; 2 lack some",
        ),
        (["--output", __file__], "it is a file; name a folder"),
        (["--base", "vicuna"], "--base is for --table"),
        (["--num-beams", "2"], "--num-beams is for --table"),
        (["--table", "mixinstruct", "--pairs-only"], "--pairs-only has no meaning for --table"),
        (["--split", "dev"], "is a file, and has no splits: remove --split"),
    ],
)
def test_wrong_options_are_errors_of_one_line(
    options: list[str], message: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(JUDGED), *arguments, "--limit", "2", *options]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_the_hub_is_not_asked_for_data(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "org/preferences", *arguments]) == 2
    assert "org/preferences is not a local file or folder, and --local-files-only forbids" in capsys.readouterr().err


def test_a_pipe_is_read(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a shell's `<(...)` is; a job, which reads its records again after a kill, can't use it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(JUDGED.read_bytes()), daemon=True).start()
    assert main(["evaluate", str(pipe), *arguments, "--limit", "2", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["n_prompts"] == 2
    assert main(["label", str(pipe), "--output", str(tmp_path / "out.jsonl"), *arguments, "--quiet"]) == 2
    assert "can be read only once" in capsys.readouterr().err
