"""Files that are either whole or not there, whenever the machine stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from blender_hf.errors import InputError

# Ends the name of a file that is being written; what a killed process leaves behind is overwritten.
UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its place, and put it there when it is whole and on the disk.

    Args:
        path: Its place. A file that is there stays until it is replaced, and stays for good if an error is raised.

    Yields:
        The file, open for bytes.

    Raises:
        InputError: If it can't be written.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}; what was done before is kept") from None


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system can (Windows has no such call)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
