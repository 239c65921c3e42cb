"""A server that speaks OpenAI's language over real HTTP on the loopback interface, with a real language model.

The model is small and random, and runs in transformers as it is, without the code under test. Other names can be given
functions, and a test can order faults.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.loopback import Reply, listening

Answer = Callable[[list[dict[str, str]]], str]


@dataclass
class Fault:
    """What happens to the next requests for a model.

    Args:
        model: Which model.
        status: What is answered.
        times: How often.
        headers: Sent with it.
        delay: Seconds before anything is answered.
        message: What the body says, in OpenAI's form.
        body: The whole body instead, text as it is or what JSON holds.
    """

    model: str
    status: int = 200
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    message: str = "ordered by a test"
    body: Any = None


class LanguageServer:
    """The state of the server, and what it was asked.

    Args:
        folder: The saved model that answers as "tiny".
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.address = address
        self.users = 0
        self.answers: dict[str, Answer] = {}
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()

    @property
    def path(self) -> str:
        """Where the present user finds it; what an earlier one asked too late is not found."""
        return f"/{self.users}/v1"

    @property
    def url(self) -> str:
        return self.address + self.path

    def asked(self, model: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["model"] == model]

    def fault_for(self, model: str) -> Fault | None:
        with self._lock:
            found = next((fault for fault in self.faults if fault.model == model and fault.times > 0), None)
            if found is not None:
                found.times -= 1
            return found

    def serve_another(self) -> None:
        """Begin anew, at another path."""
        self.users += 1
        self.reset()

    def reset(self) -> None:
        """Forget what was asked, when the last request that nobody waits for is over."""
        while self._now:
            time.sleep(0.01)
        self.answers = {
            "echo": lambda messages: f"echo: {messages[-1]['content']}",
            "loud": lambda messages: messages[-1]["content"].upper() + "!",
        }
        self.faults, self.requests, self.authorizations, self.most_at_once = [], [], [], 0

    @contextmanager
    def counted(self, request: dict[str, Any], authorization: str) -> Iterator[None]:
        with self._lock:
            self.requests.append(request)
            self.authorizations.append(authorization)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def answer(self, request: dict[str, Any]) -> tuple[str, str]:
        """Return a text and why it ends."""
        if request["model"] in self.answers:
            return self.answers[request["model"]](request["messages"]), "stop"
        rendered = self._tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True)
        inputs = self._tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
        most = request["max_tokens"]
        with self._lock, torch.inference_mode():
            torch.manual_seed(request.get("seed", 0))
            heat = request.get("temperature", 0)
            free = {"do_sample": True, "temperature": heat} if heat else {"do_sample": False}
            ids = self._model.generate(**inputs, max_new_tokens=most, **free)[
                0, inputs["input_ids"].shape[1] :
            ].tolist()
        ended = self._model.generation_config.eos_token_id in ids
        return self._tokenizer.decode(ids, skip_special_tokens=True), "stop" if ended else "length"

    def reply(self, path: str, request: dict[str, Any], authorization: str) -> Reply:
        """Answer a request, or fail as the test says."""
        if not path.startswith(self.path):
            return 410, {"error": {"message": "asked after its test"}}, {}
        # Whoever has the answer may ask again before this thread goes on, so a request is over before it is answered.
        with self.counted(request, authorization):
            return self._reply(request)

    def _reply(self, request: dict[str, Any]) -> Reply:
        fault = self.fault_for(request["model"])
        if fault is not None:
            time.sleep(fault.delay)
        if fault is not None and fault.body is not None:
            return fault.status, fault.body, fault.headers
        if fault is not None and fault.status != 200:
            return fault.status, {"error": {"message": fault.message}}, fault.headers
        if request["model"] not in {"tiny", *self.answers}:
            return 404, {"error": {"message": f"no model {request['model']}"}}, {}
        return 200, self._completion(request), {}

    def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
        text, reason = self.answer(request)
        # An answer may be the fields of a message, too.
        message = {"role": "assistant", **(text if isinstance(text, dict) else {"content": text})}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        home = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"]}
        return {**home, "choices": [choice], "usage": usage, "system_fingerprint": ""}


@contextmanager
def serving(folder: Path) -> Iterator[LanguageServer]:
    with listening() as listener:
        state = LanguageServer(folder, listener.url)
        listener.answer = state.reply
        yield state
