"""Files are read by what they contain, whatever they are called, and written by their names."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blender_hf.cli.output import check_writable
from blender_hf.data.files import open_text, read_file, unpacked_size
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.sources import open_source, read_records
from blender_hf.errors import InputError
from blender_hf.generation.records import read_prompts

pytestmark = pytest.mark.once
ROWS = [{"id": f"q{n}", "prompt": f"{n} + {n}?", "candidates": [str(2 * n), "?"]} for n in range(3)]


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def arrow(table: pa.Table, kind: Any) -> bytes:
    out = io.BytesIO()
    with kind(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = pa.Table.from_pylist(ROWS)
CONTENTS = {
    "lines": LINES,
    "lines with a byte order mark": b"\xef\xbb\xbf" + LINES,
    "array": json.dumps(ROWS, indent=1).encode(),
    "array with a byte order mark": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "parquet": parquet(TABLE),
    "arrow file": arrow(TABLE, pa.ipc.new_file),
    "arrow stream": arrow(TABLE, pa.ipc.new_stream),
}
CONTENTS |= {f"{name}, gzip": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet", "a.csv", "a"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_content_decides(content: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    expected = [(row["id"], row["prompt"]) for row in ROWS]
    assert [(record.id, record.item.prompt) for record in read_records(path)] == expected
    if name == "a":
        assert [entry.record().id for entry in open_source(path).records()] == ["q0", "q1", "q2"]
        assert [prompt.id for prompt in read_labelled(path)] == ["q0", "q1", "q2"]
        assert [record.id for record in read_prompts(path)] == ["q0", "q1", "q2"]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert [record.id for record in read_records("-")] == ["q0", "q1", "q2"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "CSV", "tsv"])
def test_csv_is_read_by_its_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    text = "prompt,gpt,llama\np,4,5\n".replace(",", "\t" if suffix == "tsv" else ",").encode()
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    assert [record.item.texts for record in read_records(path)] == [("4", "5")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "it is UTF-16; save it as UTF-8"),
        (b"PK\x03\x04rest", "an Excel file or a zip archive; save it as CSV"),
        (b"BZh9rest", "compressed with bzip2; unpack it, or use gzip"),
        (b"\x28\xb5\x2f\xfdrest", "compressed with zstd"),
        (b"PAR1 and no more", "can't read .*a.jsonl"),
        (b"[1, 2", "not valid JSON: .*a file that begins with . is one JSON array"),
        (b'{\n "prompt": "p"\n}\n', "a.jsonl:1: an object that goes over several lines; write one JSON object a line"),
        (b'{"data": [{"prompt": "p"}]}', '"data" holds a list of records; write that list itself'),
        (b"[[1]]", "record 1: expected a JSON object, not an array"),
        (gzip.compress(LINES, mtime=0)[:-12], "can't read .*a.jsonl"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS and not the file; fetch it"),
        (b"<!DOCTYPE html>", "it is a web page; download the raw file"),
        (b"prompt,gpt\np,a\n", "a.jsonl:1: not valid JSON: .* if it is CSV, let its name end in .csv or .tsv"),
        (b'{"prompt": "p", "prompt": "q"}', 'a.jsonl:1: the key "prompt" stands twice, with different values'),
    ],
)
def test_what_is_not_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_records(path))


def test_files_without_records_and_folders_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (("a.jsonl", ""), ("a.csv", "prompt,gpt\n"), ("a.json", "[]")):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        caplog.clear()
        assert list(read_records(path)) == []
        assert caplog.messages == [f"{path}: there are no records"]
    with pytest.raises(InputError, match="it is a folder; name a file in it"):
        list(read_records(tmp_path))


def test_what_is_compressed_twice_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.compress(LINES)))
    assert len(list(read_records(path))) == len(ROWS)


@pytest.mark.parametrize(
    "name", ["a.parquet.gz", "a.CSV", "a.csv.gz", "a.xlsx", "a.json", "a.md", "a.jsonl.zst", "a.arrow"]
)
def test_what_can_not_be_written_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: this command writes .jsonl, .jsonl.gz, .parquet, not "):
        check_writable(name)


def test_what_is_compressed_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        check_writable(tmp_path / name)
        with open_text(tmp_path / name) as file:
            file.write("é\n")
            file.flush()
            file.write("b\n")
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert gzip.decompress(written[0]).decode() == "é\nb\n"
    assert [content for _, _, content in read_file(tmp_path / "a.jsonl.gz")] == ["é\n".encode(), b"b\n"]


def test_the_size_of_what_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 5_000_000))
    assert 1_000_000 < unpacked_size(path, 1_000_000) < 1_200_000
    assert unpacked_size(path, 9_000_000) == 5_000_000
    pq.write_table(pa.table({"prompt": [str(n) * 50 for n in range(10_000)]}), tmp_path / "a.parquet")
    assert unpacked_size(tmp_path / "a.parquet", 9_000_000) > 1_000_000
