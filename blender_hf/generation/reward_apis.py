"""The APIs of servers that score answers: what each is asked, and where its replies have the scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blender_hf.modeling.conversations import Message

from .reply_errors import ReplyError

# What text-embeddings-inference takes in one request unless it is started otherwise.
MAX_TEXTS = 32
# The status of a reply that has another form than the API's.
UNREADABLE = 400


@dataclass(frozen=True)
class Row:
    """A prompt with one candidate, as a server is asked about it."""

    source: str  # the text of the prompt
    text: str  # the text of the candidate
    messages: tuple[Message, ...] = ()  # the conversation with the candidate as its end
    ids: tuple[int, ...] | None = None  # the tokens of both, where the chat template is applied here


@dataclass(frozen=True)
class Api:
    """One API.

    Args:
        path: Where it is on a server.
        body: Makes the fields of a request about rows of one prompt, without the model.
        read: Returns the scores in a reply, in the order of the rows.
        names_model: Whether a request names the model.
        takes_ids: Whether it takes tokens, so that the chat template can be applied here.
        is_chat: Whether a request without tokens is a conversation with one candidate, which the server writes by its
            chat template.
        needs_ids: Whether it takes conversations as tokens alone.
        raw: The fields that ask for scores without a sigmoid or softmax; empty if there are none.
        switch: How a server is told the same for good.
    """

    path: str
    body: Callable[[Sequence[Row]], dict[str, Any]]
    read: Callable[[Any], list[float]]
    names_model: bool = True
    takes_ids: bool = False
    is_chat: bool = False
    needs_ids: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)
    switch: str = ""


def number(value: Any) -> float:
    """Return a score of a reply as a number; ReplyError if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ReplyError(f"the reply has {value!r:.60} where the score should be", UNREADABLE)
    return float(value)


def _in_order(entries: Any) -> list[Any]:
    """Return the entries of a list by their index; those without one stand in the order of the request."""
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ReplyError("the reply has no list of scores", UNREADABLE)
    return [entry for _, entry in sorted(enumerate(entries), key=lambda pair: pair[1].get("index", pair[0]))]


def _only(values: Any, what: str) -> Any:
    """Return the only value of a list, where a reward model has one score and a classifier several."""
    if not isinstance(values, list) or len(values) != 1:
        held = f"{len(values)} {what}" if isinstance(values, list) else f"no {what}"
        raise ReplyError(f"the model gives {held} a text; a reward model gives one", UNREADABLE)
    return values[0]


def _field(reply: Any, name: str) -> Any:
    return reply.get(name) if isinstance(reply, Mapping) else None


def _vllm_classify(rows: Sequence[Row]) -> dict[str, Any]:
    if rows[0].ids is not None:
        return {"input": [list(row.ids or ()) for row in rows], "add_special_tokens": False}
    return {"messages": [dict(message) for message in rows[0].messages]}


def _sglang_classify(rows: Sequence[Row]) -> dict[str, Any]:
    if rows[0].ids is not None:
        return {"input_ids": [list(row.ids or ()) for row in rows]}
    return {"text": [row.text for row in rows]}


_VLLM: dict[str, Any] = {
    # The second is the name of releases before 0.12.
    "raw": {"use_activation": False, "activation": False},
    "switch": "start vLLM with --pooler-config '{\"use_activation\": false}'",
}
_TEI: dict[str, Any] = {
    "names_model": False,
    "raw": {"raw_scores": True},
    "switch": "update text-embeddings-inference, which takes raw_scores",
}
# In the order in which they are tried: none takes the request of another.
APIS: dict[str, Api] = {
    # huggingface/text-embeddings-inference, router/src/http/types.rs
    "tei/rerank": Api(
        "rerank",
        lambda rows: {"query": rows[0].source, "texts": [row.text for row in rows], "truncate": False},
        lambda reply: [number(entry.get("score")) for entry in _in_order(reply)],
        **_TEI,
    ),
    "tei/predict": Api(
        "predict",
        lambda rows: {"inputs": [[row.source, row.text] for row in rows], "truncate": False},
        lambda reply: [
            number(_field(_only(labels, "labels"), "score"))
            for labels in (reply if isinstance(reply, list) else [None])
        ],
        **_TEI,
    ),
    # The README of SkyworkAI/Skywork-Reward-V2; `/v1/classify` of SGLang puts a softmax over the score.
    "sglang/classify": Api(
        "classify",
        _sglang_classify,
        lambda reply: [number(_only(_field(entry, "embedding"), "scores")) for entry in _in_order(reply)],
        takes_ids=True,
        needs_ids=True,
    ),
    # vllm-project/vllm, entrypoints/pooling/base/protocol.py and classify/protocol.py
    "vllm/classify": Api(
        "classify",
        _vllm_classify,
        lambda reply: [number(_only(entry.get("probs"), "scores")) for entry in _in_order(_field(reply, "data"))],
        takes_ids=True,
        is_chat=True,
        **_VLLM,
    ),
    "vllm/score": Api(
        "score",
        lambda rows: {"text_1": rows[0].source, "text_2": [row.text for row in rows]},
        lambda reply: [number(entry.get("score")) for entry in _in_order(_field(reply, "data"))],
        **_VLLM,
    ),
}
