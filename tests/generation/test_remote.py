"""Language models on a real server: what is sent, what comes back, and what goes wrong."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

from blender_hf import InputError, RemoteLLM
from blender_hf.generation import remote
from blender_hf.generation.outcomes import Failure, Reply
from blender_hf.generation.remote import RemoteModel
from blender_hf.generation.sampling import Sampling
from tests.language_server import Fault, LanguageServer

HI = [{"role": "user", "content": "Hi"}]
QUICK = {"backoff": 0.0, "timeout": 20.0}
SECRET = "hf_of_this_machine"


def model_of(server: LanguageServer, name: str = "echo", **settings: Any) -> RemoteModel:
    return RemoteModel(RemoteLLM(name, server.url, **{**QUICK, **settings}))


def ask(model: RemoteModel, *texts: str, **sampling: Any) -> list[tuple[Any, ...]]:
    requests = [[{"role": "user", "content": text}] for text in texts]
    return model.start(requests, Sampling(**sampling)).result(timeout=60)


def test_answers_come_in_the_order_of_the_prompts(server: LanguageServer) -> None:
    texts = [f"prompt {number}" for number in range(20)]
    assert ask(model_of(server), *texts) == [(Reply(f"echo: {text}"),) for text in texts]


def test_a_real_model_writes(server: LanguageServer) -> None:
    ((reply,),) = ask(model_of(server, "tiny"), "Hi", max_new_tokens=5, temperature=0)
    assert reply.text
    assert reply.truncated
    assert server.requests[0] == {
        "model": "tiny",
        "messages": HI,
        "max_tokens": 5,
        "temperature": 0,
        "stream": False,
    }


def test_samples_are_requests_of_their_own(server: LanguageServer) -> None:
    ((one, two, three),) = ask(
        model_of(server, "tiny"), "Hi", n=3, max_new_tokens=8, temperature=2.0, seed=5, top_p=0.9
    )
    assert len({one.text, two.text, three.text}) == 3
    assert sorted(request["seed"] for request in server.requests) == [5, 6, 7]
    assert {request["top_p"] for request in server.requests} == {0.9}


def test_what_only_the_server_knows(server: LanguageServer) -> None:
    model = model_of(
        server, extra_body={"max_completion_tokens": 9, "chat_template_kwargs": {"enable_thinking": False}}
    )
    ask(model, "Hi")
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.requests[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.requests[0]
    assert "temperature" not in server.requests[0]  # the server's own


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_costs_nothing(server: LanguageServer, status: int) -> None:
    server.faults = [Fault("echo", status, times=2)]
    assert ask(model_of(server), "Hi") == [(Reply("echo: Hi"),)]
    assert len(server.requests) == 3


def test_retry_after_is_obeyed(server: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("blender_hf.generation.remote.asyncio.sleep", note)
    server.faults = [Fault("echo", 429, headers={"Retry-After": "17"})]
    assert ask(model_of(server), "Hi") == [(Reply("echo: Hi"),)]
    assert 17.0 in waited


def test_a_time_out_is_repeated_and_then_said(server: LanguageServer) -> None:
    server.faults = [Fault("echo", delay=2.0)]
    assert ask(model_of(server, timeout=1.0, max_retries=2), "Hi") == [(Reply("echo: Hi"),)]
    server.faults = [Fault("echo", delay=2.0, times=2)]
    assert ask(model_of(server, timeout=1.0, max_retries=1), "Hi") == [(Failure("echo", "it took too long to answer"),)]


def test_a_refused_request_costs_no_other(server: LanguageServer) -> None:
    server.faults = [Fault("echo", 400, message="the prompt is too long")]
    model = model_of(server, concurrency=1)
    first, second = ask(model, "long", "short")
    assert first == (Failure("echo", "the server answered 400 (the prompt is too long)"),)
    assert second == (Reply("echo: short"),)
    assert model.given_up is None


def test_a_model_that_is_not_there_is_asked_once(server: LanguageServer) -> None:
    model = model_of(server, "absent", concurrency=1)
    reason = "there is no such model at this endpoint (no model absent)"
    assert ask(model, "a", "b", "c") == [(Failure("absent", reason),)] * 3
    assert ask(model, "d") == [(Failure("absent", reason),)]
    assert len(server.requests) == 1
    assert model.given_up == reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/v1", "the connection was refused: no server listens at its address"),
        ("http://no-such-host.invalid/v1", "the host of its address is unknown"),
    ],
)
def test_a_server_that_was_never_there_is_asked_once(url: str, reason: str) -> None:
    """It took 23 seconds to learn that nothing listens at a port."""
    model = RemoteModel(RemoteLLM("m", url, max_retries=5, backoff=60))
    assert ask(model, *"abcdef") == [(Failure("m", reason),)] * 6
    assert model.given_up == reason


def test_a_server_that_has_answered_may_be_starting_again(server: LanguageServer) -> None:
    model = model_of(server, max_retries=2, backoff=0.2)
    assert ask(model, "a") == [(Reply("echo: a"),)]
    model.llm = replace(model.llm, base_url="http://127.0.0.1:9/v1")
    started = time.monotonic()
    assert ask(model, "b") == [(Failure("echo", "the connection was refused: no server listens at its address"),)]
    assert time.monotonic() - started > 0.3  # two pauses, of at least half of 0.2 and 0.4 seconds
    assert model.given_up is None


def test_a_server_that_comes_back_is_found_again(server: LanguageServer) -> None:
    model = model_of(server, max_retries=0, concurrency=1)
    server.faults = [Fault("echo", 503, times=3)]
    assert all(isinstance(outcome, Failure) for (outcome,) in ask(model, *"abcde"))
    assert len(server.requests) == 3
    assert model.given_up
    # When the pause is over and the server is still down, one request is enough to know.
    model._resting = "as before", 0.0
    server.faults = [Fault("echo", 503)]
    assert all(isinstance(outcome, Failure) for (outcome,) in ask(model, *"ab"))
    assert len(server.requests) == 4
    model._resting = "as before", 0.0
    assert ask(model, "c") == [(Reply("echo: c"),)]
    assert model.given_up is None


def test_failures_in_between_do_not_add_up(server: LanguageServer) -> None:
    model = model_of(server, concurrency=1, max_retries=0)
    for _ in range(4):
        server.faults = [Fault("echo", 500, times=2)]
        first, _, third = ask(model, "a", "b", "c")
        assert isinstance(first[0], Failure)
        assert third == (Reply("echo: c"),)
    assert model.given_up is None


def test_requests_at_once_are_bounded(server: LanguageServer) -> None:
    server.faults = [Fault("echo", delay=0.05, times=12)]
    model = model_of(server, concurrency=3)
    futures = [model.start([HI] * 6, Sampling()) for _ in range(2)]
    assert all(isinstance(outcome, Reply) for future in futures for (outcome,) in future.result(60))
    assert server.most_at_once == 3


def test_empty_answers_and_thoughts(server: LanguageServer) -> None:
    server.answers["silent"] = lambda messages: "  \n"
    server.answers["thinker"] = lambda messages: "<think>Well.</think>\n\n4"
    assert ask(model_of(server, "silent"), "2 + 2?") == [(Failure("silent", "it gave an empty answer"),)]
    assert ask(model_of(server, "thinker"), "2 + 2?") == [(Reply("4"),)]


def test_replies_in_another_form(server: LanguageServer) -> None:
    server.answers["parts"] = lambda messages: [{"type": "text", "text": "4"}, {"type": "text", "text": "!"}]
    assert ask(model_of(server, "parts"), "2 + 2?") == [(Reply("4!"),)]


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}}
CALL_TEXT = '<tool_call>{"name": "weather", "arguments": {"city": "Lima"}}</tool_call>'


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ({"content": "[THINK]Well.[/THINK]4"}, Reply("4")),
        (
            {"content": "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>final<|message|>4"},
            Reply("4"),
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Well."}]},
                    {"type": "text", "text": "4"},
                ]
            },
            Reply("4"),
        ),
        ({"content": None, "refusal": "I can't."}, Reply("I can't.")),
        ({"content": None, "reasoning_content": "Well."}, Failure("m", "it gave an empty answer")),
        ({"content": "[THINK]Well."}, Failure("m", "it gave an empty answer")),
        (
            {"content": None, "tool_calls": [CALL]},
            Reply(CALL_TEXT, messages=({"role": "assistant", "content": None, "tool_calls": [CALL]},)),
        ),
        (
            {"content": "<think>Well.</think>Wait.", "tool_calls": [CALL]},
            Reply(f"Wait.\n{CALL_TEXT}", messages=({"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},)),
        ),
        ({"content": [{"type": "hologram"}]}, "its answer can't be read: message 0, part 0 has the type 'hologram'"),
    ],
)
def test_what_an_answer_is(server: LanguageServer, message: dict[str, Any], outcome: Any) -> None:
    server.answers["m"] = lambda messages: message
    ((found,),) = ask(model_of(server, "m"), "2 + 2?")
    assert (found.reason[: len(outcome)] if isinstance(outcome, str) else found) == outcome


def test_messages_of_a_client_of_ones_own() -> None:
    """Its classes are its own: of pydantic, or plain ones."""
    called = SimpleNamespace(id="c1", type="function", function=SimpleNamespace(**CALL["function"]))
    said = SimpleNamespace(content=None, tool_calls=[called])

    def create(**body: Any) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(message=said, finish_reason="tool_calls")])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    ((found,),) = ask(RemoteModel(RemoteLLM("m", client=client)), "2 + 2?")
    assert (found.text, found.messages) == (CALL_TEXT, ({"role": "assistant", "content": None, "tool_calls": [CALL]},))


def test_the_token_of_the_machine_stays_here(server: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    ask(model_of(server), "Hi")
    ask(model_of(server, api_key="sk-own"), "Hi")
    assert SECRET not in server.authorizations[0]
    assert server.authorizations[1] == "Bearer sk-own"


@pytest.mark.parametrize("kind", [InferenceClient, AsyncInferenceClient])
def test_clients_of_ones_own(server: LanguageServer, kind: Any) -> None:
    model = RemoteModel(RemoteLLM("echo", client=kind(base_url=server.url, api_key="mine"), **QUICK))
    server.faults = [Fault("echo", 503)]
    assert ask(model, "Hi", "Ho") == [(Reply("echo: Hi"),), (Reply("echo: Ho"),)]
    assert set(server.authorizations) == {"Bearer mine"}


def test_inside_an_event_loop_and_from_threads(server: LanguageServer) -> None:
    import asyncio

    async def in_a_notebook() -> list[tuple[Any, ...]]:
        return ask(model_of(server), "Hi")  # as a cell of a notebook does, which runs in a loop

    assert asyncio.run(in_a_notebook()) == [(Reply("echo: Hi"),)]
    model, found = model_of(server), []
    threads = [threading.Thread(target=lambda n=n: found.append(ask(model, f"{n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found, key=str) == [[(Reply(f"echo: {n}"),)] for n in range(4)]


def test_providers_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "get_token", lambda: None)
    with pytest.raises(InputError, match="Inference Providers need a token: make one at"):
        RemoteModel(RemoteLLM("org/model"))
    RemoteModel(RemoteLLM("org/model", api_key="hf_x"))


def test_a_server_is_asked_in_offline_mode_too(server: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch forbids to ask the Hub, and a server may be on this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert ask(model_of(server), "Hi") == [(Reply("echo: Hi"),)]
