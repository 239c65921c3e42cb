"""Small jobs: real records, a small real ranker."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from blender_hf import Blender
from blender_hf.data.sources import Entry, Source, read_values
from blender_hf.labelling.settings import LabelSettings, RankingSettings
from tests.conftest import EXAMPLES

N_RECORDS = 11


@dataclass
class CountedSource(Source):
    """Records that are made as they are read, without an end if need be; it knows how far it was read.

    Args:
        values: Makes the records.
    """

    values: Callable[[], Iterator[Any]]
    n_read: int = 0
    local = False

    def identity(self) -> dict[str, Any]:
        return {"name": "counted"}

    def entries(self) -> Iterator[Entry]:
        self.n_read = 0
        for index, value in enumerate(self.values()):
            self.n_read += 1
            yield Entry(index, index + 1, f"record {index + 1}", value)


@dataclass
class Called:
    """How often the models were loaded and asked."""

    loads: int = 0
    items: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as in the processes that this one is compared with: the last bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def values() -> list[dict[str, Any]]:
    """Real records of two to six candidates, with one more as the reference."""
    found = list(islice(read_values(EXAMPLES), N_RECORDS))
    return [
        {
            **{key: value[key] for key in ("id", "prompt")},
            "candidates": value["candidates"][: 2 + index % 5],
            "reference": value["candidates"][-1]["text"],
        }
        for index, value in enumerate(found)
    ]


@pytest.fixture
def data(values: list[dict[str, Any]], tmp_path: Path) -> Path:
    return written(tmp_path / "in.jsonl", values)


@pytest.fixture
def called(blender: Blender, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Lets jobs take the ranker of the session instead of loading one, and counts what is asked."""
    calls = Called()
    rank = RankingSettings.rank

    def load(settings: RankingSettings) -> Blender:
        calls.loads += 1
        return blender

    def counted(self: RankingSettings, blender: Blender, items: Any) -> Any:
        calls.items.extend(item.prompt for item in items)
        return rank(self, blender, items)

    monkeypatch.setattr(RankingSettings, "load", load)
    monkeypatch.setattr(RankingSettings, "rank", counted)
    return calls


def written(path: Path, values: list[Any]) -> Path:
    lines = (value if isinstance(value, str) else json.dumps(value) for value in values)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def small_settings(**changes: Any) -> LabelSettings:
    return LabelSettings(**{"part_size": 2, **changes})


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
