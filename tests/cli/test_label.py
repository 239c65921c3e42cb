"""`blender-hf label`, as users run it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blender_hf import Blender
from blender_hf.cli.main import main
from tests.conftest import EXAMPLES


@pytest.fixture
def ranker(checkpoints: Path) -> list[str]:
    return ["--ranker", str(checkpoints / "ranker"), "--device", "cpu"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_pairs_of_the_bundled_file(ranker: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "dpo.jsonl"
    command = ["label", str(EXAMPLES), "--output", str(output), *ranker, "--limit", "5", "--part-size", "2"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err
    assert err.splitlines()[-1].startswith(f"blender-hf: 5 rows of 5 prompts in {output}; ")
    values = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()[:5]]
    blender = Blender.from_pretrained(ranker[1], None, device="cpu")
    for row, value in zip(rows_of(output), values, strict=True):
        ranking = blender.rank(value["prompt"], value["candidates"])
        assert (row["chosen"], row["rejected"]) == (ranking.best, ranking.worst)
    assert main([*command, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["rows"], summary["resumed"], summary["records_per_second"]) == (5, 5, None)
    assert err.splitlines() == [f"blender-hf: 5 rows of 5 prompts in {output}; 5 done before"]


def test_options_reach_the_rows(ranker: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.parquet"
    options = ["--format", "dpo", "--pairs", "all", "--min-margin", "0.1", "--shard", "2/3"]
    options += ["--aggregation", "max_wins", "--limit", "7", "--json", "--quiet"]
    assert main(["label", str(EXAMPLES), "--output", str(output), *ranker, *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["records"], summary["format"]) == (2, "dpo")
    assert summary["filtered"]["margin"] > 0
    rows = pq.read_table(output).to_pylist()
    assert summary["rows"] == len(rows) > 0
    assert all(row["margin"] >= 0.1 for row in rows)
    # What is left out and what is kept are all 15 pairs of both prompts.
    assert summary["rows"] + sum(summary["filtered"].values()) == 2 * 15
    about = json.loads(Path(f"{output}.label.json").read_text(encoding="utf-8"))["settings"]
    assert (about["shard"], about["aggregation"], about["min_margin"]) == ("2/3", "max_wins", 0.1)


def test_a_schedule(ranker: list[str], tmp_path: Path) -> None:
    options = ["--format", "rankings", "--schedule", "knockout", "--orders", "one", "--top-k", "1", "--limit", "2"]
    output = tmp_path / "out.jsonl"
    assert main(["label", str(EXAMPLES), "--output", str(output), *ranker, *options, "--quiet"]) == 0
    assert [(row["schedule"], row["n_comparisons"]) for row in rows_of(output)] == [("knockout", 5)] * 2


def test_bad_lines(ranker: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"prompt": "2 + 2?", "candidates": ["4", "5"]}\n{"prompt": "2 +', encoding="utf-8")
    command = ["label", str(data), "--output", str(output), *ranker, "--format", "rewards", "--quiet"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert f"{data}:2: not valid JSON" in err
    assert "--skip-bad" in err
    assert main([*command, "--skip-bad"]) == 0
    assert f"2 rows of 2 prompts in {output}; 1 bad line in {output}.bad.jsonl" in capsys.readouterr().err
    assert [line["line"] for line in rows_of(Path(f"{output}.bad.jsonl"))] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "ppo"], "unknown format 'ppo'; use one of dpo, kto, sppo, rankings, sft, rewards"),
        (["--pairs", "all", "--format", "kto"], "--pairs is for --format dpo, not kto"),
        (["--max-candidates", "2"], "--max-candidates is for --format sft, not dpo"),
        (["--format", "sft"], "no record has a reference"),
        (["--pairs", "some"], "unknown choice of pairs 'some'"),
        (["--min-probability", "0.2"], "min_probability=0.2"),
        (["--orders", "one", "--drop-flips"], "remove --orders one"),
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker is for --engine ray"),
        (["--private"], "--private is for --push-to-hub"),
        (["--split", "train"], "has no split"),
        (["--push-to-hub", "preferences"], "write it as org/name"),
        (["--ranker", "no/such"], "can't load the ranker 'no/such'"),
        (["--output", "out.csv"], "ends in one of"),
    ],
)
def test_errors_are_one_line_and_code_2(
    ranker: list[str], tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    command = ["label", str(EXAMPLES), "--output", str(output), *ranker, "--local-files-only", "--quiet", *options]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("blender-hf: error: ")
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/"])
def test_shards_that_do_not_exist(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["label", str(EXAMPLES), "--output", str(tmp_path / "o.jsonl"), "--shard", shard])
    assert exit_.value.code == 2
    assert "is not a shard; write the first of four as 1/4" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    ranker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    command = ["label", str(EXAMPLES), *ranker, "--limit", "1", "--quiet"]
    assert main([*command, "--output", str(tmp_path / "out.parquet")]) == 2
    assert "pip install 'blender-hf[label]'; or write .jsonl" in capsys.readouterr().err
    assert main([*command, "--output", str(tmp_path / "out.jsonl"), "--engine", "ray"]) == 2
    assert "pip install 'blender-hf[ray]'" in capsys.readouterr().err
    assert main([*command, "--output", str(tmp_path / "out.jsonl")]) == 0


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first command, word for word, with the bundled ranker."""
    text = Path("docs/labelling.md").read_text(encoding="utf-8")
    block = text.split("```console\n")[1].split("```")[0]
    command = shlex.split(block.splitlines()[0].removeprefix("$ blender-hf "))
    (tmp_path / "blender_hf").symlink_to(Path("blender_hf").absolute())
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--device", "cpu"]) == 0
    assert len(rows_of(tmp_path / "dpo.jsonl")) == 2
