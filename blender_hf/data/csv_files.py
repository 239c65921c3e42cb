"""CSV files, whose cells are texts: "4", "None" and "no" are answers like any other."""

import csv
from collections.abc import Iterator
from pathlib import Path

from blender_hf.errors import InputError

# Most characters of a cell; the default of Python is 131,072, and a prompt may be longer.
csv.field_size_limit(2**31 - 1)


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line and its cells by the names of their columns, lazily.

    Args:
        path: A CSV file in UTF-8 with a line of names. A cell that is missing is empty.

    Returns:
        An iterator; the number is that of the last line of the file that belongs to the row.

    Raises:
        InputError: If it can't be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or [] if name]
            for line in reader:
                yield reader.line_num, {name: line.get(name) or "" for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({type(error).__name__})") from None
