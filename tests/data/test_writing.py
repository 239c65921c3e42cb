"""Messages of any form as rows of a table, and read from it again."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from blender_hf.data.writing import TABLES
from blender_hf.errors import InputError
from blender_hf.modeling.conversations import as_messages, render_messages

pytestmark = pytest.mark.once

PARQUET = TABLES[-1]
COLUMNS = {"prompt": "prompt", "candidates": "candidates"}
USER = {"role": "user", "content": "In Lima?"}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "?"}]}


def called(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def written(*prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    candidates = [
        [{"model": "m", "text": "t", "messages": prompt[-1:], "rank": 1, "score": 1.0}] if n else []
        for n, prompt in enumerate(prompts)
    ]
    rows = [{"prompt": prompt, "candidates": two} for prompt, two in zip(prompts, candidates, strict=True)]
    file = io.BytesIO()
    PARQUET.write(lambda: iter(rows), file, COLUMNS, True)
    return pq.read_table(io.BytesIO(file.getvalue())).to_pylist()


def test_what_is_text_alone_has_two_columns() -> None:
    assert written([USER], [USER, USER]) == [
        {"prompt": [USER], "candidates": []},
        {
            "prompt": [USER, USER],
            "candidates": [{"model": "m", "text": "t", "rank": 1, "score": 1.0, "messages": [USER]}],
        },
    ]


@pytest.mark.parametrize(
    "prompts",
    [
        [[USER, called('{"city": "Lima"}'), {"role": "tool", "tool_call_id": "c1", "content": "17 C"}], [USER]],
        [[USER, called({"city": "Lima"})], [USER, called({"days": 3})]],
        [[PICTURE], [PICTURE, PICTURE]],
        [[{**USER, "name": "bob", "own": {"a": 1}}], [USER]],
    ],
)
def test_messages_are_read_as_they_were_written(prompts: list[list[dict[str, Any]]]) -> None:
    for row, prompt in zip(written(*prompts), prompts, strict=True):
        assert list(as_messages(row["prompt"])) == prompt
    assert list(as_messages(row["candidates"][0]["messages"])) == prompt[-1:]


@pytest.mark.parametrize(
    "prompts",
    [
        [[USER, PICTURE], [USER]],  # texts and parts
        [[USER, called('{"city": "Lima"}')], [USER, called({"city": "Lima"})]],  # JSON and objects
        [[USER, called({"n": 1})], [USER, called({"n": "one"})]],  # an argument of two types
        [[USER, called({})], [USER, called({})]],  # Parquet has no object without keys
        [[PICTURE, called({})], [USER, called({"n": [1, "one"]})]],
    ],
)
def test_what_a_column_can_not_hold_is_said_otherwise(prompts: list[list[dict[str, Any]]]) -> None:
    for row, prompt in zip(written(*prompts), prompts, strict=True):
        assert render_messages(as_messages(row["prompt"])) == render_messages(as_messages(prompt))


def test_what_no_table_can_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"can't be written as Parquet .*write \.jsonl"):
        written([{**USER, "own": 1}], [{**USER, "own": json.loads('{"a": "b"}')}])
