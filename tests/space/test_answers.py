import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import huggingface_hub.constants
import pytest

from blender_hf.errors import InputError
from blender_hf.inputs import Candidate
from blender_hf.space import answers
from blender_hf.space.answers import Failure, check_endpoint, iter_answers, make_client

SECRET = "hf_of_this_machine"


class Endpoint(BaseHTTPRequestHandler):
    """Speaks OpenAI's language: repeats the last message, or refuses."""

    seen: ClassVar[list[tuple[dict[str, Any], str]]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((request, self.headers.get("Authorization", "")))
        text = {"silent": ""}.get(request["model"], f"{request['model']}: {request['messages'][-1]['content']}")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        self.send_response(401 if request["model"] == "closed" else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # `make test` forbids the Hub, by a switch that closes every connection of huggingface_hub; this one is our own.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    reset = getattr(huggingface_hub.utils, "close_session", None) or huggingface_hub.utils._http.reset_sessions
    reset()
    monkeypatch.setattr(answers, "get_token", lambda: SECRET)
    Endpoint.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    reset()


def test_models_answer_and_one_failure_costs_no_other(endpoint: str) -> None:
    client = make_client(endpoint, "", public=False)
    found = list(iter_answers(client, "2 + 2?", ["one", "closed", "silent", "two"], 32))
    assert {c for c in found if isinstance(c, Candidate)} == {Candidate(f"{m}: 2 + 2?", m) for m in ("one", "two")}
    reasons = {failure.model: failure.reason for failure in found if isinstance(failure, Failure)}
    assert reasons == {"closed": "the token was refused", "silent": "it gave an empty answer"}
    assert all(request["max_tokens"] == 32 for request, _ in Endpoint.seen)


def test_a_conversation_is_passed_on_whole(endpoint: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    list(iter_answers(make_client(endpoint, "mine", public=False), messages, ["m"], 8))
    ((request, authorization),) = Endpoint.seen
    assert request["messages"] == messages
    assert authorization == "Bearer mine"


def test_the_token_of_the_machine_is_never_sent_to_an_endpoint(endpoint: str) -> None:
    list(iter_answers(make_client(endpoint, "", public=False), "?", ["m"], 8))
    assert SECRET not in Endpoint.seen[0][1]


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
