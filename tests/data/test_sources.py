"""The same records from every kind of source, one by one, and errors that name the row."""

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blender_hf.data import files
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.sources import FileSource, HubSource, SavedSource, Source, open_source, read_values
from blender_hf.errors import InputError, InputTypeError
from tests.conftest import EXAMPLES
from tests.labelling.conftest import written


@pytest.fixture(scope="module")
def values() -> list[dict[str, Any]]:
    names = ("id", "prompt", "candidates")
    return [{name: value[name] for name in names} for value in islice(read_values(EXAMPLES), 11)]


def records(source: Source) -> list[Any]:
    return [entry.record() for entry in source.entries()]


def same(source: Source, values: list[dict[str, Any]]) -> None:
    found = records(source)
    assert [record.id for record in found] == [value["id"] for value in values]
    assert [record.item.prompt for record in found] == [value["prompt"] for value in values]
    for record, value in zip(found, values, strict=True):
        assert [(c.text, c.model) for c in record.item.candidates] == [
            (c["text"], c["model"]) for c in value["candidates"]
        ]


def test_all_sources_give_the_same(values: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = written(tmp_path / "in.jsonl", values)
    same(open_source(lines), values)
    compressed = tmp_path / "in.jsonl.gz"
    compressed.write_bytes(gzip.compress(lines.read_bytes()))
    same(open_source(compressed), values)
    table = pa.Table.from_pylist(values)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    same(open_source(tmp_path / "in.parquet"), values)
    datasets.Dataset.from_list(values).save_to_disk(tmp_path / "saved")
    same(open_source(tmp_path / "saved"), values)
    (tmp_path / "in.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    same(open_source(tmp_path / "in.json"), values)
    same(open_source(lines.rename(tmp_path / "lines.json")), values)
    with pa.OSFile(str(tmp_path / "in.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    same(open_source(tmp_path / "in.arrow"), values)
    # What the Hub sends is read as `datasets` reads any repository; a folder stands for one.
    (tmp_path / "repository").mkdir()
    written(tmp_path / "repository" / "train.jsonl", values)
    same(HubSource(str(tmp_path / "repository"), split="train"), values)


def test_columns_that_a_table_leaves_empty_are_not_there(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    rows = [
        {"id": None, "prompt": "p", "messages": None, "instruction": None, "candidates": ["a"]},
        {"id": "x", "prompt": None, "messages": chat, "instruction": None, "candidates": ["b"]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    first, second = records(open_source(tmp_path / "in.parquet"))
    assert (first.id, first.item.prompt) == ("1", "p")
    assert (second.id, second.item.prompt) == ("x", chat)


def test_splits(values: list[dict[str, Any]], tmp_path: Path) -> None:
    folds = {"train": datasets.Dataset.from_list(values[:3]), "test": datasets.Dataset.from_list(values[3:5])}
    datasets.DatasetDict(folds).save_to_disk(tmp_path / "saved")
    same(open_source(tmp_path / "saved", split="test"), values[3:5])
    with pytest.raises(InputError, match="has the splits train, test, not None; choose one with --split"):
        records(open_source(tmp_path / "saved"))


def test_a_copy_is_the_same_and_an_edited_file_is_not(tmp_path: Path) -> None:
    one, copy, other = (written(tmp_path / name, [value]) for name, value in (("a", "{}"), ("b", "{}"), ("c", "[]")))
    assert open_source(one).identity() == open_source(copy).identity() != open_source(other).identity()


def test_a_saved_data_set_has_an_identity(values: list[dict[str, Any]], tmp_path: Path) -> None:
    datasets.Dataset.from_list(values).save_to_disk(tmp_path / "saved")
    assert open_source(tmp_path / "saved").identity() == open_source(tmp_path / "saved").identity()


def test_kinds() -> None:
    assert isinstance(open_source(__file__), FileSource)
    assert isinstance(open_source(Path(__file__).parent), SavedSource)
    assert open_source("org/name", split="train", subset="en", revision="v1") == HubSource(
        "org/name", "en", "train", "v1"
    )
    assert open_source(__file__).local
    assert not open_source("org/name").local


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("missing.jsonl", {}, "can't read missing.jsonl: there is no such file"),
        ("some/missing.parquet", {}, "can't read some/missing.parquet"),
        (__file__, {"split": "train"}, "has no split: that is an option for datasets"),
        (str(Path(__file__).parent), {"subset": "x"}, "has no subset"),
    ],
)
def test_what_is_no_source(data: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(data, **options)


def test_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("plain text")
    with pytest.raises(InputError, match=r"can't read .*no.parquet"):
        records(open_source(tmp_path / "no.parquet"))
    with pytest.raises(InputError, match=r"can't read .*tests/data"):
        records(open_source(Path(__file__).parent))


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"can't read no-org/no-data: .*\(give a file"):
        records(open_source("no-org/no-data"))


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"prompt": "p", "candida', InputError, "in.jsonl:2: not valid JSON"),
        ('{"prompt": "p", "candidates": [1]}', InputTypeError, "in.jsonl:2, candidate 0"),
        (json.dumps({"prompt": "\ud83d", "candidates": ["a"]}), InputError, "in.jsonl:2: .*lone surrogate"),
        (json.dumps({"prompt": "p", "candidates": ["\ude00"]}), InputError, "in.jsonl:2: .*lone surrogate"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    good = '{"prompt": "p", "candidates": ["a"]}'
    entries = list(open_source(written(tmp_path / "in.jsonl", [good, line, good])).entries())
    with pytest.raises(error, match=message):
        entries[1].record()
    assert entries[2].record().id == "3"


def test_parquet_is_read_a_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PARQUET_ROWS", 2)
    asked: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, size: int) -> Any:
        for batch in iter_batches(self, size):
            asked.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows = [{"prompt": str(n), "candidates": ["a"]} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    entries = open_source(tmp_path / "in.parquet").entries()
    assert next(entries).where.endswith("in.parquet, row 1")
    assert asked == [2]


def csv_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_cells_are_texts_whatever_they_look_like(tmp_path: Path) -> None:
    """`datasets` takes them for numbers and missing values, and one such cell for a whole column."""
    path = csv_file(
        tmp_path, "prompt,chosen,rejected,score_chosen\n2+2?,4,5,8.5\nMissing?,None,False,\nYes?,N/A,null,7\n"
    )
    prompts = list(read_labelled(path))
    assert [set(prompt.item.texts) for prompt in prompts] == [{"4", "5"}, {"None", "False"}, {"N/A", "null"}]
    assert [set(prompt.scores.get("score", ())) for prompt in prompts] == [{8.5, None}, set(), {7.0, None}]


def test_a_cell_may_be_long_and_have_several_lines(tmp_path: Path) -> None:
    long = "word " * 50_000
    path = csv_file(tmp_path, f'\ufeffprompt,chosen\n"a\n""b""",{long}\nc\n')
    assert [(number, row) for number, _, row in files.read_file(path)] == [
        (3, {"prompt": 'a\n"b"', "chosen": long}),
        (4, {"prompt": "c", "chosen": None}),
    ]


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        list(files.read_file(csv_file(tmp_path, b"prompt,chosen\n\xff,a\n")))
    path = csv_file(tmp_path, "prompt,chosen,rejected\np,,b\n")
    with pytest.raises(InputError, match=r"data\.csv:2: .*empty"):
        list(read_labelled(path))


def test_a_stream_is_read_once() -> None:
    assert not open_source("-").rereadable
    assert open_source(__file__).rereadable
