"""Records in files of any format, under any name of a column, in and out of the commands."""

import csv
import gzip
import io
import json
import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from markdown_it import MarkdownIt

from blender_hf.cli.main import main
from blender_hf.evaluation.evaluate import LENGTH
from tests.language_server import Fault, LanguageServer

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


def test_every_command_reads_the_folders_of_datasets(
    ranker: list[str], tmp_path: Path, server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "saved"
    DatasetDict({"train": Dataset.from_list(ROWS[:1]), "test": Dataset.from_list(ROWS)}).save_to_disk(str(folder))
    asked = {"generate": ["--llm", f"{server.url}#echo"], "annotate": ["--judge", f"{server.url}#echo"]}
    for command in ("rank", "label", "generate", "annotate"):
        output = tmp_path / f"{command}.jsonl"
        options = [*asked.get(command, ranker[:-1]), "--output", str(output), "--quiet"]
        assert main([command, str(folder), *options]) == 2
        assert "has the splits train, test" in capsys.readouterr().err
        assert main([command, str(folder), *options, "--split", "test"]) == 0
        assert len(lines(output)) == len(ROWS)


@pytest.mark.parametrize(("command", "model"), [("rank", "--ranker"), ("generate", "--llm"), ("annotate", "--judge")])
def test_a_data_set_of_the_hub_is_named_like_one(
    command: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without a file was refused as a path, so no data set could be read."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    options = [model, "http://127.0.0.1:9/v1#m" if model != "--ranker" else "pair-ranker-mini"]
    assert main([command, "org/answers", *options, "--split", "train", "--output", str(tmp_path / "o.jsonl")]) == 2
    assert "can't read org/answers: " in (err := capsys.readouterr().err)
    assert "or the id of a dataset on the Hub" in err
    assert main([command, "org/answers.jsonl", *options]) == 2
    assert "can't read org/answers.jsonl: No such file or directory" in capsys.readouterr().err
    assert main([command, str(files(tmp_path)["a.jsonl"]), *options, "--split", "train"]) == 2
    assert "has no split: that is an option for datasets" in capsys.readouterr().err


SPELT = [{"ID": 7, "prompt": "2 + 2?", "candidates": ["4", "5"]}, {"prompt": "3 + 3?", "candidates": ["6", "5"]}]


@pytest.mark.parametrize(
    ("columns", "rows", "ids"),
    [
        ([], SPELT, ["7", "2"]),
        (["--columns", "id=uid"], [{**SPELT[0], "uid": "a"}, {**SPELT[1], "uid": 1.5}], ["a", "1.5"]),
    ],
)
def test_every_command_spells_an_id_alike(
    columns: list[str], rows: list[dict[str, Any]], ids: list[str], ranker: list[str], tmp_path: Path, server: Any
) -> None:
    """It was a number in some outputs and a text in others, and `ID` was an id to some commands alone."""
    source = tmp_path / "in.jsonl"
    source.write_text(as_lines(rows), encoding="utf-8")
    asked = {"generate": ["--llm", f"{server.url}#echo"], "annotate": ["--judge", f"{server.url}#echo"]}
    for command in ("rank", "label", "generate", "annotate"):
        output = tmp_path / f"{command}.jsonl"
        job = [command, str(source), *asked.get(command, ranker[:-1]), "--quiet", *columns, "--output", str(output)]
        assert main(job) == 0
        assert [row["id"] for row in lines(output)] == ids, command
        assert not any("ID" in row for row in lines(output))
        if command in asked:
            server.reset()
            assert main(job) == 0  # all of them are found again
            assert not server.requests


def test_what_is_ranked_is_ranked_again_from_every_file(ranker: list[str], tmp_path: Path) -> None:
    """Parquet and lines have the same records, which are input of the next command; a CSV file has the answers."""
    source, first = files(tmp_path)["a.jsonl"], tmp_path / "first.jsonl"
    assert main(["rank", str(source), *ranker, "--output", str(first)]) == 0
    found = lines(first)
    assert [[candidate["text"] for candidate in row["candidates"]] for row in found] == [
        row["candidates"] for row in ROWS
    ]
    assert [row["candidates"][row["ranking"]["order"][0]]["text"] for row in found] == [row["best"] for row in found]
    for name in ("again.parquet", "again.jsonl.gz", "again.csv"):
        output, next_ = tmp_path / name, tmp_path / f"{name}.jsonl"
        assert main(["rank", str(source), *ranker, "--output", str(output)]) == 0
        if name == "again.parquet":
            assert pq.read_table(output).to_pylist() == found
        assert main(["rank", str(output), *ranker, "--output", str(next_)]) == 0
        assert [(row["id"], row["prompt"], row["best"]) for row in lines(next_)] == [
            (row["id"], row["prompt"], row["best"]) for row in found
        ]
    assert {path.suffix for path in tmp_path.iterdir()} <= {".jsonl", ".json", ".gz", ".csv", ".parquet"}
    bare = tmp_path / "bare.jsonl"
    assert main(["rank", str(source), *ranker, "--no-texts", "--output", str(bare)]) == 0
    assert lines(bare) == [{key: value for key, value in row.items() if key != "candidates"} for row in found]


TEXTS = ["=1+1", "-4", "- one\n- two", 'a, "b"; \u4f60', "@SUM(A1)", "  ", "# no | *title*\n\n```\n<b>&amp; $x$ \\"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A record whose texts are formulas to a spreadsheet and markup to Markdown."""
    source = tmp_path / "hostile.jsonl"
    candidates = [{"model": f"m|{n}\n`", "text": text} for n, text in enumerate(TEXTS)]
    source.write_text(as_lines([{"id": "a|b\n# c", "prompt": "> p\n\n| q |", "candidates": candidates}]), "utf-8")
    return source


def test_a_csv_file_opens_in_a_spreadsheet(hostile: Path, ranker: list[str], tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out.csv"
    assert main(["rank", str(hostile), *ranker, "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\xef\xbb\xbfid,prompt,rank,model,score,text\n")
    with output.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == sorted(int(row["rank"]) for row in rows)
    guarded = {text: f"'{text}" for text in ("=1+1", "- one\n- two", "@SUM(A1)")}
    assert {row["text"] for row in rows} == {guarded.get(text, text) for text in TEXTS}
    assert {(row["id"], row["prompt"]) for row in rows} == {("a|b\n# c", "> p\n\n| q |")}
    assert main(["rank", str(hostile), *ranker, "--format", "csv"]) == 0
    assert capsys.readouterr().out == output.read_text(encoding="utf-8")


def test_no_text_breaks_a_table_of_markdown(hostile: Path, ranker: list[str], tmp_path: Path) -> None:
    """Read with a real parser: the texts are texts, whatever they say."""
    output = tmp_path / "out.md"
    assert main(["rank", str(hostile), *ranker, "--output", str(output)]) == 0
    tokens = MarkdownIt("commonmark").enable("table").parse(output.read_text(encoding="utf-8"))
    assert [token.type for token in tokens if token.type.endswith("_open") and token.level == 0] == [
        *("heading_open", "paragraph_open", "table_open")
    ]
    texts = [shown_text(token) for token in tokens if token.type == "inline"]
    assert texts[:6] == ["a|b\n# c", "Prompt: > p\n\n| q |", "rank", "score", "model", "answer"]
    rows = [texts[start : start + 4] for start in range(6, len(texts), 4)]
    assert {row[3] for row in rows} == {text.strip() for text in TEXTS}
    assert {row[2] for row in rows} == {f"m|{n}\n`" for n in range(len(TEXTS))}


def shown_text(token: Any) -> str:
    """Return the text that a reader sees, where line breaks are the only HTML."""
    breaks = [child.content for child in token.children if child.type == "html_inline"]
    assert set(breaks) <= {"<br>"}
    kinds = {"text", "text_special", "html_inline", "strong_open", "strong_close"}
    assert {child.type for child in token.children} <= kinds
    return "".join("\n" if child.type == "html_inline" else child.content for child in token.children)


def test_answers_for_people(tmp_path: Path, ranker: list[str], checkpoints: Path, capsys: Any) -> None:
    fuser, source = ["--fuser", str(checkpoints / "fuser")], str(files(tmp_path)["a.jsonl"])
    shown = {}
    for command, options in (("fuse", []), ("blend", ["--no-fallback", "--top-k", "2"])):
        for form in ("jsonl", "csv", "markdown"):
            assert main([command, source, *ranker, *fuser, *options, "--format", form]) == 0
            shown[command, form] = capsys.readouterr().out
        records = [json.loads(line) for line in shown[command, "jsonl"].splitlines()]
        rows = list(csv.DictReader(io.StringIO(shown[command, "csv"].removeprefix("\ufeff"))))
        assert [row["fused"].removeprefix("'") for row in rows] == [record["fused"] for record in records]
        assert all(row["fused_from"].count("candidate") == 2 for row in rows)
        assert shown[command, "markdown"].count("### q") == len(ROWS)
    assert shown["blend", "markdown"].count("**Returned: the text fused from candidate") == len(ROWS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "out.csv", "--format", "markdown"], "its name asks for .csv, and --format for markdown"),
        (["--output", "out.parquet", "--format", "csv"], "its name asks for .parquet, and --format for csv"),
        (["--output", "out.md", "--format", "jsonl"], "its name asks for .md, and --format for jsonl"),
        (["--output", "out.csv", "--no-texts"], "--no-texts is for JSON Lines and Parquet, not csv"),
    ],
)
def test_formats_that_disagree_are_refused(options: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["rank", str(files(tmp_path)["a.jsonl"]), "--ranker", "nowhere/none", *options]) == 2
    assert message in capsys.readouterr().err


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


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".parquet"])
def test_a_packed_output_is_resumed_wherever_it_was_killed(suffix: str, tmp_path: Path, server: LanguageServer) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(as_lines([{**row, "note": n or "text", "more": {str(n): n}} for n, row in enumerate(ROWS)]))
    command = ["generate", str(source), "--llm", f"{server.url}#echo", "--quiet", "--output"]
    whole, output, plain = (tmp_path / name for name in (f"whole{suffix}", f"out{suffix}", "plain.jsonl"))
    unfinished = tmp_path / f"out{suffix}.lines"
    assert main([*command, str(whole)]) == 0
    assert main([*command, str(plain)]) == 0
    content = plain.read_bytes()
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
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    foreign = gzip.compress(b'{"a": 1}\n') if suffix == ".jsonl.gz" else (tmp_path / "foreign").read_bytes()
    for content in (foreign, b"notes of somebody's"):
        output.write_bytes(content)
        assert main([*command, str(output)]) == 2
        assert output.read_bytes() == content
        assert not unfinished.exists()
    assert main([*command, str(output), "--overwrite"]) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_table_of_answers_is_taken_up_again(tmp_path: Path, server: LanguageServer) -> None:
    """What failed is asked again, and what is in the file stays as it is, though a table has nulls that lines lack."""
    source, output, plain = (tmp_path / name for name in ("in.jsonl", "out.parquet", "out.jsonl"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    rows = [ROWS[0], {**ROWS[1], "candidates": [call, "4"]}, {"prompt": [{"role": "user", "content": "Hi"}], "x": None}]
    source.write_text(as_lines(rows), encoding="utf-8")
    command = ["generate", str(source), "--llm", f"{server.url}#echo", "--quiet", "--concurrency", "1", "--output"]
    assert main([*command, str(plain)]) == 0
    server.faults = [Fault("echo", 400, message="refused", times=3)]
    assert main([*command, str(output)]) == 2
    assert len(pq.read_table(output)) == 2  # those that had candidates before
    assert main([*command, str(output)]) == 0
    again = tmp_path / "again.jsonl"
    assert main(["generate", str(output), *command[2:-1], "--output", str(again)]) == 0
    assert [row["candidates"][-1]["text"] for row in lines(again)] == [
        row["candidates"][-1]["text"] for row in lines(plain)
    ]
    assert lines(again)[1]["candidates"][0] == call
    assert lines(again)[2]["prompt"] == rows[2]["prompt"]


@pytest.mark.parametrize("command", ["rank", "fuse", "blend", "generate", "annotate", "label"])
@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".json", ".md", ".parquet.gz"])
def test_an_ending_that_can_not_be_written_is_refused_before_any_work(
    command: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in ("rank", "fuse", "blend") and suffix in (".csv", ".md"):
        pytest.skip("they write it for people")
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
