"""The prompts of a batch: from a file that is uploaded, or from a dataset on the Hub."""

import re
from itertools import islice
from pathlib import Path

from blender_hf.data.columns import Columns
from blender_hf.data.files import SUFFIXES, unpacked_size
from blender_hf.data.records import Record
from blender_hf.data.sources import HubSource, read_records
from blender_hf.errors import BlenderError, InputError

from .settings import DEFAULT_LIMITS, Limits, check_batch

# An id of the Hub, and nothing that could be a place on the server.
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_upload(path: str | Path, limits: Limits = DEFAULT_LIMITS, columns: Columns | None = None) -> list[Record]:
    """Read the prompts with their candidates of a file; `columns` keeps which of its keys were not read."""
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path.name}: only {', '.join(SUFFIXES)} files are read")
    try:
        most = limits.file_bytes
        if path.stat().st_size > most or unpacked_size(path, most) > most:
            raise InputError(f"{path.name} is larger than {most // 1_000_000} MB; split it")
        # One more than are ranked, to know that there are more.
        records = list(islice(read_records(path, columns), limits.prompts + 1))
        check_batch([record.item for record in records], limits)
    except (BlenderError, TypeError) as error:
        # Visitors must not learn where the server keeps the file.
        raise InputError(str(error).replace(str(path), path.name)) from None
    return records


def read_data_set(
    name: str, split: str | None = None, limits: Limits = DEFAULT_LIMITS, columns: Columns | None = None
) -> list[Record]:
    """Read the first prompts of a data set on the Hub, as many as a batch may have; see `read_upload`."""
    name, split = name.strip(), (split or "").strip() or None
    # A folder of that name would be opened instead, and visitors must not learn where the server keeps its files.
    if not ID.fullmatch(name) or Path(name).exists():
        raise InputError(f"{name!r} is no id of a data set on the Hub; ids are like org/name")
    source = HubSource(name, split=split, columns=columns or Columns())
    records = [entry.record() for entry in islice(source.entries(), limits.prompts)]
    source.columns.report(source.title)
    check_batch([record.item for record in records], limits)
    return records
