"""A chat model on a real server as a judge, and the records that it writes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blender_hf import GenerationError, InputError, RemoteLLM
from blender_hf.data.labelled_formats import from_mapping
from blender_hf.generation.annotation import own_names, read_candidates
from blender_hf.generation.judge import MAX_REMINDERS, UNPARSABLE, Judge, Judgment, Task
from blender_hf.generation.models import load_model
from blender_hf.inputs import make_item
from tests.language_server import Fault, LanguageServer

Messages = list[dict[str, str]]


def shown(messages: Messages) -> tuple[str, str]:
    """Return the answers A and B that a judge is shown."""
    found = re.findall(r"<answer ([AB]) (\w+)>\n(.*?)\n</answer \1 \2>", messages[1]["content"], re.DOTALL)
    return found[0][2], found[1][2]


def longer(messages: Messages) -> str:
    a, b = shown(messages)
    return "Same good" if len(a) == len(b) else "A is better" if len(a) > len(b) else "B is better"


def judge_of(server: LanguageServer, answer: Callable[[Messages], str], **settings: Any) -> Judge:
    server.answers["judge"] = answer
    return Judge(load_model(RemoteLLM("judge", server.url, backoff=0.0, max_retries=1, **settings)))


def judged(judge: Judge, *candidates: str) -> list[Judgment]:
    count = range(len(candidates))
    pairs = tuple((i, j) for i in count for j in count if i < j)
    return next(judge.iter([Task(make_item("2 + 2?", candidates), pairs)]))


def test_every_pair_is_judged_in_both_orders(server: LanguageServer) -> None:
    found = judged(judge_of(server, longer), "four", "4", "5")
    assert [(one.pair, one.verdict) for one in found] == [
        ((0, 1), "A is better"),
        ((0, 2), "A is better"),
        ((1, 2), "Same good"),
    ]
    assert all(one.consistent for one in found)
    assert len(server.requests) == 6
    assert {request["temperature"] for request in server.requests} == {0}


def test_position_bias_is_no_win(server: LanguageServer) -> None:
    (found,) = judged(judge_of(server, lambda messages: "A is better"), "4", "5")
    assert (found.verdict, found.orders, found.consistent) == ("Same good", ("A is better", "A is better"), False)


def test_a_reply_without_a_verdict_is_asked_about_again(server: LanguageServer) -> None:
    def at_the_second_time(messages: Messages) -> str:
        return "Hard to say." if len(messages) == 2 else longer(messages)

    (found,) = judged(judge_of(server, at_the_second_time), "four", "4")
    assert (found.verdict, found.reminders) == ("A is better", 2)
    assert "not one of the four verdicts" in server.requests[-1]["messages"][-1]["content"]


def test_what_never_is_a_verdict_is_left_out(server: LanguageServer) -> None:
    def stubborn(messages: Messages) -> str:
        return "Both have their merits." if shown(messages)[0] == "four" else longer(messages)

    first, second = judged(judge_of(server, stubborn), "four", "4", "5")[::2]
    assert (first.verdict, first.orders, first.reason) == (None, (None, "B is better"), UNPARSABLE)
    assert first.reminders == MAX_REMINDERS
    assert second.verdict == "Same good"


def test_a_refused_request_costs_its_pair_alone(server: LanguageServer) -> None:
    server.faults = [Fault("judge", 400, message="refused")]
    first, second = judged(judge_of(server, longer, concurrency=1), "four", "4", "5")[:2]
    assert (first.verdict, first.reason) == (None, "the server answered 400 (refused)")
    assert second.verdict == "A is better"


def test_a_judge_that_is_gone_stops_the_work(server: LanguageServer) -> None:
    judge = judge_of(server, longer)
    tasks = [Task(make_item("p", ["four", "4"]), ((0, 1),)) for _ in range(3)]
    results = judge.iter(tasks, window=1)
    assert next(results)[0].verdict == "A is better"
    server.faults = [Fault("judge", 401, times=100)]
    with pytest.raises(GenerationError, match="the judge judge can't be asked any more: the token was refused"):
        list(results)


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_records_are_those_of_mixinstruct(server: LanguageServer, tmp_path: Path) -> None:
    given = {
        "id": "unified/1",
        "instruction": "Add.",
        "input": "2 + 2",
        "output": "4",
        "candidates": [{"model": "koala", "text": "four", "scores": {"bleurt": 0.5}}, {"model": "alpaca", "text": "5"}],
    }
    (record,) = read_candidates(write(tmp_path / "in.jsonl", given))
    (judgments,) = judge_of(server, longer).iter([record.task])
    line = json.loads(record.judged(judgments, "judge"))
    pairs = {"koala,alpaca": {"judge": "judge", "orders": ["A is better", "B is better"]}}
    assert line == {
        **given,
        "cmp_results": {"koala,alpaca": "A is better"},
        "annotation": {"judge": "judge", "pairs": pairs},
    }
    labelled = from_mapping(line, where="", default_id=0, default_source="")
    assert [(pair.a, pair.b, pair.label) for pair in labelled.pairs] == [(0, 1, 1)]
    assert labelled.item.texts == record.item.texts


@pytest.mark.parametrize("as_text", [False, True])
def test_known_verdicts_stay(server: LanguageServer, tmp_path: Path, as_text: bool) -> None:
    known = {"b,a": "Same bad"}
    candidates = [{"model": name, "text": name * (index + 1)} for index, name in enumerate("abc")]
    given = {"prompt": "p", "candidates": candidates, "cmp_results": json.dumps(known) if as_text else known}
    (record,) = read_candidates(write(tmp_path / "in.jsonl", given))
    assert record.task.pairs == ((0, 2), (1, 2))
    (judgments,) = judge_of(server, longer).iter([record.task])
    line = json.loads(record.judged(judgments, "judge"))
    assert line["cmp_results"] == {"b,a": "Same bad", "a,c": "B is better", "b,c": "B is better"}
    (again,) = read_candidates(write(tmp_path / "out.jsonl", line))
    assert again.task.pairs == ()
    assert json.loads(again.judged([], "judge")) == line


def test_every_candidate_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert own_names(["m", None, "m", "n", "m"], where="") == ("m", "candidate 1", "m#2", "n", "m#3")
    with pytest.raises(InputError, match=r"line 3: the model 'a,b' has a comma"):
        own_names(["a,b"], where="line 3")
    given = {"prompt": "p", "candidates": ["x", {"text": "y", "model": "m"}, {"text": "z", "model": "m", "n": 1}]}
    (record,) = read_candidates(write(tmp_path / "in.jsonl", given))
    line = json.loads(record.judged([], "judge"))
    assert line["candidates"] == [
        {"model": "candidate 0", "text": "x"},
        {"text": "y", "model": "m"},
        {"text": "z", "model": "m#2", "n": 1},
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": 1, "prompt": "p", "candidates": ["a"]}] * 2, r"in.jsonl:2: another record has the id '1'"),
        ([{"prompt": "p", "candidates": ["a"], "cmp_results": [1]}], r"in.jsonl:1: cmp_results must be an object"),
        ([{"prompt": "p", "candidates": ["a"], "cmp_results": "{"}], r"in.jsonl:1: cmp_results must be an object"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_candidates(write(tmp_path / "in.jsonl", *records)))
