"""A server of judges over real HTTP on the loopback interface, with the protocols as documented.

Its judge prefers the longer answer, and a little the one that it reads first, in whichever way it is asked. OpenAI's
requests and replies are validated by the types of their own client.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from openai.types import Decision
from openai.types.chat import ChatCompletion
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter

from tests.loopback import Reply, listening

BIAS = 0.25
WEIGHT = 0.1
ANSWER = re.compile(r"<answer ([AB]) (\w+)>\n(.*?)\n</answer \1 \2>", re.DOTALL)
PATHS = {"decisions": "/v1/decisions", "systemone": "/v1/systemone", "chat": "/v1/chat/completions"}


def logit_of(text: str) -> float:
    """The logit of the judge, from a prompt in which two answers stand between delimiters."""
    found = {label: answer for label, _, answer in ANSWER.findall(text)}
    return WEIGHT * (len(found["A"]) - len(found["B"])) + BIAS


@dataclass
class JudgeServer:
    """What is offered, and what was asked."""

    url: str = ""
    offers: set[str] = field(default_factory=lambda: {"decisions", "systemone", "logprobs", "chat"})
    verdict: Callable[[float], str] = lambda logit: "I think so.\n\n[[A]]" if logit > 0 else "[[B]]"
    # What is answered in place of a judgment, to the requests that a test numbers from 0.
    faults: dict[int, tuple[int, Any]] = field(default_factory=dict)
    delay: float = 0.0
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, way: str) -> list[dict[str, Any]]:
        return [request for path, request in self.requests if path == PATHS[way]]

    def answer(self, path: str, request: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            number = len(self.requests)
            self.requests.append((path, request))
        time.sleep(self.delay)
        if number in self.faults:
            return self.faults[number]
        way = next((way for way, known in PATHS.items() if known == path), None)
        if way is None or way not in self.offers:
            return 404, {"detail": "Not Found"}
        return 200, getattr(self, f"_{way}")(request)

    def _decisions(self, request: dict[str, Any]) -> dict[str, Any]:
        TypeAdapter(DecisionCreateParams).validate_python(request)
        (question,) = request["questions"]
        options = [choice["value"] for choice in question["choices"]]
        a = 1 / (1 + math.exp(-logit_of(request["input"])))
        found = [{"value": value, "probability": p} for value, p in zip(options, (a, 1 - a), strict=True)]
        answer = {"type": "choice", "name": question["name"], "choice": options[a < 0.5], "confidence": 0.5}
        details = {"input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0}}
        details["output_tokens_details"] = {"reasoning_tokens": 0}
        usage = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8, **details}
        reply = {"model": request["model"], "answers": [{**answer, "probabilities": found}], "usage": usage}
        return Decision.model_validate(reply).model_dump()

    def _systemone(self, request: dict[str, Any]) -> dict[str, Any]:
        answers = {}
        for name, question in request["questions"].items():
            a = 1 / (1 + math.exp(-logit_of(request["state"])))
            found = dict(zip(question["criteria"], (a, 1 - a), strict=True))
            answers[name] = {"type": "choice", "choice": max(found, key=found.__getitem__), "probabilities": found}
        return {"model": request["model"], "answers": answers, "usage": {"input_tokens": 7, "output_tokens": 0}}

    def _chat(self, request: dict[str, Any]) -> dict[str, Any]:
        logit = logit_of(request["messages"][-1]["content"])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        if request.get("logprobs") and "logprobs" in self.offers:
            p = 1 / (1 + math.exp(-logit))
            tokens = {"A": math.log(p) - 0.01, " B": math.log(1 - p) - 0.01, "C": -7.0}
            top = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in tokens.items()]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
            text = "A"
        else:
            text = self.verdict(logit)
        message = {"role": "assistant", "content": text, "refusal": None}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        home = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"], "usage": usage}
        return ChatCompletion.model_validate({**home, "choices": [{**choice, "message": message}]}).model_dump()


@contextmanager
def serving_judges() -> Iterator[JudgeServer]:
    with listening() as listener:
        state = JudgeServer(f"{listener.url}/v1")

        def answer(path: str, request: Any, authorization: str) -> Reply:
            state.authorizations.add(authorization)
            return *state.answer(path, request), {}

        listener.answer = answer
        yield state
