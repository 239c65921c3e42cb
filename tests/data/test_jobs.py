"""Logs of jobs: what a killed process leaves behind, and what another job wrote."""

import errno
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blender_hf import InputError
from blender_hf.data import jobs
from blender_hf.data.jobs import digest_of, each_id_once, is_done, open_log, remaining, replacing

SETTINGS = {"format": "dpo", "seed": 1}


def values_of(path: Path) -> list[Any]:
    with open_log(path) as log:
        return [value for _, value in log.values()]


def resumed(path: Path) -> list[Any]:
    """Return what a job finds that resumes a log, and has written nothing yet."""
    with open_log(path) as log:
        values = [value for _, value in log.values()]
        log.begin()
    return values


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
    monkeypatch.setattr(jobs, "BLOCK", block)
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    assert resumed(path) == ([{"a": 1}] if kept else [])
    assert path.read_bytes() == kept


def test_a_file_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert values_of(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_finished_line_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("{}\nnot json\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"out.jsonl:2: this is no record of an earlier run; choose another --output"):
        resumed(path)


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
        resumed(path)
    assert path.read_bytes() == content


def test_nothing_is_mended_before_all_records_are_known(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    assert values_of(path) == [{"a": 1}, {"b": 2}]
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


def test_records_of_a_window_are_made_together(tmp_path: Path) -> None:
    records = [record(number) for number in range(8)]
    done = {number: digest_of("t") for number in (0, 1, 2, 3, 6)}
    assert [found.id for found in remaining(records, done)] == [4, 5, 7]
    assert [found.id for found in remaining(records, done, 4)] == [4, 5, 6, 7]
    assert [found.id for found in remaining(records, {}, 4)] == list(range(8))
    with pytest.raises(InputError, match="other texts"):
        list(remaining([record(4), record(5, "u")], {5: digest_of("t")}, 2))


def test_lines_are_appended_and_read_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"n": 0}\n{"n": ')
    with open_log(path) as log:
        log.begin()
        offsets = [log.append(json.dumps({"n": number})) for number in (1, 2)]
        assert [json.loads(line)["n"] for line in log.lines(reversed(offsets))] == [2, 1]
    assert values_of(path) == [{"n": 0}, {"n": 1}, {"n": 2}]
    with open_log(path) as log:
        log.begin(anew=True)
    assert path.read_bytes() == b""
    assert [left.name for left in tmp_path.iterdir()] == ["log"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    places = tmp_path / "log", tmp_path / "about.json"
    with open_log(*places) as log:
        log.begin(SETTINGS)
        log.append("{}")
    with open_log(*places) as log:
        log.check(SETTINGS)
        with pytest.raises(InputError, match=r"other settings: seed was 1 and is 2, new was None and is 3; try harder"):
            log.check({**SETTINGS, "seed": 2, "new": 3}, "try harder")


def test_settings_without_results_bind_nobody(tmp_path: Path) -> None:
    places = tmp_path / "log", tmp_path / "about.json"
    with open_log(*places) as log:
        log.begin(SETTINGS)
        # As if killed here, before anything was done.
        kept = places[1].read_bytes()
    assert not places[1].exists()
    places[1].write_bytes(kept)
    with open_log(*places) as log:
        log.check({"format": "kto"})
        log.begin({"format": "kto"})
        assert log.notes() == {"settings": {"format": "kto"}}


def test_two_processes_cannot_work_on_one_job(tmp_path: Path) -> None:
    with (
        open_log(tmp_path / "log"),
        pytest.raises(InputError, match="another process is at work on"),
        open_log(tmp_path / "log"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_log(tmp_path / "log") as log:
        log.begin()
        log.append("{}")
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"can't write .*: No space left on device; what was done before is kept"):
            log.append("{}")


@pytest.mark.skipif(sys.platform != "linux", reason="a device of Linux")
def test_a_device_is_written_and_not_resumed(tmp_path: Path) -> None:
    with open_log(Path("/dev/null"), Path("/dev/null.json")) as log:
        log.begin(SETTINGS)
        log.append("{}")
    assert not Path("/dev/null.json").exists()
    with open_log(Path("/dev/full")) as log:
        log.begin()
        with pytest.raises(InputError, match="can't write /dev/full: No space"):
            log.append("{}")


def test_the_standard_output_takes_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with open_log(None) as log:
        assert list(log.values()) == []
        log.begin(SETTINGS)
        log.append("{}")
    assert sys.stdout.getvalue() == "{}\n"


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def broken() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert path.read_text() == "old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
