"""A server of a reward model, on loopback, that speaks the APIs of vLLM, SGLang and text-embeddings-inference.

The model is small and random, and runs in transformers as it is, without the code under test. A test sets which APIs
there are, what happens to the scores, and faults.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.loopback import Reply, listening


@dataclass
class RewardHost:
    """The state of a server, and what it was asked.

    Args:
        model: The reward model.
        tokenizer: Its tokenizer; without a chat template, it scores pairs of texts.
        serves: "vllm", "sglang" or "tei".
        heeds: Whether a request may turn the sigmoid off.
        activation: What is put over a score unless it is turned off: "sigmoid", "softmax" or "none".
        max_tokens: What is longer is refused.
        faults: Statuses that the next requests get instead of an answer; 0 is one that never comes.
    """

    model: Any
    tokenizer: Any
    serves: str = "vllm"
    heeds: bool = True
    activation: str = "sigmoid"
    max_tokens: int = 128
    faults: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            self.requests.append((path, body))
            fault = self.faults.pop(0) if self.faults else None
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(5 if fault == 0 else 0.01)
        try:
            if fault:
                return fault, {"error": "ordered by a test"}
            handle = HANDLERS.get((self.serves, path))
            return (404, {"detail": "Not Found"}) if handle is None else handle(self, body)
        finally:
            with self._lock:
                self._now -= 1

    def scores(self, inputs: list[Any], raw: bool) -> list[float]:
        """Score inputs: ids, texts, or pairs of texts; too long ones raise ValueError."""
        return [self._activated(self._score(one), raw) for one in inputs]

    def _score(self, one: Any) -> float:
        if isinstance(one, list) and all(isinstance(part, int) for part in one):
            encoded = {"input_ids": torch.tensor([one])}
        else:
            texts = [one] if isinstance(one, str) else one
            is_pair = self.tokenizer.chat_template is None
            options = {"return_token_type_ids": is_pair, "add_special_tokens": is_pair, "return_tensors": "pt"}
            encoded = dict(self.tokenizer(*texts, **options))
        if encoded["input_ids"].shape[1] > self.max_tokens:
            raise ValueError(f"the input has {encoded['input_ids'].shape[1]} tokens, more than {self.max_tokens}")
        with self._lock, torch.no_grad():
            return float(self.model(**encoded).logits.item())

    def _activated(self, score: float, raw: bool) -> float:
        if self.activation == "none" or (raw and self.heeds):
            return score
        return 1.0 if self.activation == "softmax" else torch.sigmoid(torch.tensor(score, dtype=torch.double)).item()


def _is_raw(body: dict[str, Any]) -> bool:
    return body.get("use_activation") is False


def _vllm_classify(host: RewardHost, body: dict[str, Any]) -> tuple[int, Any]:
    if "messages" in body:
        if host.tokenizer.chat_template is None:
            return 400, {"error": {"message": "default chat template is no longer allowed", "code": 400}}
        inputs = [host.tokenizer.apply_chat_template(body["messages"], tokenize=False)]
    elif "input" in body:
        inputs = body["input"]
    else:
        return 400, {"error": {"message": "Field required: input", "code": 400}}
    found = host.scores(inputs, _is_raw(body))
    entries = [{"index": n, "label": "LABEL_0", "probs": [one], "num_classes": 1} for n, one in enumerate(found)]
    return 200, {"object": "list", "model": body.get("model"), "data": entries[::-1], "usage": {}}


def _vllm_score(host: RewardHost, body: dict[str, Any]) -> tuple[int, Any]:
    found = host.scores([[body["text_1"], text] for text in body["text_2"]], _is_raw(body))
    return 200, {"data": [{"index": n, "object": "score", "score": one} for n, one in enumerate(found)]}


def _sglang_classify(host: RewardHost, body: dict[str, Any]) -> tuple[int, Any]:
    inputs = body.get("input_ids", body.get("text"))
    if inputs is None:
        return 422, {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]}
    return 200, [{"embedding": [one], "meta_info": {}} for one in host.scores(inputs, raw=True)]


def _tei_rerank(host: RewardHost, body: dict[str, Any]) -> tuple[int, Any]:
    if "texts" not in body:
        return 422, "Failed to deserialize the JSON body into the target type: missing field `texts`"
    found = host.scores([[body["query"], text] for text in body["texts"]], body.get("raw_scores", False))
    ranked = sorted(enumerate(found), key=lambda pair: -pair[1])
    return 200, [{"index": n, "score": one} for n, one in ranked]


def _tei_predict(host: RewardHost, body: dict[str, Any]) -> tuple[int, Any]:
    found = host.scores(body["inputs"], body.get("raw_scores", False))
    return 200, [[{"score": one, "label": "LABEL_0"}] for one in found]


HANDLERS: dict[tuple[str, str], Callable[[RewardHost, dict[str, Any]], tuple[int, Any]]] = {
    ("vllm", "/classify"): _vllm_classify,
    ("vllm", "/score"): _vllm_score,
    ("sglang", "/classify"): _sglang_classify,
    ("tei-reranker", "/rerank"): _tei_rerank,
    ("tei-classifier", "/predict"): _tei_predict,
}


@contextmanager
def hosting(host: RewardHost) -> Iterator[RewardHost]:
    def answer(path: str, body: Any, authorization: str) -> Reply:
        host.authorizations.append(authorization or None)
        try:
            return *host.answer(path, body), {}
        except ValueError as error:
            return 413, {"error": str(error), "error_type": "Validation"}, {}

    with listening() as listener:
        host.url, listener.answer = listener.url, answer
        yield host
