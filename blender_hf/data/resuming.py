"""Files of one record a line that a job goes on with after it was killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError

from .records import read_values

BLOCK = 1 << 16


def complete_values(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield how messages name each record of a file, and the record; first cut a last line that was not finished.

    Args:
        path: The file; it need not exist.

    Returns:
        An iterator.

    Raises:
        InputError: If the file can't be read or written, or a finished line is not JSON.
    """
    if not path.exists():
        return
    try:
        _cut_unfinished_line(path)
    except OSError as error:
        raise InputError(f"can't go on with {path}: {error.strerror}") from None
    for _, where, value in read_values(path):
        yield where, value


def _cut_unfinished_line(path: Path) -> None:
    with open(path, "rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)
