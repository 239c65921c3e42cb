"""CSV files: every cell is a text."""

from pathlib import Path

import pytest

from blender_hf import InputError
from blender_hf.data.csv_files import read_csv
from blender_hf.data.labelled_reading import read_labelled


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_cells_are_texts_whatever_they_look_like(tmp_path: Path) -> None:
    """`datasets` takes them for numbers and missing values, and one such cell for a whole column."""
    path = written(
        tmp_path, "prompt,chosen,rejected,score_chosen\n2+2?,4,5,8.5\nMissing?,None,False,\nYes?,N/A,null,7\n"
    )
    prompts = list(read_labelled(path))
    assert [set(prompt.item.texts) for prompt in prompts] == [{"4", "5"}, {"None", "False"}, {"N/A", "null"}]
    assert [set(prompt.scores.get("score", ())) for prompt in prompts] == [{8.5, None}, set(), {7.0, None}]


def test_a_cell_may_be_long_and_have_several_lines(tmp_path: Path) -> None:
    long = "word " * 50_000
    path = written(tmp_path, f'\ufeffprompt,chosen\n"a\n""b""",{long}\nc\n')
    assert list(read_csv(path)) == [
        (3, {"prompt": 'a\n"b"', "chosen": long}),
        (4, {"prompt": "c", "chosen": ""}),
    ]


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        list(read_csv(written(tmp_path, b"prompt,chosen\n\xff,a\n")))
    path = written(tmp_path, "prompt,chosen,rejected\np,,b\n")
    with pytest.raises(InputError, match=r"data\.csv:2: .*empty"):
        list(read_labelled(path))
