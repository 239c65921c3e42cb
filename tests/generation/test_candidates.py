"""Candidates of several language models for the same prompts."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blender_hf
from blender_hf import Blender, Candidate, GenerationError, InputError, InputTypeError, LocalLLM, RemoteLLM, generate
from blender_hf.generation.candidates import CandidateWriter, Generated, GeneratedCandidate
from blender_hf.generation.outcomes import Failure
from blender_hf.generation.prompts import prompt_item
from blender_hf.generation.sampling import Sampling
from tests.language_server import Fault, LanguageServer


def remote(server: LanguageServer, name: str, **settings: Any) -> RemoteLLM:
    return RemoteLLM(name, server.url, **{"backoff": 0.0, "max_retries": 1, **settings})


def texts(generated: Generated) -> list[tuple[str | None, str]]:
    return [(candidate.model, candidate.text) for candidate in generated.candidates]


def test_local_and_remote_models_answer_and_failures_are_named(server: LanguageServer, chat_model: Path) -> None:
    server.faults = [Fault("loud", 500, times=10)]
    here = LocalLLM(str(chat_model), name="here", device="cpu")
    found = generate("Hi", [remote(server, "loud"), here, remote(server, "echo")], max_new_tokens=8)
    assert [model for model, _ in texts(found)] == ["here", "echo"]
    assert found.candidates[1] == GeneratedCandidate("echo: Hi", "echo", truncated=False)
    assert found.failures == (Failure("loud", "the server answered 500 (ordered by a test)"),)


def test_a_text_gives_one_and_a_list_a_list(server: LanguageServer) -> None:
    llm = f"{server.url}#echo"
    assert texts(generate("Hi", [llm])) == [("echo", "echo: Hi")]
    assert texts(generate([{"role": "user", "content": "Hi"}], [llm])) == [("echo", "echo: Hi")]
    assert [texts(found) for found in generate(["a", "b"], [llm])] == [[("echo", "echo: a")], [("echo", "echo: b")]]
    assert generate([], [llm]) == []
    assert texts(generate("cat", [llm], instructions="Translate.")) == [("echo", "echo: Translate.\ncat")]
    told = generate(["cat", "dog"], [llm], instructions=["Translate.", None])
    assert [texts(found) for found in told] == [[("echo", "echo: Translate.\ncat")], [("echo", "echo: dog")]]


def test_they_are_what_a_blender_takes(server: LanguageServer, blender: Blender) -> None:
    found = generate(["Hi", "Ho"], [f"{server.url}#echo", f"{server.url}#loud"])
    rankings = blender.rank([one.prompt for one in found], [one.candidates for one in found])
    assert [ranking.models for ranking in rankings] == [("echo", "loud")] * 2
    assert [blend.ranking for blend in blender.iter_blend(one.item for one in found)] == rankings


def test_records_are_read_by_the_command_line(server: LanguageServer) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    found = generate(talk, [f"{server.url}#echo", f"{server.url}#absent"])
    assert found.to_dict() == {
        "messages": talk,
        "candidates": [{"model": "echo", "text": "echo: Hi", "truncated": False}],
        "failures": [
            {"model": "absent", "reason": "there is no such model at this endpoint (no model absent)"},
        ],
    }


def test_when_nobody_answers(server: LanguageServer) -> None:
    found = generate(["a", "b"], [f"{server.url}#absent"])[1]
    assert found.candidates == ()
    with pytest.raises(GenerationError, match=r"prompt 1: no language model answered \(absent: there is no such model"):
        _ = found.item


def test_several_answers_of_a_model(server: LanguageServer) -> None:
    found = generate("Hi", [f"{server.url}#tiny"], n=2, temperature=2.0, max_new_tokens=6, seed=0)
    assert [candidate.model for candidate in found.candidates] == ["tiny", "tiny"]
    assert found.candidates[0] != found.candidates[1]


def test_a_model_is_asked_only_for_what_is_missing(server: LanguageServer) -> None:
    writer = CandidateWriter([f"{server.url}#echo", f"{server.url}#loud"], Sampling(n=2))
    requests = [
        prompt_item("a"),
        prompt_item("b", candidates=[Candidate("kept", "echo"), "of nobody"]),
        prompt_item("c", candidates=[Candidate("1", "echo"), Candidate("2", "echo"), Candidate("3", "loud")]),
    ]
    first, second, third = map(texts, writer.iter(requests))
    assert first == [("echo", "echo: a")] * 2 + [("loud", "A!")] * 2
    assert second == [("echo", "kept"), (None, "of nobody"), ("echo", "echo: b"), ("loud", "B!"), ("loud", "B!")]
    assert third == [("echo", "1"), ("echo", "2"), ("loud", "3"), ("loud", "C!")]


def test_prompts_may_be_without_end(server: LanguageServer) -> None:
    def endless() -> Iterator[Any]:
        number = 0
        while True:
            yield prompt_item(f"{number}")
            number += 1

    found = CandidateWriter([f"{server.url}#echo"]).iter(endless(), window=4)
    assert [texts(next(found))[0][1] for _ in range(10)] == [f"echo: {number}" for number in range(10)]
    assert len(server.requests) <= 16


def test_who_leaves_early_asks_for_nothing_more(server: LanguageServer) -> None:
    gate = threading.Event()

    def slow_from_the_second_window(messages: list[dict[str, str]]) -> str:
        if messages[-1]["content"] in {"2", "3"}:
            gate.wait(30)
        return "said"

    server.answers["slow"] = slow_from_the_second_window
    writer = CandidateWriter([remote(server, "slow", concurrency=1)])
    found = writer.iter((prompt_item(f"{number}") for number in range(8)), window=2)
    assert texts(next(found)) == [("slow", "said")]
    while len(server.requests) < 3:
        time.sleep(0.01)
    found.close()
    gate.set()
    # Requests come in their turn, so whatever was still to be asked would come before this one.
    assert texts(next(writer.iter([prompt_item("another")]))) == [("slow", "said")]
    assert [request["messages"][-1]["content"] for request in server.requests] == ["0", "1", "2", "another"]


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        (["a", 3], {}, InputTypeError, "prompt 1: a prompt must be a text"),
        (3, {}, InputTypeError, "not int"),
        (["a", "b"], {"instructions": "x"}, InputError, "one entry for each of the 2 prompts"),
        ("a", {"instructions": 3}, InputTypeError, "must be a string, not int"),
        ("a", {"n": 0}, InputError, "n=0"),
    ],
)
def test_bad_input_is_named(prompts: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        generate(prompts, ["http://127.0.0.1:9/v1#m"], **options)


def test_it_is_public() -> None:
    assert {"generate", "Generated", "LocalLLM", "RemoteLLM", "GenerationError"} <= set(blender_hf.__all__)
