from collections.abc import Iterator
from typing import Any

import huggingface_hub
import pytest

from blender_hf.errors import InputError
from blender_hf.inputs import Candidate
from blender_hf.space import answers
from blender_hf.space.answers import Failure, check_endpoint, iter_answers, make_client
from tests.language_server import Fault, LanguageServer

pytestmark = pytest.mark.once

SECRET = "hf_of_this_machine"


@pytest.fixture
def endpoint(server: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[LanguageServer]:
    reset = getattr(huggingface_hub.utils, "close_session", None) or huggingface_hub.utils._http.reset_sessions
    reset()
    monkeypatch.setattr(answers, "get_token", lambda: SECRET)
    yield server
    reset()


def test_models_answer_and_one_failure_costs_no_other(endpoint: LanguageServer) -> None:
    endpoint.answers = {
        "one": lambda messages: f"one: {messages[-1]['content']}",
        "silent": lambda messages: "",
        "two": lambda messages: f"two: {messages[-1]['content']}",
    }
    endpoint.faults = [Fault("closed", 401, message="")]
    client = make_client(endpoint.url, "", public=False)
    found = list(iter_answers(client, "2 + 2?", ["one", "closed", "silent", "two"], 32))
    assert {c for c in found if isinstance(c, Candidate)} == {Candidate(f"{m}: 2 + 2?", m) for m in ("one", "two")}
    reasons = {failure.model: failure.reason for failure in found if isinstance(failure, Failure)}
    assert reasons == {"closed": "the token was refused", "silent": "it gave an empty answer"}
    assert all(request["max_tokens"] == 32 for request in endpoint.requests)


def test_a_conversation_is_passed_on_whole(endpoint: LanguageServer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    list(iter_answers(make_client(endpoint.url, "mine", public=False), messages, ["echo"], 8))
    assert endpoint.asked("echo")[0]["messages"] == messages
    assert endpoint.authorizations == ["Bearer mine"]


def test_the_token_of_the_machine_is_never_sent_to_an_endpoint(endpoint: LanguageServer) -> None:
    list(iter_answers(make_client(endpoint.url, "", public=False), "?", ["echo"], 8))
    assert SECRET not in endpoint.authorizations[0]


def test_without_a_token_it_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "get_token", lambda: None)
    with pytest.raises(InputError, match="need a token: make one at"):
        make_client("", "", public=False)
    monkeypatch.setattr(answers, "get_token", lambda: SECRET)
    assert make_client("", "", public=False).token == SECRET
    with pytest.raises(InputError, match="need a token"):  # the machine's is not for strangers
        make_client("", "", public=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8000", "http://", "https://[", "https://host:port"])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(InputError):
        check_endpoint(url, public=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0"])
def test_strangers_do_not_reach_the_network_of_the_server(host: str) -> None:
    with pytest.raises(InputError, match="only public endpoints"):
        check_endpoint(f"https://{host}/v1", public=True)
    assert check_endpoint(f"https://{host}/v1", public=False)


def test_a_name_that_leads_inside_is_inside_too() -> None:
    def resolve(*found: str) -> Any:
        return lambda host, port: [(None, None, None, "", (address, port)) for address in found]

    assert answers._is_outside("host", 443, resolve("8.8.8.8"))
    assert not answers._is_outside("host", 443, resolve("8.8.8.8", "192.168.0.1"))
    assert not answers._is_outside("host", 443, resolve())


def test_too_many_models_are_refused() -> None:
    with pytest.raises(InputError, match="name from 1 to 6"):
        answers.answer_models("a, b, c, d, e, f, g")
    with pytest.raises(InputError, match="0 language models"):
        answers.answer_models(" , ")
