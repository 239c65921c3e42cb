"""Every format of labelled data gives the same prompts."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from blender_hf.data.labelled import LabelledPrompt, gold_scores, win_shares
from blender_hf.data.labelled_formats import LabelledFile, read_labelled
from blender_hf.errors import InputError, InputTypeError
from tests.evaluation.samples import chosen_and_rejected, mixinstruct_records


def read(*records: dict[str, Any]) -> list[LabelledPrompt]:
    return list(read_labelled(records))


def test_our_format() -> None:
    record = {
        "id": "x",
        "source": "s",
        "lang": "ja",
        "prompt": "USER: p\nASSISTANT: q\nUSER: r",
        "messages": [{"role": r, "content": c} for r, c in (("user", "p"), ("assistant", "q"), ("user", "r"))],
        "candidates": [{"text": "a", "score": 3}, {"text": "b", "model": "m", "score": 1.5}, {"text": "c", "score": 0}],
        "pairs": [{"a": 0, "b": 1, "label": 1, "pref_b": 0.2}, {"a": 2, "b": 0, "label": 0}],
        "reference": "good",
    }
    [prompt] = read(record)
    assert (prompt.id, prompt.source, prompt.lang, prompt.reference) == ("x", "s", "ja", "good")
    assert prompt.item.source == record["prompt"]
    assert [*prompt.item.messages] == record["messages"]
    assert [(p.a, p.b, p.label, p.probability) for p in prompt.pairs] == [(0, 1, 1.0, 0.8), (2, 0, 0.5, 0.5)]
    assert gold_scores(prompt) == (3.0, 1.5, 0.0)
    assert win_shares(prompt) == (0.75, 0.0, 0.5)


@pytest.mark.parametrize(
    ("pair", "label", "probability"),
    [
        ({"label": 1}, 1.0, 1.0),
        ({"label": -1, "pref_b": 0.9}, 0.0, 0.1),
        ({"label": 1, "votes": [1, 1, 0, -1]}, 1.0, 0.625),
        ({"label": 0, "votes": None, "pref_b": None}, 0.5, 0.5),
    ],
)
def test_verdicts_and_soft_labels(pair: dict[str, Any], label: float, probability: float) -> None:
    [prompt] = read({"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0, "b": 1, **pair}]})
    assert (prompt.pairs[0].label, prompt.pairs[0].probability) == (label, pytest.approx(probability))


@pytest.mark.parametrize("content", [None, "", "Wait."])
@pytest.mark.parametrize("as_text", [False, True])
def test_answers_that_are_tool_calls(content: str | None, as_text: bool) -> None:
    """With null it was an error, and with an empty content both were the same text, which counted as a pair."""
    question = {"role": "user", "content": "What is the weather in Lima?"}
    sides = {}
    for side, name, arguments in (("chosen", "weather", {"city": "Lima"}), ("rejected", "hen", {})):
        stated = json.dumps(arguments) if as_text else arguments
        call = {"type": "function", "function": {"name": name, "arguments": stated}}
        sides[side] = [{"role": "assistant", "content": content, "tool_calls": [call]}]
    [prompt] = read({"prompt": [question], **sides})
    [whole] = read({side: [question, *answer] for side, answer in sides.items()})
    assert prompt.item.texts == whole.item.texts
    assert len(set(prompt.item.texts)) == 2
    (pair,) = prompt.pairs
    better = prompt.item.candidates[pair.a if pair.label == 1 else pair.b]
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Lima"}}</tool_call>'
    assert better.text == (f"{content}\n{call}" if content else call)
    assert better.messages == tuple(sides["chosen"])
    with pytest.raises(InputTypeError, match=r"record 0, rejected: .*not None \(message 0, assistant\)"):
        read({"prompt": [question], **sides, "rejected": [{"role": "assistant", "content": None}]})


@pytest.mark.parametrize("on_the_hub", [False, True])
def test_mixinstruct(on_the_hub: bool) -> None:
    records = mixinstruct_records(on_the_hub=on_the_hub)
    prompts = read(*records)
    first = prompts[0]
    assert first.item.source == f"Answer the question.\n{records[0]['input']}"
    assert (first.reference, first.source) == (records[0]["output"], "mix")
    assert set(first.scores) == {"rougeL", "chrf"}
    assert len(first.pairs) == 15
    assert {pair.tie_is_good for prompt in prompts for pair in prompt.pairs} == {True, False, None}
    assert gold_scores(first) is not None
    assert gold_scores(first, "chrf") == first.scores["chrf"]


@pytest.mark.parametrize("value", [None, "null", {}, "{}"])
def test_mixinstruct_without_verdicts(value: object) -> None:
    [prompt] = read({**mixinstruct_records()[0], "cmp_results": value})
    assert prompt.pairs == ()


def test_python_in_old_copies_of_mixinstruct() -> None:
    record = mixinstruct_records()[0]
    [prompt] = read({**record, "cmp_results": str(record["cmp_results"])})
    assert len(prompt.pairs) == 15


def better(prompt: LabelledPrompt) -> tuple[set[str], set[str]]:
    """Return the texts that won, and those that lost."""
    won, lost = set(), set()
    for pair in prompt.pairs:
        first, second = (pair.a, pair.b) if pair.label == 1 else (pair.b, pair.a)
        won.add(prompt.item.texts[first])
        lost.add(prompt.item.texts[second])
    return won, lost


USER = {"role": "user", "content": "Sky?"}
BLUE, GREEN = ({"role": "assistant", "content": f"It is {colour}."} for colour in ("blue", "green"))


@pytest.mark.parametrize(
    ("record", "prompt", "chosen", "rejected"),
    [
        ({"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}, "Sky?", {"Blue."}, {"Green."}),
        ({"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}, "Sky?", {"It is blue."}, {"It is green."}),
        ({"chosen": [USER, BLUE], "rejected": [USER, GREEN]}, "Sky?", {"It is blue."}, {"It is green."}),
        (
            {"prompt": "Sky?", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
            "Sky?",
            {"It is blue."},
            {"It is green."},
        ),
        ({"prompt": "Sky?", "chosen": [BLUE], "rejected": [GREEN]}, "Sky?", {"It is blue."}, {"It is green."}),
        (
            {"prompt": "Sky?", "chosen": ["Blue."], "rejected": ["Green.", "Red.", "Grey."], "subset": "Factuality"},
            "Sky?",
            {"Blue."},
            {"Green.", "Red.", "Grey."},
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Sky?\n\nAssistant: It is blue.",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Sky?\n\nAssistant: It is green.",
            },
            "USER: Hi\nASSISTANT: Hello.\nUSER: Sky?",
            {"It is blue."},
            {"It is green."},
        ),
        ({"chosen": "The sky is blue.", "rejected": "The sky is blond."}, "The sky is", {"blue."}, {"blond."}),
    ],
    ids=["texts", "messages", "implicit", "text and conversation", "text and messages", "lists", "hh", "implicit text"],
)
def test_chosen_and_rejected(record: dict[str, Any], prompt: str, chosen: set[str], rejected: set[str]) -> None:
    [found] = read(record)
    assert found.item.source == prompt
    assert better(found) == (chosen, rejected)
    assert found.source == record.get("subset", "records")


def test_the_place_of_the_chosen_tells_nothing() -> None:
    records = [{"prompt": str(n), "chosen": "good", "rejected": "bad"} for n in range(60)]
    first = [prompt.item.texts[0] == "good" for prompt in read(*records)]
    assert 15 < sum(first) < 45
    assert first == [prompt.item.texts[0] == "good" for prompt in read(*records)]


def test_scores_of_chosen_and_rejected_stay_with_them() -> None:
    records = [
        {"prompt": str(n), "chosen": "good", "rejected": "bad", "score_chosen": 9, "score_rejected": 2}
        for n in range(9)
    ]
    for prompt in read(*records):
        assert dict(zip(prompt.item.texts, prompt.scores["score"], strict=True)) == {"good": 9.0, "bad": 2.0}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"prompt": "p"},
            'record 0: no candidates were found: one of the keys "candidates", .* it has "prompt"; rename',
        ),
        (["prompt"], "record 0: expected a JSON object, not an array"),
        (
            {"prompt": "p", "candidates": ["a"], "pairs": [{"a": 0, "b": 1, "label": 1}]},
            "candidates 0 and 1; there are 1",
        ),
        (
            {"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0, "b": 1, "label": 3}]},
            "must be 1, 0 or -1, not 3",
        ),
        (
            {"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0}]},
            'record 0, pair 0: "b" is missing or null',
        ),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "record 0: chosen or rejected is empty"),
        (
            {"prompt": "p", "candidates": ["a", "b"], "cmp_results": {"x,y": "A is better"}},
            'cmp_results has "x,y", which must be two models of candidates',
        ),
        (
            {
                "instruction": "",
                "input": "p",
                "candidates": [{"model": "x", "text": "a"}, {"model": "y", "text": "b"}],
                "cmp_results": {"x,y": "C is better"},
            },
            "the verdict 'C is better' is none of A is better",
        ),
    ],
)
def test_errors_name_the_record(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(record)


def test_the_same_from_any_place(tmp_path: Path) -> None:
    records = chosen_and_rejected()
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    with gzip.open(tmp_path / "data.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    (tmp_path / "data.json").write_text(json.dumps(records), encoding="utf-8")
    table = datasets.Dataset.from_list(records)
    table.to_parquet(str(tmp_path / "data.parquet"))
    table.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": table, "test": table.select(range(2))}).save_to_disk(str(tmp_path / "splits"))
    expected = [(prompt.item.texts, prompt.pairs) for prompt in read_labelled(records)]
    places = ["data.jsonl", "data.jsonl.gz", "data.json", "data.parquet", "saved"]
    for data in (table, *(tmp_path / name for name in places)):
        assert [(prompt.item.texts, prompt.pairs) for prompt in read_labelled(data)] == expected, data
    assert len(list(read_labelled(tmp_path / "splits", split="test"))) == 2
    assert len(list(read_labelled(tmp_path / "data.jsonl", limit=3))) == 3
    assert next(read_labelled(tmp_path / "data.jsonl")).source == "data"
    with pytest.raises(InputError, match="has the splits train, test, not None; choose one with"):
        list(read_labelled(tmp_path / "splits"))


def test_what_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't read .*none\.jsonl: there is no such file"):
        list(read_labelled(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"can't read .*: .*give a file, a folder of `datasets`, or the id"):
        list(read_labelled(tmp_path))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl:1: no candidates were found"):
        list(read_labelled(tmp_path / "bad.jsonl"))


def test_a_file_that_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in chosen_and_rejected()), encoding="utf-8")
    prompts = LabelledFile(path, limit=3)
    assert len(prompts) == 3
    assert list(prompts) == list(prompts) == list(read_labelled(path, limit=3))
    assert next(iter(prompts)) is not next(iter(prompts)), "nothing is kept"
    path.write_text(path.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"some.jsonl:9: no candidates were found"):
        LabelledFile(path)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "-inf"])
def test_a_score_that_is_no_number_makes_a_bad_record(score: Any) -> None:
    """It compares as less than any other, so it was a confident label."""
    bad = {"prompt": "p", "candidates": [{"text": "a", "scores": {"bleurt": score}}, {"text": "b"}]}
    with pytest.raises(InputError, match=r"record 0: .*the score -?(nan|inf) of bleurt is no number"):
        read(bad)
    skipped: list[str] = []
    good = {"prompt": "q", "candidates": [{"text": "a", "score": 1}, {"text": "b", "score": 2}]}
    assert [prompt.item.prompt for prompt in read_labelled([bad, good], skipped=skipped)] == ["q"]
    assert len(skipped) == 1
    made = LabelledPrompt(0, read(good)[0].item, scores={"score": (1.0, float("nan"))})
    assert gold_scores(made) is None


DEEP = "[" * 100_000
SCORED = {"instruction": "i", "input": "x", "candidates": [{"model": "A", "text": "a"}, {"model": "B", "text": "b"}]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**SCORED, "cmp_results": "{oops"}, "neither JSON nor Python"),
        ({**SCORED, "cmp_results": DEEP}, "neither JSON nor Python"),
        ({**SCORED, "output": 5}, "reference must be a string, not int"),
        ({**SCORED, "output": ["a"]}, "reference must be a string, not list"),
        ({**SCORED, "output": "half \ud800"}, "lone surrogate"),
        ({**SCORED, "source": "half \ud800"}, "lone surrogate"),
        (
            {"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0.0, "b": 1.0, "label": 1}]},
            "must be whole numbers, not 0.0 and 1.0",
        ),
    ],
    ids=["comparisons", "nested", "number", "list", "surrogate", "source", "index"],
)
def test_any_bad_record_can_be_skipped(record: dict[str, Any], message: str) -> None:
    skipped: list[str] = []
    assert len(list(read_labelled([record, SCORED], skipped=skipped))) == 1
    assert message in skipped[0]


def test_a_licence_is_kept() -> None:
    assert [prompt.license for prompt in read({**SCORED, "license": "mit"}, SCORED)] == ["mit", None]


def test_a_split_of_a_dictionary_of_data_sets() -> None:
    splits = {name: datasets.Dataset.from_list([{"prompt": name, "candidates": ["a"]}]) for name in ("train", "test")}
    data = datasets.DatasetDict(splits)
    assert [prompt.item.prompt for prompt in read_labelled(data, split="test")] == ["test"]
    with pytest.raises(InputError, match="the dataset has the splits train, test, not None"):
        list(read_labelled(data))


def test_a_reference_may_have_any_name() -> None:
    """It was read under its known name alone, whatever was stated."""
    record = {"prompt": "2 + 2?", "candidates": ["4", "5"], "gold": "It is 4."}
    [prompt] = read_labelled([record], columns={"reference": "gold"})
    assert prompt.reference == "It is 4."
    [prompt] = read_labelled([{**record, "reference": "4"}], columns={"reference": "gold"})
    assert prompt.reference == "It is 4."
