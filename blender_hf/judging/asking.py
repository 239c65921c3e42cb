"""The ways of asking a server which of two answers is better, and how each reply is read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blender_hf.generation.thoughts import answer_in

from .questions import LABELS, OPTIONS, Question
from .records import Answer
from .verdict_formats import VerdictFormat

# What a probability is at least: servers round, and the logit of 0 is infinite.
MIN_PROBABILITY = 1e-6
# Most alternatives of a token that OpenAI's API gives.
TOP_LOGPROBS = 20
NAME = "better"
CHAT = "chat/completions"


class NotOfferedError(Exception):
    """A reply shows that the server has not this way of asking, or the model can't answer so."""


@dataclass(frozen=True)
class Way:
    """One way of asking.

    Args:
        path: Where, behind the address of the API.
        body: Makes the fields of a request, without its model.
        read: Reads a reply: a dictionary, as JSON has it.
    """

    path: str
    body: Callable[[Question], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], Answer]


def decisions() -> Way:
    """OpenAI's `POST /v1/decisions`: the probabilities of the two choices."""

    def body(question: Question) -> dict[str, Any]:
        choices = [{"value": option} for option in OPTIONS]
        asked = {"type": "choice", "name": NAME, "instructions": question.instructions, "choices": choices}
        return {"input": question.state, "questions": [asked]}

    def read(reply: Mapping[str, Any]) -> Answer:
        answer = _field(_list(reply, "answers"), 0)
        found = {_field(one, "value"): _field(one, "probability") for one in _list(answer, "probabilities")}
        return _of_probabilities(answer, found, _field(reply, "usage"))

    return Way("decisions", body, read)


def systemone() -> Way:
    """`POST /v1/systemone` of transformers, vLLM and others: the same with other names."""

    def body(question: Question) -> dict[str, Any]:
        asked = {"type": "choice", "instructions": question.instructions, "criteria": dict.fromkeys(OPTIONS)}
        return {"state": question.state, "questions": {NAME: asked}}

    def read(reply: Mapping[str, Any]) -> Answer:
        answer = _field(_field(reply, "answers"), NAME)
        found = _field(answer, "probabilities")
        return _of_probabilities(answer, found if isinstance(found, Mapping) else {}, _field(reply, "usage"))

    return Way("systemone", body, read)


def logprobs() -> Way:
    """A chat completion of one token, of which the alternatives are looked at."""

    def body(question: Question) -> dict[str, Any]:
        options = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return {"messages": question.chat(), **options}

    def read(reply: Mapping[str, Any]) -> Answer:
        choice = _field(_list(reply, "choices"), 0)
        tokens = _list(_field(choice, "logprobs"), "content")
        if not tokens:
            raise NotOfferedError("the server returned no logprobs")
        alternatives = [
            (str(_field(one, "token")).strip(), float(_field(one, "logprob") or 0.0))
            for one in (*_list(tokens[0], "top_logprobs"), tokens[0])
        ]
        found = {label: max((p for token, p in alternatives if token == label), default=None) for label in LABELS}
        usage = _tokens(_field(reply, "usage"), "prompt_tokens", "completion_tokens")
        if all(logprob is None for logprob in found.values()):
            return Answer(None, f"neither {' nor '.join(LABELS)} is among its likeliest next tokens", **usage)
        # One that is missing is no likelier than the least likely of those that are there.
        least = min(p for _, p in alternatives)
        a, b = (least if logprob is None else logprob for logprob in found.values())
        return Answer(a - b, **usage)

    return Way(CHAT, body, read)


def verdict(form: VerdictFormat, max_tokens: int) -> Way:
    """A chat completion in which the model writes its verdict."""

    def body(question: Question) -> dict[str, Any]:
        return {"messages": form.chat(question), "max_tokens": max_tokens, "temperature": 0.0}

    def read(reply: Mapping[str, Any]) -> Answer:
        choice = _field(_list(reply, "choices"), 0)
        message = _field(choice, "message")
        usage = _tokens(_field(reply, "usage"), "prompt_tokens", "completion_tokens")
        if refusal := _field(message, "refusal"):
            return Answer(None, f"it refused: {refusal}", **usage)
        if _field(choice, "finish_reason") == "content_filter":
            return Answer(None, "the server's content filter stopped it", **usage)
        text = answer_in(str(_field(message, "content") or ""))
        logit = form.read(text)
        if logit is not None:
            return Answer(logit, **usage)
        if _field(choice, "finish_reason") == "length":
            return Answer(None, "it came to none within max_new_tokens", **usage)
        return Answer(None, f"{text[-200:]!r} has none", **usage)

    return Way(CHAT, body, read)


def _of_probabilities(answer: Any, found: Mapping[str, Any], usage: Any) -> Answer:
    tokens = _tokens(usage, "input_tokens", "output_tokens")
    if _field(answer, "type") == "refusal":
        return Answer(None, "it refused", **tokens)
    if not all(isinstance(found.get(option), int | float) for option in OPTIONS):
        return Answer(None, f"the reply has no probabilities of {' and '.join(OPTIONS)}", **tokens)
    a, b = (math.log(max(float(found[option]), MIN_PROBABILITY)) for option in OPTIONS)
    return Answer(a - b, **tokens)


def _tokens(usage: Any, read: str, written: str) -> dict[str, Any]:
    counts = {"input_tokens": _field(usage, read), "output_tokens": _field(usage, written)}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _list(value: Any, name: str) -> Sequence[Any]:
    found = _field(value, name)
    return found if isinstance(found, list) else []


def _field(value: Any, name: str | int) -> Any:
    """Return a part of a reply, or None: what a server sends may have any form."""
    if isinstance(value, Mapping):
        return value.get(name)
    return value[name] if isinstance(value, list) and isinstance(name, int) and name < len(value) else None
