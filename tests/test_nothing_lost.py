"""Nothing that has a meaning is lost: what is accepted is read, and what is refused leaves nothing behind.

Records are generated over the whole table of names: any names of the roles, together, with texts and conversations in
the forms that people have.
"""

import json
from collections.abc import Callable, Collection
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from blender_hf.cli.main import main
from blender_hf.data.columns import Columns
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.records import record_from_mapping
from blender_hf.errors import InputError, InputTypeError
from blender_hf.generation.prompts import prompt_item_from_record
from blender_hf.modeling.record_fields import METADATA, METADATA_FORMS, NAMES

pytestmark = pytest.mark.once
EXAMPLES = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

# What a change puts in place of a text; no generated text has it.
CHANGED = "changed"
TEXTS = st.text("abc ?\n", min_size=1, max_size=8).map(lambda text: f"{text}.")
ARGUMENTS = st.dictionaries(st.sampled_from(["city", "unit"]), TEXTS, max_size=2)
CALLS = st.builds(
    lambda name, arguments, coded: {
        "type": "function",
        "function": {"name": f"tool_{name}", "arguments": json.dumps(arguments) if coded else arguments},
    },
    st.sampled_from("abc"),
    ARGUMENTS,
    st.booleans(),
)
PARTS = st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXTS), min_size=1, max_size=2)
USER = st.builds(lambda content: {"role": "user", "content": content}, TEXTS | PARTS)
ASSISTANT = st.builds(lambda content: {"role": "assistant", "content": content}, TEXTS | PARTS)
CALLING = st.builds(
    lambda content, calls: {"role": "assistant", "content": content, "tool_calls": calls},
    st.none() | TEXTS,
    st.lists(CALLS, min_size=1, max_size=2),
)
TOOL = st.builds(lambda content: {"role": "tool", "content": content}, TEXTS)
CONVERSATIONS = st.builds(
    lambda before, turns, last: [*before, *turns, last],
    st.lists(st.builds(lambda text: {"role": "system", "content": text}, TEXTS), max_size=1),
    st.lists(USER | ASSISTANT | CALLING | TOOL, max_size=3),
    USER,
)
CANDIDATES = st.lists(
    TEXTS | st.builds(lambda text, model: {"text": text, "model": model}, TEXTS, TEXTS) | CALLING,
    min_size=2,
    max_size=3,
    unique_by=repr,
)
VALUES = {
    "prompt": TEXTS | CONVERSATIONS,
    "messages": CONVERSATIONS,
    "history": st.lists(USER | ASSISTANT, min_size=1, max_size=3),
    "system": TEXTS,
    "instruction": TEXTS,
    "candidates": CANDIDATES,
    "chosen": TEXTS | CALLING | st.lists(CALLING | TOOL | ASSISTANT, min_size=1, max_size=2),
    "rejected": TEXTS | CALLING | st.lists(CALLING | TOOL | ASSISTANT, min_size=1, max_size=2),
}
# What stands beside: some of it is about the record, some nobody knows.
BESIDE = st.dictionaries(st.sampled_from(["id", "source", "foo", "style", "prompt_id"]), TEXTS, max_size=2)


@st.composite
def records(draw: st.DrawFn, sides: bool = False) -> dict[str, Any]:
    answers = ["chosen", "rejected"] if sides else ["candidates"]
    asked = draw(st.lists(st.sampled_from(["prompt", "messages", "instruction"]), min_size=1, max_size=2, unique=True))
    beside = draw(st.lists(st.sampled_from(["system", "history", "instruction"]), max_size=2, unique=True))
    record = {draw(st.sampled_from(NAMES[role])): draw(VALUES[role]) for role in dict.fromkeys([*asked, *beside])}
    record |= {draw(st.sampled_from(NAMES[role])): draw(VALUES[role]) for role in answers}
    record = draw(BESIDE) | record
    return {key: record[key] for key in draw(st.permutations(list(record)))}


def changes(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the value with each of its texts changed, one at a time, with the place of the change."""
    if isinstance(value, str):
        return [(place, f"{CHANGED} {value}" if not value.startswith("{") else json.dumps({CHANGED: 1}))]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, one in inner:
        if key in ("role", "type"):
            continue
        for where, changed in changes(one, (*place, key)):
            copy = {**value} if isinstance(value, dict) else [*value]
            copy[key] = changed
            found.append((where, copy))
    return found


def check_each_change(record: dict[str, Any], read: Callable[[dict[str, Any]], tuple[Any, Collection[str]]]) -> None:
    """Check that each text of an accepted record is read, reported as not read, or says nothing to a model."""
    try:
        found, unread = read(record)
    except (InputError, InputTypeError):
        assume(False)
    for place, changed in changes(record):
        key = place[0]
        if key in unread or key in METADATA or key in NAMES["id"] + NAMES["source"] or METADATA_FORMS.fullmatch(key):
            continue
        try:
            other, _ = read(changed)
        except (InputError, InputTypeError):
            continue
        assert other != found, f"{place} changes nothing of {record}"


def as_ranker(record: dict[str, Any]) -> tuple[Any, Collection[str]]:
    columns = Columns()
    item = record_from_mapping(record, where="x", default_id=0, columns=columns).item
    return (item.source, item.candidates), columns.unread


@EXAMPLES
@given(records())
def test_a_ranker_reads_every_field_that_has_a_meaning(record: dict[str, Any]) -> None:
    check_each_change(record, as_ranker)


@EXAMPLES
@given(records(sides=True))
def test_training_and_evaluation_read_every_field_that_has_a_meaning(record: dict[str, Any]) -> None:
    def read(record: dict[str, Any]) -> tuple[Any, Collection[str]]:
        [prompt] = read_labelled([record])
        columns = Columns()
        columns.fields(record, "x")
        # The place of the chosen answer depends on a hash of the texts.
        [pair] = prompt.pairs
        better = pair.a if pair.label == 1 else pair.b
        texts = prompt.item.texts
        return (prompt.item.source, texts[better], texts[1 - better]), columns.unread

    check_each_change(record, read)


@EXAMPLES
@given(records())
def test_a_generator_is_sent_every_field_that_has_a_meaning(record: dict[str, Any]) -> None:
    def read(record: dict[str, Any]) -> tuple[Any, Collection[str]]:
        columns = Columns()
        _, item = prompt_item_from_record(record, where="x", columns=columns)
        return (item.messages, item.candidates), columns.unread

    check_each_change(record, read)


COMMANDS = {
    "rank": ("--ranker", "nowhere/none"),
    "fuse": ("--fuser", "nowhere/none"),
    "blend": ("--ranker", "nowhere/none"),
    "label": ("--ranker", "nowhere/none"),
    "generate": ("--llm", "nowhere/none"),
    "annotate": ("--judge", "nowhere/none"),
}


@settings(EXAMPLES, max_examples=60)
@given(
    st.lists(records(), max_size=2),
    records(),
    st.sampled_from(["prompt", "candidates", "messages"]),
    st.sampled_from(list(COMMANDS)),
    st.sampled_from(["jsonl", "jsonl.gz"]),
)
def test_what_is_refused_leaves_no_output(
    others: list[dict[str, Any]], record: dict[str, Any], role: str, command: str, suffix: str
) -> None:
    bad = {**record, NAMES[role][0]: 3}
    with TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.jsonl", Path(folder) / f"out.{suffix}"
        source.write_text("".join(f"{json.dumps(one)}\n" for one in [*others, bad]), encoding="utf-8")
        with redirect_stderr(StringIO()) as err:
            assert main([command, str(source), "--output", str(output), "--quiet", *COMMANDS[command]]) == 2
        assert "in.jsonl:" in err.getvalue()
        assert list(Path(folder).iterdir()) == [source]
