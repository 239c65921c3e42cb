"""Outputs to which a command that was killed goes on to add lines."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from blender_hf.errors import InputError


def checked_output(options: argparse.Namespace) -> Path | None:
    """Return the output of a command, None for stdout.

    Raises:
        InputError: If it is the input, closed or can't be written, or the summary would be printed among the records.
    """
    if options.output is None:
        if sys.stdout is None:
            raise InputError("the standard output is closed: name a file with --output")
        if options.json:
            raise InputError("--json prints the summary on stdout, where the records go; give them an --output")
        return None
    output = Path(options.output)
    if options.file != "-" and output.exists() and output.samefile(options.file):
        raise InputError(f"{output} is the input itself; write to another file")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InputError(f"can't write {output}: it is a folder, or its folder does not exist")
    return output


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
