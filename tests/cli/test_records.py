"""Records in files of any format, under any name of a column, in and out of the commands."""

import gzip
import json
import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blender_hf.cli.main import main
from blender_hf.evaluation.evaluate import LENGTH
from tests.language_server import LanguageServer

pytestmark = pytest.mark.once
ROWS = [{"id": f"q{n}", "prompt": f"{n} + {n}?", "candidates": [str(2 * n), "Bananas."]} for n in range(4)]


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    plain = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in plain.splitlines()]


@pytest.fixture
def ranker(checkpoints: Path) -> list[str]:
    return ["--ranker", str(checkpoints / "ranker"), "--device", "cpu", "--quiet"]


def files(folder: Path) -> dict[str, Path]:
    """Return the same records as lines, as an array, in Parquet, and compressed under a plain name."""
    made = {name: folder / name for name in ("a.jsonl", "a.json", "a.parquet", "b.jsonl", "a.csv")}
    made["a.jsonl"].write_text(as_lines(ROWS), encoding="utf-8")
    made["a.json"].write_text(json.dumps(ROWS), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), made["a.parquet"])
    made["b.jsonl"].write_bytes(gzip.compress(as_lines(ROWS).encode()))
    cells = "".join(f"{row['id']},{row['prompt']},{row['candidates'][0]},Bananas.\n" for row in ROWS)
    made["a.csv"].write_text(f"id,prompt,response_a,response_b\n{cells}", encoding="utf-8")
    return made


def test_every_command_reads_every_format(ranker: list[str], tmp_path: Path, server: LanguageServer) -> None:
    results: dict[str, list[Any]] = {"rank": [], "label": [], "generate": [], "annotate": []}
    for name, path in files(tmp_path).items():
        out = {command: tmp_path / f"{command}-{name}.jsonl" for command in results}
        assert main(["rank", str(path), *ranker, "--output", str(out["rank"])]) == 0
        assert main(["label", str(path), *ranker, "--output", str(out["label"])]) == 0
        server_options = ["--quiet", "--max-retries", "0"]
        model = f"{server.url}#echo"
        assert main(["generate", str(path), "--llm", model, "--output", str(out["generate"]), *server_options]) == 0
        assert main(["annotate", str(path), "--judge", model, "--output", str(out["annotate"]), *server_options]) == 0
        for command, found in results.items():
            rows = lines(out[command])
            if command == "generate":  # what a table of answers holds beside the prompt is kept as it is
                rows = [{"id": row["id"], "written": row["candidates"][-1]} for row in rows]
            if command == "annotate":
                rows = [{key: row[key] for key in ("id", "prompt", "cmp_results")} for row in rows]
            found.append(rows)
    for command, found in results.items():
        assert len(found[0]) == len(ROWS)
        assert all(rows == found[0] for rows in found), command


@pytest.mark.parametrize("command", ["rank", "generate"])
def test_what_is_called_gz_is_compressed(
    command: str, ranker: list[str], tmp_path: Path, server: LanguageServer
) -> None:
    source = files(tmp_path)["a.jsonl"]
    options = ranker if command == "rank" else ["--llm", f"{server.url}#echo", "--quiet"]
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed.jsonl.gz"
    for output in (plain, packed):
        assert main([command, str(source), *options, "--output", str(output)]) == 0
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert not list(tmp_path.glob("*.lines"))
    if command == "generate":
        again = tmp_path / "ranked.jsonl"
        assert main(["rank", str(packed), *ranker, "--output", str(again)]) == 0
        assert len(lines(again)) == len(ROWS)


def test_a_compressed_output_is_resumed_wherever_it_was_killed(tmp_path: Path, server: LanguageServer) -> None:
    source = files(tmp_path)["a.jsonl"]
    command = ["generate", str(source), "--llm", f"{server.url}#echo", "--quiet", "--output"]
    whole, output, unfinished = (tmp_path / name for name in ("whole.jsonl.gz", "out.jsonl.gz", "out.jsonl.gz.lines"))
    assert main([*command, str(whole)]) == 0
    content = gzip.decompress(whole.read_bytes())
    for place in random.Random(0).sample(range(len(content)), 6):
        output.unlink(missing_ok=True)
        unfinished.write_bytes(content[:place])
        assert main([*command, str(output)]) == 0
        assert output.read_bytes() == whole.read_bytes()
        assert not unfinished.exists()
    # A finished one is not asked for again, and what is not a file of ours stays as it is.
    server.reset()
    assert main([*command, str(output)]) == 0
    assert not server.requests
    assert output.read_bytes() == whole.read_bytes()
    foreign = gzip.compress(b'{"a": 1}\n')
    output.write_bytes(foreign)
    assert main([*command, str(output)]) == 2
    assert output.read_bytes() == foreign
    assert not unfinished.exists()
    assert main([*command, str(output), "--overwrite"]) == 0
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("command", ["rank", "fuse", "blend", "generate", "annotate", "label"])
@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".json", ".parquet"])
def test_an_ending_that_can_not_be_written_is_refused_before_any_work(
    command: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (command, suffix) == ("label", ".parquet"):
        pytest.skip("label writes it")
    source, output = files(tmp_path)["a.jsonl"], tmp_path / f"out{suffix}"
    models = {"generate": ["--llm", "nowhere/none"], "annotate": ["--judge", "nowhere/none"]}
    options = models.get(command, ["--ranker", "nowhere/none"])
    assert main([command, str(source), "--output", str(output), *options]) == 2
    assert ".jsonl.gz" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", ["rank", "fuse", "blend", "generate", "annotate", "label"])
def test_a_bad_record_leaves_no_output(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(as_lines([*ROWS[:2], {**ROWS[2], "question": "Another?"}, ROWS[3]]), encoding="utf-8")
    models = {"generate": ["--llm", "nowhere/none"], "annotate": ["--judge", "nowhere/none"]}
    options = models.get(command, [])
    assert main([command, str(source), "--output", str(output), *options, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert 'in.jsonl:3: "prompt" and "question" both say the prompt, and differ' in err
    assert not list(tmp_path.glob("out*"))


def test_columns(ranker: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        as_lines([{"frage": "2 + 2?", "gpt": "4", "llama": "It is 5.", "besser": "gpt"}]), encoding="utf-8"
    )
    columns = ["--columns", "prompt=frage,candidates=gpt,llama"]
    assert main(["rank", str(source), *ranker, *columns]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["prompt"] == "2 + 2?"
    assert json.loads(out)["ranking"]["models"] == ["gpt", "llama"]
    assert main(["label", str(source), *ranker, *columns, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert lines(tmp_path / "out.jsonl")[0]["prompt"] == "2 + 2?"
    assert (
        main(["evaluate", str(source), "--ranker", "length", "--columns", f"{columns[1]},winner=besser", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["rankers"][LENGTH]["figures"]["accuracy"]["value"] == 0
    assert main(["rank", str(source), *ranker, *columns, "--columns", "prompt=nowhere,candidates=gpt,llama"]) == 2
    assert "no prompt was found" in capsys.readouterr().err
    assert main(["rank", str(source), *ranker, "--columns", f"{columns[1]},system=nowhere"]) == 2
    assert 'no record has the column "nowhere"' in capsys.readouterr().err


def test_what_is_not_read_is_said_once(ranker: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(as_lines([{**row, "ranks": [1, 2], "foo": 1} for row in ROWS]), encoding="utf-8")
    for command, options in (("rank", ranker), ("label", ranker), ("evaluate", ["--ranker", "length"])):
        caplog.clear()
        output = [] if command == "evaluate" else ["--output", str(tmp_path / f"{command}.jsonl")]
        assert main([command, str(source), *options, *output]) == 0
        assert [message for message in caplog.messages if "not read" in message] == [f'{source}: not read: "foo"']


def test_values_of_tables_that_json_lacks(tmp_path: Path, server: LanguageServer, capsys: Any) -> None:
    """Those of the columns beside the prompt: `generate` writes all of a record again."""
    table = {"prompt": ["2 + 2?"], "when": [datetime(2026, 11, 30, 12)], "cost": [Decimal("1.50")], "raw": [b"x"]}
    source, output = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    command = ["generate", str(source), "--llm", f"{server.url}#echo", "--quiet", "--output", str(output)]
    pq.write_table(pa.table(table), source)
    assert main(command) == 2
    assert 'row 1: "raw" can\'t be written as JSON (it holds bytes); drop it' in capsys.readouterr().err
    assert not output.exists()
    pq.write_table(pa.table(table).drop_columns("raw"), source)
    assert main(command) == 0
    assert {**lines(output)[0], "when": "2026-11-30T12:00:00", "cost": "1.50"} == lines(output)[0]
