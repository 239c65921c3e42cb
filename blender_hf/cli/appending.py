"""Outputs to which a command that was killed goes on to add lines."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from blender_hf.errors import InputError


@contextlib.contextmanager
def opened(output: Path | None, overwrite: bool) -> Iterator[TextIO]:
    """Open an output to add lines to it, or to begin anew; None is stdout.

    What is added to must be known to be of the same job: its last line is mended, as `mend_last_line` does.

    Raises:
        InputError: If it can't be opened.
    """
    if output is None:
        yield sys.stdout
        return
    if not overwrite:
        # It loads torch, for which `--help` need not wait.
        from blender_hf.data.resuming import mend_last_line

        mend_last_line(output)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(output, "w" if overwrite else "a", encoding="utf-8"))
        except OSError as error:
            raise InputError(f"can't write {output}: {error.strerror}") from None
        yield file
