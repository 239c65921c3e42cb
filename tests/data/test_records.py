"""Reading JSONL: the formats, and errors that name the line."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from blender_hf import InputError, InputTypeError
from blender_hf.data.sources import read_records
from tests.conftest import EXAMPLES

GOOD = '{"id": "q", "prompt": "p", "candidates": ["a", {"text": "b", "model": "m", "score": 1.0}]}'
MIX_INSTRUCT = {
    "id": "unified_chip2/69962",
    "instruction": "",
    "input": "I've always wanted to learn to play the piano.",
    "output": "It's great.",
    "candidates": [
        {"model": "oasst-12b", "decoding_method": "top_p_sampling", "text": "A", "scores": {"bleurt": -0.7}},
        {"model": "koala", "decoding_method": "top_p_sampling", "text": "B", "scores": {"bleurt": 0.1}},
    ],
    "cmp_results": {"oasst-12b,koala": "A is better"},
}


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_format_of_the_bundled_file() -> None:
    records = list(read_records(EXAMPLES))
    assert len(records) == 36
    assert all(len(record.item.candidates) == 6 for record in records)
    assert records[0].id == "vicuna80-01"
    assert records[0].item.candidates[4].model == "gpt-4"


def test_the_bundled_file_says_its_licence() -> None:
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["license"] for line in lines} == {"MIT"}


def test_mix_instruct(tmp_path: Path) -> None:
    with_task = {**MIX_INSTRUCT, "instruction": "Reply."}
    path = written(tmp_path / "mix.jsonl", json.dumps(MIX_INSTRUCT), json.dumps(with_task))
    plain, asked = read_records(path)
    assert plain.id == "unified_chip2/69962"
    assert plain.item.source == MIX_INSTRUCT["input"]
    assert asked.item.source == "Reply.\n" + MIX_INSTRUCT["input"]
    assert [c.model for c in asked.item.candidates] == ["oasst-12b", "koala"]


def test_messages_come_before_the_prompt(tmp_path: Path) -> None:
    chat = {"prompt": "u", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    [record] = read_records(written(tmp_path / "chat.jsonl", json.dumps({**chat, "candidates": ["a"]})))
    assert record.item.source == "SYSTEM: s\nUSER: u"
    assert record.id == "1"


def test_empty_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "gaps.jsonl", "", GOOD, "  ", '{"prompt": "p", "candidates": ["a"]}')
    assert [record.id for record in read_records(path)] == ["q", "4"]
    assert list(read_records(written(tmp_path / "empty.jsonl"))) == []


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode()))
    assert [record.id for record in read_records(path)] == ["q"]
    path.write_bytes(gzip.compress(GOOD.encode() * 100)[:-20])
    with pytest.raises(InputError, match=r"can't read .*x.jsonl.gz"):
        list(read_records(path))
    path.write_bytes(GOOD.encode())
    assert [record.id for record in read_records(path)] == ["q"]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{GOOD}\n[]".encode())))
    records = read_records("-")
    assert next(records).id == "q"
    with pytest.raises(InputError, match="<stdin>:2: expected a JSON object, not an array"):
        next(records)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"prompt": "p", "candidates": ["a"', InputError, "not valid JSON: Expecting ',' delimiter at column"),
        ("plain text", InputError, "not valid JSON"),
        ("3", InputError, "expected a JSON object, not a number"),
        ("null", InputError, "expected a JSON object, not null"),
        ('"text"', InputError, "expected a JSON object, not a string"),
        ("{}", InputError, 'no candidates were found: .*"candidates".*; it has no keys'),
        ('{"prompt": "p"}', InputError, 'is needed; it has "prompt"; rename'),
        ('{"prompt": "p", "candidates": []}', InputError, "there are no candidates"),
        ('{"prompt": "p", "candidates": "ab"}', InputTypeError, "candidates must be a list"),
        ('{"prompt": "p", "candidates": ["a", null]}', InputTypeError, "candidate 1: .*not None"),
        ('{"prompt": null, "candidates": ["a"]}', InputError, 'no prompt was found: "prompt" is null'),
        ('{"messages": [], "candidates": ["a"]}', InputError, "at least one message"),
        ('{"instruction": 3, "input": "i", "candidates": ["a"]}', InputTypeError, "the instruction must be a string"),
        ("[" * 100_000, InputError, "nested too deeply|not valid JSON"),
        ("[", InputError, "not valid JSON: .* write one JSON object a line"),
        ("[{}]", InputError, "not an array; write one object a line"),
        ('{"prompt": %s}' % ("1" * 5000), InputError, "a number has more than the 4300 digits"),
        ('{"id": "\\ud83d", "prompt": "p", "candidates": ["a"]}', InputError, "lone surrogate"),
        ('{"prompt": "p", "candidates": [{"text": "a", "model": "\\ud83d"}]}', InputError, "lone surrogate"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    path = written(tmp_path / "bad.jsonl", GOOD, line)
    with pytest.raises(error, match=rf"bad.jsonl:2.*({message})"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("written_id", "found"),
    [("7", "7"), ('"7"', "7"), ("null", "1"), ("1.5", "1.5"), ("true", "true"), ('["a", 1]', '["a", 1]')],
)
def test_an_id_of_any_kind_is_kept(tmp_path: Path, written_id: str, found: str) -> None:
    """The number of the line in its place would be another record's in another file."""
    path = written(tmp_path / "x.jsonl", f'{{"id": {written_id}, "prompt": "p", "candidates": ["a"]}}')
    assert next(read_records(path)).id == found


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"prompt": "caf\xe9", "candidates": ["a"]}\n')
    with pytest.raises(InputError, match=r"latin.jsonl:2: not UTF-8.*save the file as UTF-8"):
        list(read_records(path))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"can't read .*(No such file|it is a folder)"):
        list(read_records(tmp_path / name))


def test_a_later_error_does_not_hide_what_came_before(tmp_path: Path) -> None:
    records: Any = read_records(written(tmp_path / "x.jsonl", GOOD, GOOD, "{"))
    assert [next(records).id, next(records).id] == ["q", "q"]
    with pytest.raises(InputError, match=r"x.jsonl:3"):
        next(records)
