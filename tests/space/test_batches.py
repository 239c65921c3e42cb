import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blender_hf.errors import InputError
from blender_hf.inputs import Candidate, make_item
from blender_hf.space.batches import read_upload
from blender_hf.space.settings import Limits, check_item
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.once


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_bundled_file_can_be_uploaded() -> None:
    assert len(read_upload(EXAMPLES)) == 36


def test_a_csv_with_a_line_an_answer(tmp_path: Path) -> None:
    text = '\ufeffprompt,model,answer\n2 + 2?,m,4\n"3, or 4?",m,"a\nb"\n2 + 2?,n,5\n"3, or 4?",,c\n'
    records = read_upload(written(tmp_path, "a.csv", text))
    assert [record.item.prompt for record in records] == ["2 + 2?", "3, or 4?"]
    assert records[0].item.candidates == (Candidate("4", "m"), Candidate("5", "n"))
    assert records[1].item.candidates == (Candidate("a\nb", "m"), Candidate("c", None))


def test_a_csv_with_a_column_for_each_model(tmp_path: Path) -> None:
    text = "id,prompt,gpt,llama\nq1,2 + 2?,4,5\nq2,?,only,\n"
    records = read_upload(written(tmp_path, "a.CSV", text))
    assert [record.id for record in records] == ["q1", "q2"]
    assert records[0].item.candidates == (Candidate("4", "gpt"), Candidate("5", "llama"))
    assert records[1].item.candidates == (Candidate("only", "gpt"),)


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.jsonl.gz", "a.parquet"])
def test_other_formats_are_read_as_the_command_reads_them(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "2 + 2?", "candidates": ["4", "5"]}]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows if name.endswith(".json") else rows[0]).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert [record.item.texts for record in read_upload(path)] == [("4", "5")]


def test_what_is_packed_small_is_still_large(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "?", "candidates": ["a"]}\n' * 50_000))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"a.jsonl.gz is larger than 1 MB"):
        read_upload(path, Limits(file_bytes=1_000_000))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "{}\n", "a.jsonl:1: no candidates were found"),
        ("a.jsonl", '{"prompt": "?", "candidates": ["a"]}\nx\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", '{"prompt": 3, "candidates": ["a"]}\n', "a.jsonl:1: a prompt must be"),
        ("a.jsonl", "\n", "no prompts"),
        ("a.csv", "frage,antwort\n1,2\n", "a.csv:2: no prompt was found"),
        ("a.csv", "prompt,gpt\n?,\n", "a.csv:2: there are no candidates"),
        ("a.csv", b"prompt,gpt\n\xff,a\n", "a.csv: not a CSV file in UTF-8"),
        ("a.txt", "hello", "only .jsonl, .ndjson, .json, .gz, .csv, .tsv, .parquet, .arrow files are read"),
        ("a.jsonl", '{"prompt": "?", "candidates": ["a"]}\n' * 3, "3 prompts; at most 2"),
        ("a.jsonl", '{"prompt": "?", "candidates": ["%s"]}\n' % ("a" * 51), "a.jsonl:1: candidate 1 has 51"),
        ("a.jsonl", "x" * 2000, "is larger than"),
    ],
)
def test_files_that_can_not_be_used(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        read_upload(written(tmp_path, name, text), Limits(prompts=2, file_bytes=1000, characters=50))
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("prompt", "candidates", "said"),
    [
        ("?", ["a", "b", "c"], "3 candidates; at most 2"),
        ("?", ["a", "b" * 11], "candidate 2 has 11 characters; at most 10"),
        ("?" * 11, ["a"], "the prompt has 11 characters"),
        ("?" * 9, ["a" * 9, "b" * 9], "27 characters in all"),
    ],
)
def test_requests_that_are_too_large(prompt: str, candidates: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_item(make_item(prompt, candidates), Limits(candidates=2, characters=10, total_characters=25))
