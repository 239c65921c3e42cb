import errno
import json
from pathlib import Path

import pytest

from blender_hf.errors import InputError
from blender_hf.labelling.durable import replacing
from blender_hf.labelling.journal import Part, PartSummary, open_journal, total

SETTINGS = {"format": "dpo", "seed": 1}


def part(index: int, *lines: str) -> Part:
    bad = [{"line": index, "reason": "r"}]
    return Part(PartSummary(index, 3, len(lines), {"tie": 1}, bad), "".join(line + "\n" for line in lines).encode())


def test_parts_are_put_in_order_and_kept(tmp_path: Path) -> None:
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        for index, lines in ((2, ["e"]), (0, ["a", "b"]), (1, [])):
            journal.write(part(index, *lines))
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        assert sorted(journal.summaries) == [0, 1, 2]
        assert list(journal.lines()) == [b"a\n", b"b\n", b"e\n"]
        assert [line["line"] for line in journal.bad()] == [0, 1, 2]
        assert total(journal.summaries.values()) == {"records": 9, "rows": 3, "bad": 3, "filtered": {"tie": 3}}
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        journal.write(part(0))
    with (
        open_journal(tmp_path / "parts") as journal,
        pytest.raises(InputError, match=r"other settings: seed was 1 and is 2, new was None and is 3; .*--restart"),
    ):
        journal.begin({**SETTINGS, "seed": 2, "new": 3})


def test_settings_without_parts_bind_nobody(tmp_path: Path) -> None:
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        # As if killed here, before anything was done.
        kept = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    assert not (tmp_path / "parts").exists()
    (tmp_path / "parts").mkdir()
    for name, content in kept.items():
        (tmp_path / "parts" / name).write_bytes(content)
    with open_journal(tmp_path / "parts") as journal:
        journal.begin({"format": "kto"})
        assert json.loads((journal.folder / "settings.json").read_bytes()) == {"format": "kto"}


def test_parts_without_settings_are_thrown_away(tmp_path: Path) -> None:
    """They are left of a journal that was being thrown away when the process was killed."""
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        journal.write(part(0, "old"))
    (tmp_path / "parts" / "settings.json").unlink()
    with open_journal(tmp_path / "parts") as journal:
        journal.begin({"format": "kto"})
        assert journal.summaries == {}
        assert list(journal.lines()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]\n", b'{"index": 0}\n', b"short"])
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: bytes) -> None:
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        journal.write(part(0, "a"))
        journal.write(part(1, "b"))
    path = sorted((tmp_path / "parts").glob("*.part"))[0]
    path.write_bytes(path.read_bytes()[:-1] if damage == b"short" else damage)
    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        assert sorted(journal.summaries) == [1]


def test_two_processes_cannot_work_on_one_job(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path / "parts"),
        pytest.raises(InputError, match="another process is at work on"),
        open_journal(tmp_path / "parts"),
    ):
        pass


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_journal(tmp_path / "parts") as journal:
        journal.begin(SETTINGS)
        journal.write(part(0, "a"))
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"can't write .*: No space left on device; what was done before is kept"):
            journal.write(part(1, "b"))
        assert sorted(journal.summaries) == [0]


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
