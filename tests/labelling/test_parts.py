"""The parts of a job in its log."""

from pathlib import Path

import pytest

from blender_hf.data.jobs import open_log
from blender_hf.labelling.parts import Part, PartLog


def part(index: int, *rows: str) -> Part:
    return Part(index, 3, [{"text": row} for row in rows], {"tie": 1}, [{"line": index, "reason": "r"}])


def write(path: Path, *parts: Part) -> None:
    with open_log(path) as log:
        log.begin()
        found = PartLog(log)
        for one in parts:
            found.add(one)


def test_parts_are_put_in_order_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "log", part(2, "e"), part(0, "a", "b"), part(1))
    with open_log(tmp_path / "log") as log:
        found = PartLog(log)
        assert found.done == {0, 1, 2}
        assert [row["text"] for row in found.rows()] == ["a", "b", "e"]
        assert [line["line"] for line in found.bad()] == [0, 1, 2]
        assert found.totals == {"records": 9, "rows": 3, "bad": 3, "unread": 0, "filtered": {"tie": 3}}
        log.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"index": 0}', b"\0\0\0", b"short"])
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: bytes) -> None:
    write(tmp_path / "log", part(0, "a"), part(1, "b"))
    first, second = (tmp_path / "log").read_bytes().splitlines()
    (tmp_path / "log").write_bytes(b"\n".join([first[:-1] if damage == b"short" else damage, second, b""]))
    with open_log(tmp_path / "log") as log:
        assert PartLog(log).done == {1}
    write(tmp_path / "log", part(0, "c"))
    with open_log(tmp_path / "log") as log:
        assert [row["text"] for row in PartLog(log).rows()] == ["c", "b"]
