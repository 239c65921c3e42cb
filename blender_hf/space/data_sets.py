"""Data sets on the Hub as batches: the first prompts of one, streamed."""

import re
from itertools import islice
from pathlib import Path

from blender_hf.data.records import Record
from blender_hf.errors import InputError
from blender_hf.labelling.sources import HubSource

from .limits import DEFAULT_LIMITS, Limits, check_batch

# An id of the Hub, and nothing that could be a place on the server.
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_data_set(name: str, split: str | None = None, limits: Limits = DEFAULT_LIMITS) -> list[Record]:
    """Read the first prompts of a data set on the Hub, as many as a batch may have.

    Args:
        name: Its id, `org/name`; its rows are in any format of `blender_hf.data.records`.
        split: Its split; may be left out if there is one.
        limits: The largest batch that is taken.

    Returns:
        The records.

    Raises:
        InputError: If the name is no id, the data set can't be read, or a row can't be used.
    """
    name, split = name.strip(), (split or "").strip() or None
    # A folder of that name would be opened instead, and where the server keeps its files is nobody's business.
    if not ID.fullmatch(name) or Path(name).exists():
        raise InputError(f"{name!r} is no id of a data set on the Hub; ids are like org/name")
    records = [entry.record() for entry in islice(HubSource(name, split=split).entries(), limits.prompts)]
    check_batch([record.item for record in records], limits)
    return records
