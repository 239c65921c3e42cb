"""`blender-hf generate`: prompts in, candidates out, whatever happens to the servers or to the command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blender_hf.cli.main import main
from tests.language_server import Fault, LanguageServer

RECORDS = [
    {"id": "one", "prompt": "2 + 2?", "note": "kept"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    {"id": 7, "instruction": "Reply.", "input": "Hello", "output": "Hello."},
    *({"id": f"n{number}", "prompt": f"{number} + {number}?"} for number in range(9)),
]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", RECORDS)


@pytest.fixture
def models(server: LanguageServer) -> list[str]:
    names = [argument for name in ("echo", "loud") for argument in ("--llm", f"{server.url}#{name}")]
    return [*names, "--max-retries", "0", "--quiet"]


def test_records_are_answered_in_their_order(
    prompts: Path, models: list[str], tmp_path: Path, checkpoints: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    assert main(["generate", str(prompts), *models, "--output", str(output)]) == 0
    found = lines(output)
    assert [record["id"] for record in found[:4]] == ["one", "2", "7", "n0"]
    assert found[0] == {
        **RECORDS[0],
        "candidates": [
            {"model": "echo", "text": "echo: 2 + 2?", "truncated": False},
            {"model": "loud", "text": "2 + 2?!", "truncated": False},
        ],
        "failures": [],
    }
    assert found[2]["candidates"][0]["text"] == "echo: Reply.\nHello"
    assert found[2]["output"] == "Hello."
    blended = tmp_path / "blended.jsonl"
    ranker, fuser = str(checkpoints / "ranker"), str(checkpoints / "fuser")
    arguments = [
        "blend",
        str(output),
        "--ranker",
        ranker,
        "--fuser",
        fuser,
        "--output",
        str(blended),
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--quiet"]) == 0
    assert [record["id"] for record in lines(blended)] == [record["id"] for record in found]
    assert lines(blended)[0]["ranking"]["models"] == ["echo", "loud"]


def test_options_reach_local_and_remote_models(
    server: LanguageServer,
    chat_model: Path,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "generate",
        str(prompts),
        "--limit",
        "2",
        "--llm",
        f"big={server.url}#tiny",
        "--llm",
        f"here={chat_model}",
    ]
    options = ["--n", "2", "--max-new-tokens", "4", "--temperature", "2", "--top-p", "0.9", "--seed", "3"]
    assert main([*arguments, *options, "--device", "cpu", "--dtype", "float32", "--batch-size", "3"]) == 0
    out, err = capsys.readouterr()
    first, second = (json.loads(line) for line in out.splitlines())
    assert [candidate["model"] for candidate in first["candidates"]] == ["big", "big", "here", "here"]
    assert [second["id"], second["failures"]] == ["2", []]
    sent = {name: server.requests[0][name] for name in ("max_tokens", "temperature", "top_p")}
    assert sent == {"max_tokens": 4, "temperature": 2.0, "top_p": 0.9}
    assert "2/2" in err
    assert "blender-hf: 2 prompts answered" in err
    assert "truncated" in err


def test_a_model_that_fails_costs_no_other(
    server: LanguageServer,
    prompts: Path,
    models: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.faults = [Fault("loud", 400, message="refused"), Fault("loud", 500)]
    output = tmp_path / "answers.jsonl"
    down = ["--llm", "down=http://127.0.0.1:9/v1#m"]
    command = ["generate", str(prompts), *models, *down, "--concurrency", "1", "--output", str(output), "--json"]
    assert main(command) == 0
    found = lines(output)
    assert found[0]["failures"][0] == {"model": "loud", "reason": "the server answered 400 (refused)"}
    assert {failure["model"] for record in found for failure in record["failures"]} == {"loud", "down"}
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["written"] == len(RECORDS)
    assert summary["models"]["loud"]["candidates"] == len(RECORDS) - 2
    assert summary["models"]["echo"]["failures"] == 0
    assert summary["models"]["down"]["failures"] == len(RECORDS)
    assert len(err.splitlines()) == 1
    # A second run over its output asks again those that failed, and nobody else.
    server.reset()
    complete = tmp_path / "complete.jsonl"
    assert main(["generate", str(output), *models, "--output", str(complete)]) == 0
    assert [request["model"] for request in server.requests] == ["loud", "loud"]
    assert all({c["model"] for c in record["candidates"]} == {"echo", "loud"} for record in lines(complete))
    assert {failure["model"] for record in lines(complete) for failure in record["failures"]} == {"down"}


def test_an_answer_that_was_cut_within_a_character_is_written(
    server: LanguageServer,
    prompts: Path,
    tmp_path: Path,
) -> None:
    server.answers["halved"] = lambda messages: "smile \ud83d"
    output = tmp_path / "answers.jsonl"
    command = ["generate", str(prompts), "--llm", f"{server.url}#halved", "--output", str(output), "--quiet"]
    assert main([*command, "--limit", "1"]) == 0
    assert lines(output)[0]["candidates"][0]["text"] == "smile \N{REPLACEMENT CHARACTER}"


def test_prompts_without_a_candidate_are_asked_for_again(
    server: LanguageServer,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "answers.jsonl"
    command = ["generate", str(prompts), "--llm", f"{server.url}#echo", "--concurrency", "1", "--output", str(output)]
    server.faults = [Fault("echo", 400, message="refused")]
    assert main([*command, "--quiet"]) == 2
    assert "no language model answered the prompt 'one' (echo: the server answered 400" in capsys.readouterr().err
    assert [record["id"] for record in lines(output)][:2] == ["2", "7"]
    assert main([*command, "--quiet"]) == 0
    assert "11 answered before" in capsys.readouterr().err
    assert {record["id"] for record in lines(output)} == {"one", "2", "7", *(f"n{number}" for number in range(9))}


def test_when_all_models_are_gone_it_stops(
    server: LanguageServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = write(tmp_path / "many.jsonl", [{"prompt": f"{number}"} for number in range(200)])
    output = tmp_path / "answers.jsonl"
    assert main(["generate", str(many), "--llm", f"{server.url}#absent", "--output", str(output), "--quiet"]) == 2
    assert "absent: there is no such model at this endpoint" in capsys.readouterr().err
    assert output.read_text() == ""
    assert len(server.requests) < 20


def test_it_goes_on_from_wherever_it_was_killed(prompts: Path, models: list[str], tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    assert main(["generate", str(prompts), *models, "--output", str(whole)]) == 0
    content = whole.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 12):
        output.write_bytes(content[:place])
        assert main(["generate", str(prompts), *models, "--output", str(output)]) == 0
        assert output.read_bytes() == content


def test_only_what_is_missing_is_asked_for(
    server: LanguageServer,
    prompts: Path,
    models: list[str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "answers.jsonl"
    assert main(["generate", str(prompts), *models, "--output", str(output), "--limit", "4"]) == 0
    server.reset()
    assert main(["generate", str(prompts), *models, "--output", str(output)]) == 0
    assert len(server.requests) == 2 * (len(RECORDS) - 4)
    server.reset()
    assert main(["generate", str(prompts), *models, "--output", str(output)]) == 0
    assert server.requests == []
    assert main(["generate", str(prompts), *models, "--output", str(output), "--overwrite", "--limit", "1"]) == 0
    assert len(lines(output)) == 1


@pytest.mark.slow
def test_killed_while_it_works(server: LanguageServer, tmp_path: Path) -> None:
    prompts = write(tmp_path / "prompts.jsonl", [{"id": f"n{number}", "prompt": f"{number}?"} for number in range(60)])
    output = tmp_path / "answers.jsonl"
    program = "import sys; from blender_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["generate", str(prompts), "--llm", f"{server.url}#echo", "--output", str(output), "--quiet"]
    server.faults = [Fault("echo", delay=0.05, times=1000)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--concurrency", "1"],
        env={**os.environ, "HF_HUB_OFFLINE": "0"},
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 < output.read_bytes().count(b"\n") < 60
    server.reset()
    assert main(arguments) == 0
    assert [record["id"] for record in lines(output)] == [f"n{number}" for number in range(60)]
    assert len(server.requests) < 60


@pytest.mark.parametrize(
    ("records", "arguments", "message"),
    [
        ([{"prompt": "p"}], ["--llm", "http://h/v1"], "does not say which model"),
        ([{"prompt": "p"}], ["--llm", "http://h/v1#m", "--temperature", "-1"], "temperature=-1"),
        ([{"prompt": "p"}], ["--llm", "http://h/v1#m", "--timeout", "0"], "timeout=0"),
        ([{"prompt": "p"}], ["--llm", "http://h/v1#m", "--json"], "add --output"),
        (
            [{"text": "p"}],
            ["--llm", "http://h/v1#m"],
            r'prompts.jsonl:1: no prompt was found: one of the keys "prompt"',
        ),
        ([{"id": 1, "prompt": "p"}] * 2, ["--llm", "http://h/v1#m"], "prompts.jsonl:2: another record has the id '1'"),
        ([{"prompt": 3}], ["--llm", "http://h/v1#m"], "prompts.jsonl:1: a prompt must be a text"),
        ([{"prompt": "\ud83d"}], ["--llm", "http://h/v1#m"], r"prompts.jsonl:1: contains a lone surrogate ('\ud83d')"),
        ([{"prompt": "p", "note": "\ud83d"}], ["--llm", "http://h/v1#m"], r"lone surrogate ('\ud83d')"),
    ],
)
def test_mistakes_are_named_before_any_work(
    tmp_path: Path,
    records: list[dict[str, Any]],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "prompts.jsonl", records)
    assert main(["generate", str(path), *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_the_output_of_another_job_is_left_alone(
    server: LanguageServer,
    prompts: Path,
    models: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "answers.jsonl"
    command = ["generate", str(prompts), "--output", str(output), "--quiet"]
    assert main([*command, "--llm", f"{server.url}#echo"]) == 0
    content = output.read_bytes()
    assert main(["generate", str(prompts), *models, "--output", str(output)]) == 2
    assert "loud had no part in this file; choose another --output, or --overwrite it" in capsys.readouterr().err
    assert main([*command, "--llm", f"{server.url}#echo", "--n", "2"]) == 2
    assert "echo gave fewer than 2 answers in this file; choose another --output" in capsys.readouterr().err
    write(prompts, [{"id": "one", "prompt": "another"}])
    assert main([*command, "--llm", f"{server.url}#echo"]) == 2
    assert "prompts.jsonl:1: the output has other texts with the id 'one'" in capsys.readouterr().err
    assert output.read_bytes() == content
    assert main(["generate", str(prompts), *models, "--output", str(prompts)]) == 2
    assert "is the input itself" in capsys.readouterr().err
    write(output, [{"id": 1}])
    assert main([*command, "--llm", f"{server.url}#echo"]) == 2
    assert "is no output of `blender-hf generate`" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 40])
def test_a_refused_output_is_left_as_it_is(
    server: LanguageServer,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cut: int,
) -> None:
    """A file without the end of its last line, which another job wrote or which is no output at all."""
    output = tmp_path / "answers.jsonl"
    command = ["generate", str(prompts), "--output", str(output), "--quiet", "--limit", "2"]
    assert main([*command, "--llm", f"{server.url}#echo"]) == 0
    output.write_bytes(output.read_bytes()[:-cut])
    content = output.read_bytes()
    assert main([*command, "--llm", f"{server.url}#loud"]) == 2
    write(prompts, [{"id": "one", "prompt": "another"}])
    assert main([*command, "--llm", f"{server.url}#echo"]) == 2
    assert "the output has other texts" in capsys.readouterr().err
    assert output.read_bytes() == content
    output.write_text("notes\nof somebody's")
    assert main([*command, "--llm", f"{server.url}#echo"]) == 2
    assert "answers.jsonl:1: this is no record of an earlier run" in capsys.readouterr().err
    assert output.read_text() == "notes\nof somebody's"


TALK = [
    {"role": "developer", "content": "Be brief.", "x": [1]},
    {"role": "user", "content": [{"type": "text", "text": "What is the weather in Lima?"}], "name": "bob"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "17 C"},
]


def test_messages_go_through_all_commands_as_they_came_in(
    server: LanguageServer, models: list[str], checkpoints: Path, tmp_path: Path
) -> None:
    """From prompts to answers, verdicts and preferences: tool calls were dropped at the first step."""
    answered, judged, rows = (tmp_path / f"{name}.jsonl" for name in ("answered", "judged", "rows"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    given = [call, {"model": "m", "messages": [{**call, "content": "Wait."}]}, [call, TALK[3], TALK[2]]]
    record = {"id": 1, "messages": TALK, "candidates": given}
    server.answers["echo"] = lambda messages: {"content": None, "tool_calls": TALK[2]["tool_calls"]}
    server.answers["loud"] = lambda messages: "It is 17."
    assert main(["generate", str(write(tmp_path / "p.jsonl", [record])), *models, "--output", str(answered)]) == 0
    assert [request["messages"] for request in server.requests] == [TALK, TALK]
    (found,) = lines(answered)
    assert (found["messages"], found["candidates"][:3]) == (TALK, given)
    assert found["candidates"][3] == {
        "model": "echo",
        "text": '<tool_call>{"name": "w", "arguments": {}}</tool_call>',
        "messages": [TALK[2]],
        "truncated": False,
    }
    again = tmp_path / "again.jsonl"
    assert main(["generate", str(answered), *models, "--output", str(again)]) == 0
    assert lines(again) == [found]
    server.answers["judge"] = lambda messages: "Same good"
    judge = ["--judge", f"{server.url}#judge", "--quiet"]
    assert main(["annotate", str(answered), *judge, "--output", str(judged)]) == 0
    shown = server.asked("judge")[0]["messages"][1]["content"]
    call_text = '<tool_call>{"name": "w", "arguments": {}}</tool_call>'
    assert f"USER: What is the weather in Lima?\nASSISTANT: {call_text}\nTOOL: 17 C" in shown
    (verdicts,) = lines(judged)
    assert verdicts["messages"] == TALK
    assert verdicts["candidates"][2].pop("text").count(call_text) == 1
    assert verdicts["candidates"][2] == {"model": "candidate 2", "messages": given[2]}
    for form in ("dpo", "sppo", "rankings"):
        ranker = ["--ranker", str(checkpoints / "ranker"), "--device", "cpu"]
        assert (
            main(["label", str(judged), *ranker, "--format", form, "--output", str(rows), "--restart", "--quiet"]) == 0
        )
        (row,) = lines(rows)
        assert row["prompt"] == TALK
        messages = [
            c.get("messages", [{"role": "assistant", "content": c.get("text")}]) for c in verdicts["candidates"]
        ]
        messages[0] = [call]
        if form == "rankings":
            kept = [c.get("messages", [{"role": "assistant", "content": c["text"]}]) for c in row["candidates"]]
            assert all(one in kept for one in messages)
        else:
            before = TALK if form == "sppo" else []
            assert {json.dumps(row[side]) for side in ("chosen", "rejected")} <= {
                json.dumps([*before, *one]) for one in messages
            }
