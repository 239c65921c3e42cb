"""Records as public data sets have them: every reader makes the same of each, and what is not certain is an error."""

import json
import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blender_hf.data.columns import Columns, columns_from_text
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.records import as_items, record_from_mapping
from blender_hf.data.sources import open_source, read_records
from blender_hf.errors import InputError, InputTypeError
from blender_hf.generation.records import read_prompts
from blender_hf.modeling.record_fields import METADATA, NAMES, holds_answers, is_known, role_of, spelt
from tests.data.shapes import BAD, GOOD, QUESTION, SHAPES, Shape, assistant, user

pytestmark = pytest.mark.once
BASE = {"prompt": QUESTION, "candidates": [GOOD, BAD]}


def labelled(record: Any) -> LabelledPrompt:
    [prompt] = read_labelled([record])
    return prompt


def by_text(prompt: LabelledPrompt, values: Any) -> dict[str, Any]:
    return dict(zip(prompt.item.texts, values, strict=True))


def written(folder: Path, *records: Any) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_reader_makes_the_same_of_a_record(
    shape: Shape, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, shape.record)
    found = [
        *(record.item for record in read_records(path)),
        *(entry.record().item for entry in open_source(path).records()),
        *(prompt.item for prompt in read_labelled(path)),
        *as_items([shape.record]),
    ]
    assert len(found) == 4
    for item in found:
        assert (item.source, set(item.texts)) == (shape.source, shape.candidates)
        models = {candidate.text: candidate.model for candidate in item.candidates}
        assert models == (shape.models or dict.fromkeys(shape.candidates))
    assert not caplog.messages, "no field of a known data set is unknown"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_verdicts_and_scores(shape: Shape) -> None:
    prompt = labelled(shape.record)
    pairs = set()
    for pair in prompt.pairs:
        a, b = prompt.item.texts[pair.a], prompt.item.texts[pair.b]
        if pair.label == 0.5:
            pairs.add((a, b, None))
        else:
            pairs.add((a, b, pair.probability) if pair.label == 1 else (b, a, 1 - pair.probability))
    assert pairs == shape.pairs
    if shape.scores is not None:
        assert {name: by_text(prompt, scores) for name, scores in prompt.scores.items()} == shape.scores


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_generate_reads_the_same_prompt_and_keeps_the_record(shape: Shape, tmp_path: Path) -> None:
    [record] = read_prompts(written(tmp_path, shape.record))
    assert record.item.source == shape.source
    assert record.fields == {key: value for key, value in shape.record.items() if key not in ("id", "candidates")}
    assert record.id == str(shape.record.get("id", 1))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**BASE, "question": "Other?"}, '"prompt" and "question" both say the prompt, and differ; rename or drop'),
        ({**BASE, "messages": [user("Other?")]}, '"messages" and "prompt" are both the prompt, and differ'),
        (
            {**BASE, "instruction": "a", "instructions": "b"},
            '"instruction" and "instructions" both say the instruction',
        ),
        ({**BASE, "system": "a", "system_prompt": "b"}, '"system" and "system_prompt" both say the system'),
        (
            {"messages": [{"role": "system", "content": "a"}, user("q")], "candidates": ["a"], "system": "b"},
            '"system" and the system message of the conversation differ',
        ),
        ({**BASE, "messages": [user(QUESTION), assistant("Hm.")]}, '"messages" and "prompt" are both the prompt'),
        (
            {"prompt": "Other?", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
            '"prompt" is not in the conversations in "chosen" and "rejected", which begin with another prompt',
        ),
        ({**BASE, "context": "Peru is a country."}, '"context" holds a text beside "prompt", and it is not certain'),
        ({**BASE, "history": "Earlier."}, '"history" holds a text beside "prompt"'),
        ({**BASE, "context": ["a passage"]}, '"context" must be chat messages, or a list of pairs'),
        ({"prompt": "p", "responses": ["a", "b"], "completions": ["c", "d"]}, '"responses" and "completions" both say'),
        (
            {"prompt": "p", "response_a": "a", "response_b": "b", "output_1": "c", "output_2": "d"},
            'the answers stand in "response_a", and in "output_1"',
        ),
        ({"prompt": "p", "response_a": "a"}, 'no candidates were found: .* it has "prompt", "response_a"; rename'),
        ({"chosen": "Lima", "rejected": "Cusco"}, 'no prompt was found: .*"question".* it has "chosen", "rejected"'),
        ({"frage": "Hm?", "chosen": "It is a", "rejected": "It is b"}, 'no prompt was found: .* it has "frage"'),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "no prompt was found"),
        ({"prompt": "p", "chosen": "a"}, 'no rejected was found: .*"rejected_response"'),
        (
            {"prompt": "p", "chosen": 3, "rejected": "b"},
            '"chosen" must be a text, a list of texts or chat messages, not int',
        ),
        ({"prompt": "p", "response": "a", "helpfulness": 3}, '"response" is one answer.*nothing to compare'),
        ({"data": [BASE]}, '"data" holds a list of records; write that list itself'),
        ({"question_id": 1, "choices": [{"turns": ["a", "b"]}]}, "no prompt was found"),
        ({"question": "q", "choices": [{"turns": ["a", "b"]}]}, '"turns" has 2 answers, to as many prompts'),
        (
            {"prompt": "p", "candidates": [{"text": "a", "response": "b"}]},
            'candidate 0: "text" and "response" are both',
        ),
        ({"prompt": "p", "candidates": [{"reply": "b"}]}, 'candidate 0: the "text" .* it has reply'),
        ({"prompt": "p", "candidates": ["a", "b"], "models": ["m"]}, "2 candidates and 1 names of models"),
        ({"custom_id": "1", "response": {"body": {"choices": []}}}, "no prompt was found"),
        ({**BASE, "Prompt": "Other?"}, '"Prompt" and "prompt" both say the prompt, and differ; drop one of them'),
        (
            {"inputs": {"a": "b"}, "candidates": ["a"]},
            '"inputs" is an object with the keys "a"; say which .*inputs.KEY',
        ),
        (
            {"prompt": "p", "candidates": "a"},
            r'not str \("candidates"\); if several keys hold one answer each, name them',
        ),
        ({"prompt": "p", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, "say which of its keys .*choices.KEY"),
        (
            {"prompt": "p", "response_a": "a", "response_b": None},
            'the answer "b" of "response_a", "response_b" is null',
        ),
        (
            {"messages": "[{'role': 'user'}\n {'role': 'user'}]", "candidates": ["a"]},
            '"messages" is a text that looks like chat messages, and is neither JSON nor Python',
        ),
        ({"prompt": "p", "candidates": "['a' 'b']"}, "candidates must be a list of strings"),  # as numpy prints them
        (
            {"question": "q", "context": "c", "candidates": ["a"]},
            "below the question with instruction=question,prompt=",
        ),
        ({"prompt": "p", "candidates": [{"choices": [{"text": "a"}, {"text": "b"}]}]}, '"choices" has 2 answers; make'),
    ],
)
def test_what_is_not_certain_is_an_error_that_says_what_to_do(record: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, InputTypeError), match=f"x: .*{message}|x, .*{message}"):
        record_from_mapping(record, where="x", default_id=0)


NUMBERED = {"prompt": "p", "response_a": "a", "response_b": "b"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        *(
            ({**BASE, "pairs": pairs}, message)
            for pairs, message in (
                (None, '"pairs" is null; give a list of {"a", "b", "label"}'),
                ("x", '"pairs" must be a list'),
                ([[0, 1]], "pair 0: a pair must be a mapping .*, not list"),
                ([{"a": 0, "b": 1, "winner": "a"}], 'pair 0: "label" is missing or null: .* it has "a", "b", "winner"'),
                ([{"a": 0, "b": 1, "label": None}], 'pair 0: "label" is missing or null'),
                ([{"a": 0, "b": 1, "label": "1"}], "\"label\" must be a number, not '1'"),
                ([{"a": 0, "b": 1, "label": True}], '"label" must be a number, not True'),
                ([{"a": 0, "b": 1, "label": 1, "votes": ["x"]}], "\"votes\" must be a number, not 'x'"),
                ([{"a": "0", "b": 1, "label": 1}], "must be whole numbers"),
            )
        ),
        ({**BASE, "cmp_results": ["A is better"]}, "cmp_results must be an object .* not list"),
        ({**BASE, "ranks": [1]}, '"ranks" must be a list with one entry for each of the 2 candidates, not 1 entries'),
        ({**BASE, "ratings": "x"}, '"ratings" must be a list with one entry for each of the 2 candidates, not str'),
        ({**BASE, "ratings": ["good", 1]}, "the score good of score is no number"),
        ({**BASE, "chosen": "x", "rejected": "y"}, '"chosen" and "rejected" are not among the answers in "candidates"'),
        ({**NUMBERED, "winner": None}, 'the verdict "winner" is null or empty; leave out records without one'),
        ({**NUMBERED, "winner": "c"}, 'the verdict "winner" is \'c\', .* write "a" or "b" for the better'),
        ({**NUMBERED, "label": 1}, 'the verdict "label" is 1, and it is not certain what that means'),
        ({**NUMBERED, "preference": 0.3}, 'the verdict "preference" is 0.3, and it is not certain'),
        ({**NUMBERED, "preference_strength": 7}, 'the verdict "preference_strength" is 7'),
        ({**NUMBERED, "winner_model_a": 1, "winner_model_b": 1}, "one must be 1, the others 0"),
        (
            {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1},
            'and "safer_response_id" disagree; choose one with --columns winner=better_response_id',
        ),
    ],
)
def test_verdicts_that_can_not_be_read(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"record 0.*{message}"):
        labelled(record)
    assert record_from_mapping(record, where="x", default_id=0).item.texts, "a ranking does not need the verdict"


@pytest.mark.parametrize(
    "record",
    [
        {**BASE, "question": f" {QUESTION}\n"},
        {**BASE, "messages": [user(QUESTION)]},
        {**BASE, "messages": [user(QUESTION), assistant(GOOD)]},  # one of the candidates
        {**BASE, "prompt": [user(QUESTION)], "conversations": [{"from": "human", "value": QUESTION}]},
        {**BASE, "prompt": None, "input": QUESTION},
        {**BASE, "system": "", "instruction": None, "history": [], "context": ""},
        {"instruction": QUESTION, "input": "", "outputs": [GOOD, BAD]},
        {"history": [user(QUESTION)], "candidates": [GOOD, BAD]},
    ],
)
def test_fields_that_agree_or_are_empty_are_fine(record: dict[str, Any]) -> None:
    item = record_from_mapping(record, where="x", default_id=0).item
    assert (item.source, item.texts) == (QUESTION, (GOOD, BAD))


@pytest.mark.parametrize(
    "candidate",
    [
        {"text": "", "tool_calls": [{"name": "look", "arguments": {}}]},
        {"content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        {"text": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"content": {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]}},
    ],
)
def test_calls_beside_the_text_of_a_candidate_are_a_part_of_it(candidate: dict[str, Any]) -> None:
    text = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    assert labelled({**BASE, "candidates": [candidate, BAD]}).item.texts == (text, BAD)
    judged = labelled({"prompt": QUESTION, "chosen": candidate, "rejected": BAD})
    assert set(judged.item.texts) == {text, BAD}


MEANING = {
    "prompt": "Other?",
    "instruction": "Other.",
    "system": "Other.",
    "history": [["Other", "turn"]],
    "candidates": ["Other", BAD],
}


@pytest.mark.parametrize("role", MEANING)
def test_every_name_of_a_field_with_a_meaning_changes_what_is_read(role: str) -> None:
    """The property behind the table: no name of it is read by one and dropped by another."""
    for name in NAMES[role]:
        record = {key: value for key, value in BASE.items() if key != role} | {name: MEANING[role]}
        if name == "context":
            record[name] = [user("Other"), assistant("turn")]
        item = record_from_mapping(record, where=name, default_id=0).item
        assert "Other" in item.source + item.texts[0], name
        assert is_known(name)


READ = ("prompt", "instruction", "system", "messages", "history", "candidates", "chosen", "rejected")


def changes(value: Any) -> Iterator[Any]:
    """Yield a value with each of its texts, in turn, changed."""
    if isinstance(value, str):
        yield f"{value} And more."
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key in ("text", "content", "value", "full_text", "turns", "message", "parts", "choices") or not isinstance(
            key, str
        ):
            for changed in changes(part):
                copy: Any = dict(value) if isinstance(value, dict) else list(value)
                copy[key] = changed
                yield copy


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_has_a_meaning_changes_what_is_read_or_is_refused(shape: Shape) -> None:
    tried = 0
    for key, value in shape.record.items():
        name = spelt(key)
        if role_of(name) not in READ and not (holds_answers(name) and name != "response"):
            continue
        for changed in changes(value):
            if shape.record.get("turn") == 1 and re.search(r"(Sure\?|Yes\.|No\.) And more", str(changed)):
                continue  # what comes after the turn that was judged
            tried += 1
            try:
                item = labelled({**shape.record, key: changed}).item
            except (InputError, InputTypeError):
                continue
            assert (item.source, set(item.texts)) != (shape.source, shape.candidates), (key, changed)
    assert tried


def test_the_table_says_one_thing_of_a_name() -> None:
    names = [name for names in NAMES.values() for name in names]
    assert sorted(names) == sorted(set(names))
    assert not METADATA & set(names)


def test_the_documents_have_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    stated = {role.strip(" `"): tuple(name.strip(" `") for name in names.split(",")) for role, names in rows}
    assert {role: stated.get(role) for role in NAMES} == NAMES


def test_columns_say_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    record = {"frage": "q", "rolle": "s", "gpt": GOOD, "llama": BAD, "prompt": "not this", "besser": "gpt"}
    columns = columns_from_text("prompt=frage,system=rolle,candidates=gpt,llama,winner=besser")
    [prompt] = read_labelled([record], columns=columns)
    assert prompt.item.source == "SYSTEM: s\nUSER: q"
    assert [(candidate.text, candidate.model) for candidate in prompt.item.candidates] == [
        (GOOD, "gpt"),
        (BAD, "llama"),
    ]
    assert [(pair.a, pair.b, pair.label) for pair in prompt.pairs] == [(0, 1, 1.0)]
    assert caplog.messages == ['records: not read: "prompt"']
    pku = {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    [prompt] = read_labelled([pku], columns={"winner": "safer_response_id"})
    assert [pair.label for pair in prompt.pairs] == [0.0]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"promt": "x"}, InputError, "unknown role 'promt'; use one of prompt, instruction, system"),
        ({"prompt": 3}, InputTypeError, "the prompt must be the name of a column, not 3"),
        ({"prompt": ["a", "b"]}, InputError, "the prompt is one column, not a, b"),
        ("prompt", InputTypeError, "columns must be a mapping"),
        ({"candidates": ["a", "b", "a"]}, InputError, "the candidates has a column twice: a, b, a"),
        ({"system": "nowhere"}, InputError, 'records: no record has the column "nowhere"'),
    ],
)
def test_columns_that_mean_nothing(columns: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(read_labelled([BASE], columns=columns))


def test_columns_with_dots_lead_into_objects() -> None:
    record = {"info": {"post": "q"}, "extra": {"texts": [GOOD, BAD]}, "body": {"messages": [user("q")]}}
    for asked in ({"prompt": "info.post"}, {"messages": "body.messages"}):
        [prompt] = read_labelled([record], columns={**asked, "candidates": "extra.texts"})
        assert (prompt.item.source, prompt.item.texts) == ("q", (GOOD, BAD))
    with pytest.raises(InputError, match=r'no prompt was found.* and no "info.title", which --columns states'):
        list(read_labelled([record], columns={"prompt": "info.title", "candidates": "extra.texts"}))


@pytest.mark.parametrize("text", ["", "prompt", "=x", "prompt=", "prompt=a,"])
def test_texts_that_name_no_columns(text: str) -> None:
    with pytest.raises(InputError, match=r"ROLE=COLUMN|unknown role ''"):
        columns_from_text(text)


def test_what_is_not_read_is_listed_once_per_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, {**BASE, "foo": 1, "id": 1}, {**BASE, "bar": 2, "source": "s", "response_c": "?"})
    columns = Columns()
    for _ in range(2):
        assert len(list(read_records(path, columns))) == 2
    assert caplog.messages == [f'{path}: not read: "foo", "bar", "response_c"']
    assert caplog.records[0].levelno == logging.WARNING


VALUES: list[Any] = [
    *(None, 0, 1, -1, 2.5, float("nan"), 10**400, True, "", "x", "[1]", "{", "null", "\ud800"),
    *([], {}, [[]], [{}], ["a"], ["a", "b"], [None], [1, 2], {"a": 1}, [{1: 2}], [["a", "b"]], {"x,y": "A"}),
    *([{"a": 0, "b": 1, "label": "1"}], [{"text": None}], [{"text": "a", "rank": "x"}], {"body": {"choices": [1]}}),
    *(
        [user("q")],
        [{"role": "user"}],
        {"role": [], "content": 1},
        [{"from": [], "value": 1}],
        {"from": "x", "value": 1},
    ),
    [{"text": "a", "score": [1]}, {"text": "b", "scores": "x"}],
]
KEYS = [name for names in NAMES.values() for name in names] + [
    "winner_tie",
    "turn",
    "response_a",
    "response_b",
    "score_a",
]


UNHELPFUL = re.compile("KeyError|object is not|attribute|unhashable|subscriptable")


def refusal(reader: Callable[[Any], Any], record: Any) -> str | None:
    """Return why a record is refused, None if it is read; any other error than ours is raised."""
    try:
        reader(record)
    except (InputError, InputTypeError) as error:
        return str(error)
    return None


def test_any_value_at_any_key_is_read_or_refused_in_plain_words() -> None:
    rng = random.Random(0)
    bases = [shape.record for shape in SHAPES.values()] + [{**BASE, "pairs": [{"a": 0, "b": 1, "label": 1}]}]
    reasons = []
    for _ in range(8_000):
        record = dict(rng.choice(bases))
        for _ in range(rng.randint(1, 3)):
            record[rng.choice([*record, *KEYS])] = rng.choice(VALUES)
        reasons += [
            refusal(lambda r: record_from_mapping(r, where="x", default_id=0), record),
            refusal(labelled, record),
        ]
    assert 1000 < reasons.count(None) < 15_000
    assert not [reason for reason in reasons if reason and UNHELPFUL.search(reason)]
