"""Outputs that a killed job goes on with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from blender_hf import InputError
from blender_hf.data import resuming
from blender_hf.data.resuming import complete_values, digest_of, each_id_once, is_done, written_values


@pytest.mark.parametrize("block", [4, 1 << 16])
@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b"', b'{"a": 1}\n'),
        (b'{"a": 1', b""),
        (b"{", b""),
        (b'{"a": 1}\n12', b'{"a": 1}\n'),  # a part of a number is a number, so this may be unfinished
        (b'{"a": 1}\n  ', b'{"a": 1}\n'),
        (b'{"a": 1}', b'{"a": 1}\n'),  # whole, for no part of an object is one: only its end is missing
        (b'\n{"a": 1}', b'\n{"a": 1}\n'),
    ],
)
def test_an_unfinished_line_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, kept: bytes, block: int
) -> None:
    monkeypatch.setattr(resuming, "BLOCK", block)
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    assert [value for _, value in complete_values(path)] == ([{"a": 1}] if kept else [])
    assert path.read_bytes() == kept


def test_a_file_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert list(complete_values(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


def test_a_finished_line_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("{}\nnot json\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"out.jsonl:2: this is no record of an earlier run; choose another --output"):
        list(complete_values(path))


@pytest.mark.parametrize(
    "content",
    [
        b"a text of somebody's",
        b"a text\nof several\nlines",
        b'{"a": 1}\na text\nof somebody\'s',
        b"\n\na text after empty lines",
        b'[{"a": 1}',
        b"12",
        b"\x1f\x8b\x08\x00",  # compressed
    ],
)
def test_what_no_job_wrote_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="this is no record of an earlier run"):
        list(complete_values(path))
    assert path.read_bytes() == content


def test_nothing_is_mended_before_all_records_are_known(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    values = complete_values(path)
    assert next(values)[1] == {"a": 1}
    values.close()  # as a caller's error does, to whom the first record is a stranger's
    assert len(list(written_values(path))) == 2
    assert path.read_bytes().endswith(b'{"c"')


def record(id: str | int, text: str = "t") -> SimpleNamespace:
    return SimpleNamespace(id=id, digest=digest_of(text), where=f"line {id}")


def test_ids_are_found_once() -> None:
    assert len(list(each_id_once([record(1), record("1")]))) == 2
    with pytest.raises(InputError, match="line 1: another record has the id 1"):
        list(each_id_once([record(1), record(2), record(1)]))


def test_a_record_with_other_texts_is_another_record() -> None:
    done = {1: digest_of("t")}
    assert is_done(record(1), done)
    assert not is_done(record(2), done)
    with pytest.raises(InputError, match=r"line 1: the output has other texts with the id 1; choose another --output"):
        is_done(record(1, "u"), done)
