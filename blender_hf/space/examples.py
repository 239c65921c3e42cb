"""Real prompts with real answers, each of which names its language model."""

from functools import cache
from importlib.resources import as_file, files

from blender_hf.data.records import Record, read_records

TITLE_LENGTH = 88


@cache
def examples() -> dict[str, Record]:
    """Return the records of the bundled file by their titles, the beginnings of their prompts."""
    with as_file(files("blender_hf") / "examples" / "smoke.jsonl") as path:
        return {_title(record.item.prompt): record for record in read_records(path)}


def _title(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
