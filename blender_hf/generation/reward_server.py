"""Reward models and rerankers behind a server, as pointwise rankers: vLLM, SGLang, text-embeddings-inference."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from blender_hf.engine.concurrency import together, wait_for
from blender_hf.engine.results import Truncation, Unread
from blender_hf.engine.reward_model import RewardEncoding, RewardInputs, answer_messages, readings_of
from blender_hf.errors import GenerationError, InputError, chosen
from blender_hf.inputs import Item, make_item
from blender_hf.loading.checkpoints import DEFAULT_OPTIONS, HubOptions, explained, hub_settings
from blender_hf.modeling.tokenizer_files import load_tokenizer

from .outcomes import is_transient, reason_of, status_of, unreachable
from .posting import Post, check_posting, posting
from .remote import with_retries
from .reply_errors import ReplyError
from .reward_apis import APIS, MAX_TEXTS, UNREADABLE, Api, Row
from .specs import RemoteLLM, as_llm

REWARD = "reward:"
# The rest of an address may say how its server is asked.
OPTIONS = ("api", "tokenizer", "max_length", "activation")
ACTIVATIONS = ("none", "sigmoid")
# Statuses of a server that has no such API, or not for this model.
NOT_THIS_API = frozenset({400, 404, 405, 413, 415, 422, 424, 501})
# An answer that any reward model tells from another.
PROBE = make_item("What is the capital of France?", ["The capital of France is Paris.", "No idea, and who cares?"])
# Scores further apart than this are not the same.
ROUNDING = 1e-6


@dataclass(frozen=True)
class _Asked:
    """How a server is asked: by which API, and whether its scores are probabilities of a sigmoid."""

    api: Api
    is_sigmoid: bool


class RewardServer:
    """A pointwise ranker that asks a server for the scores of a reward model or a reranker.

    How the server is asked is found out by a first request: the API that answers, and whether its scores are those of
    the model or those of a sigmoid over them. Too long texts are refused by the server, or with a `tokenizer` cut here.

    Args:
        llm: The server: `"http://host:8000#model"`, as in `specs`, or a `RemoteLLM` with a `base_url`, whose timeout,
            retries, concurrency and `extra_body` count here too. Without `#model` the server has only one.
        api: One of `reward_apis.APIS`; None finds out which.
        tokenizer: Tokenizer, or its Hub id or folder, with which the chat template is applied here, so that no
            candidate can forge what ends a message. The server is then sent tokens; None leaves both to the server.
            SGLang needs it, and takes that of the model by default.
        max_length: With a tokenizer, the most tokens of a prompt with a candidate; None is what the tokenizer states.
        activation: "sigmoid" if the scores are probabilities, which are made log-odds again; "none" if they are not;
            None finds out.
        hub: How the tokenizer is looked up.

    Raises:
        InputError: If the address or an option can't be used.
        BlenderError: If aiohttp is not installed.
    """

    def __init__(
        self,
        llm: str | RemoteLLM,
        *,
        api: str | None = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        activation: str | None = None,
        hub: HubOptions = DEFAULT_OPTIONS,
    ) -> None:
        check_posting()
        server = llm if isinstance(llm, RemoteLLM) else _from_address(llm)
        if server.base_url is None:
            raise InputError(f"{server.model}: a reward model is asked on a server; give a base_url")
        self._is_named = isinstance(llm, RemoteLLM) or "#" in llm
        address, stated = _split(server.base_url)
        given = {"api": api, "tokenizer": tokenizer, "max_length": max_length, "activation": activation}
        options = {**stated, **{name: value for name, value in given.items() if value is not None}}
        self.llm = replace(server, base_url=address)
        self._apis = list(APIS) if "api" not in options else [_known(APIS, options["api"], "api")]
        self._activation = options.get("activation")
        if self._activation is not None:
            _known(dict.fromkeys(ACTIVATIONS), self._activation, "activation")
        self._tokenizer, self._hub = options.get("tokenizer"), hub
        self._max_length = _length(options.get("max_length"))
        self._inputs: RewardInputs | None = None
        self._asked: _Asked | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the reward model {self.llm.model} at {self.llm.base_url}" if self._is_named else str(self.llm.base_url)

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item; see `PointwiseRanker`."""
        return [scores for scores, _, _ in self.scores_and_readings(items)]

    def scores_and_readings(
        self, items: Sequence[Item]
    ) -> list[tuple[tuple[float, ...], Truncation | None, Unread | None]]:
        """Score the candidates of each item, equal ones once; what was cut is known with a tokenizer here.

        Raises:
            GenerationError: If the server gives no score; the message names the item, or says what to change.
        """
        return wait_for(self._score(items))

    async def _score(self, items: Sequence[Item]) -> list[tuple[tuple[float, ...], Truncation | None, Unread | None]]:
        async with self._connected() as post:
            way = self._asked = self._asked or await self._found(post)
            if way.api.needs_ids and self._inputs is None:
                self._inputs = self._reader(self._tokenizer or self.llm.model)
            encoded = self._inputs.encode(items) if self._inputs is not None else [None] * len(items)
            return await together(
                [self._of_item(post, way, item, rows) for item, rows in zip(items, encoded, strict=True)]
            )

    async def _of_item(
        self, post: Post, way: _Asked, item: Item, encoded: Sequence[RewardEncoding] | None
    ) -> tuple[tuple[float, ...], Truncation | None, Unread | None]:
        rows = _rows(item, encoded)
        different = list({row.ids or row.text: row for row in rows}.values())
        try:
            scores = await self._ask(post, way.api, different, raw=True)
            if way.is_sigmoid:
                scores = [_log_odds(score) for score in scores]
        # Every client raises errors of its own.
        except Exception as error:
            raise GenerationError(f"{item.where}: {self.name} gave no score: {reason_of(error)}") from None
        found = dict(zip((row.ids or row.text for row in different), scores, strict=True))
        cut, unread = (None, None) if encoded is None else readings_of(item, encoded)
        return tuple(found[row.ids or row.text] for row in rows), cut, unread

    async def _found(self, post: Post) -> _Asked:
        """Find out which API answers, and whether it puts a sigmoid or a softmax over the scores."""
        if self._tokenizer is not None:
            self._inputs = self._reader(self._tokenizer)
        encoded = None if self._inputs is None else self._inputs.encode([PROBE])[0]
        refusals = []
        for name in self._apis:
            api = APIS[name]
            if encoded is not None and not api.takes_ids:
                refusals.append(f"{name} takes no tokens, so it needs no tokenizer=")
                continue
            try:
                scores = await self._ask(post, api, _rows(PROBE, encoded), raw=True)
            except Exception as error:
                if status_of(error) not in NOT_THIS_API:
                    raise GenerationError(f"{self.name} can't be asked: {reason_of(error)}") from None
                refusals.append(f"{name}: {reason_of(error)}")
                continue
            return _Asked(api, await self._has_sigmoid(post, name, api, scores, _rows(PROBE, encoded)))
        raise GenerationError(
            f"{self.name} gives scores by no API that is known ({'; '.join(refusals)}); check the address, and that it "
            "serves a reward model or a reranker"
        )

    async def _has_sigmoid(self, post: Post, name: str, api: Api, scores: Sequence[float], rows: Sequence[Row]) -> bool:
        if all(score == 1.0 for score in scores):
            raise GenerationError(
                f"{self.name} gives 1.0 for any answer, which is a softmax over its only score: "
                f"{api.switch or 'ask SGLang at /classify, not at /v1/classify'}"
            )
        if self._activation is not None or not api.raw:
            return self._activation == "sigmoid"
        activated = await self._ask(post, api, rows, raw=False)
        heeds = any(abs(a - b) > ROUNDING for a, b in zip(scores, activated, strict=True))
        if heeds or not all(0 <= score <= 1 for score in scores):
            return False
        told = ", ".join(f"{field}={str(value).lower()}" for field, value in api.raw.items())
        raise GenerationError(
            f"{self.name} gives {', '.join(f'{score:g}' for score in scores)} by {name}, with {told} and without: that "
            f"may be a sigmoid over its scores. Either {api.switch}, or say what they are: activation='sigmoid' makes "
            "them log-odds again, activation='none' takes them as they are"
        )

    async def _ask(self, post: Post, api: Api, rows: Sequence[Row], *, raw: bool) -> list[float]:
        size = 1 if api.is_chat and rows[0].ids is None else MAX_TEXTS
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        found = await together([self._part(post, api, part, raw) for part in parts])
        return [score for part in found for score in part]

    async def _part(self, post: Post, api: Api, rows: Sequence[Row], raw: bool) -> list[float]:
        model = {"model": self.llm.model} if api.names_model and self._is_named else {}
        body = {**model, **api.body(rows), **(api.raw if raw else {}), **(self.llm.extra_body or {})}
        reply = await with_retries(
            lambda: post(f"{self.llm.base_url}/{api.path}", body),
            timeout=self.llm.timeout,
            max_retries=self.llm.max_retries,
            backoff=self.llm.backoff,
            may_pass=lambda error: is_transient(error) and (self._asked is not None or unreachable(error) is None),
        )
        scores = api.read(reply)
        if len(scores) != len(rows):
            raise ReplyError(f"the reply has {len(scores)} scores for {len(rows)} answers", UNREADABLE)
        return scores

    @asynccontextmanager
    async def _connected(self) -> Any:
        """Yield what sends requests, no more at a time than `concurrency` allows."""
        limit = asyncio.Semaphore(self.llm.concurrency)
        async with posting(self.llm) as post:

            async def limited(url: str, body: Mapping[str, Any]) -> Any:
                async with limit:
                    return await post(url, body)

            yield limited

    def _reader(self, tokenizer: Any) -> RewardInputs:
        if isinstance(tokenizer, str):
            where, hub = tokenizer, hub_settings(self._hub)
            tokenizer = explained(lambda: load_tokenizer(where, **hub), where, "tokenizer", self._hub)
        return RewardInputs(tokenizer, self._max_length or tokenizer.model_max_length)


def load_reward_server(address: str, hub: HubOptions = DEFAULT_OPTIONS) -> RewardServer:
    """Return the ranker at "http://host:8000?api=...#model"; the options in its query are those of `OPTIONS`."""
    return RewardServer(address, hub=replace(hub, revision=None, subfolder=None))


def _from_address(text: str) -> RemoteLLM:
    if not text.startswith(("http://", "https://")):
        raise InputError(f"a reward model on a server is written {REWARD}http://host:8000#model, not {text!r}")
    # An address becomes a `RemoteLLM`; without a model's name it stands for itself.
    return cast(RemoteLLM, as_llm(text if "#" in text else f"{text}#{text.split('?')[0]}"))


def _split(base_url: str) -> tuple[str, dict[str, str]]:
    """Return an address without a final /v1, which none of the APIs has, and without the options in its query."""
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    unknown = sorted({name for name, _ in query} - set(OPTIONS))
    if unknown:  # without its value, which may be a secret
        raise InputError(
            f"{', '.join(unknown)} after the question mark of an address; it may have {', '.join(OPTIONS)}, api_key_env"
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit(parts._replace(path=path, query="")), dict(query)


def _known(table: Mapping[str, Any], name: Any, what: str) -> str:
    chosen(table, name, what)
    return str(name)


def _length(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and value > 0):
        return value
    if not isinstance(value, str) or not value.isdecimal() or int(value) < 1:
        raise InputError(f"max_length={value!r}; use a positive number of tokens")
    return int(value)


def _rows(item: Item, encoded: Sequence[RewardEncoding] | None) -> list[Row]:
    """Return what a server is asked about the candidates of an item."""
    return [
        Row(
            item.source,
            candidate.text,
            (*item.messages, *answer_messages(candidate)),
            None if encoded is None else encoded[place].input_ids,
        )
        for place, candidate in enumerate(item.candidates)
    ]


def _log_odds(probability: float) -> float:
    if not 0 < probability < 1:
        raise ReplyError(
            f"its score {probability!r} is no probability between 0 and 1, or is rounded so that it can't be told from "
            "others: let the server give the scores themselves",
            UNREADABLE,
        )
    return math.log(probability) - math.log1p(-probability)
