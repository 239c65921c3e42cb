"""A language model on a server as a ranker."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from statistics import fmean
from typing import Any
from weakref import WeakKeyDictionary

from blender_hf.data.value_cache import key_of_texts
from blender_hf.engine.scorer import Presentation
from blender_hf.errors import GenerationError, InputError
from blender_hf.generation.outcomes import is_transient, reason_of, status_of, unreachable
from blender_hf.generation.remote import with_retries
from blender_hf.generation.specs import RemoteLLM

from .asking import NotOfferedError, Way, decisions, logprobs, systemone, verdict
from .endpoints import Post, check_endpoint, opened
from .questions import Question
from .records import Answer, Records, Usage
from .settings import WAYS, Inquiry, JudgeSettings

logger = logging.getLogger(__name__)

# What servers answer where they have no such path, or no such option of it.
NOT_OFFERED = frozenset({400, 404, 405, 415, 422, 501})


class RemoteJudge:
    """A language model that is asked over a network which of two answers is better; an `AsyncPairwiseRanker`.

    Every answer is kept as soon as it is there. If a request fails, those that were sent are still waited for, and no
    others are.

    Args:
        llm: Which model, and how to reach it.
        settings: How it is asked.

    Raises:
        BlenderError: If a package that the client needs is not installed.
        InputError: If Inference Providers are meant and there is no token.
    """

    def __init__(self, llm: RemoteLLM, settings: JudgeSettings) -> None:
        check_endpoint(llm)
        self.llm = llm
        self.settings = settings
        self.name = llm.label
        self.logit_temperature = settings.logit_temperature
        self._inquiry = Inquiry(llm.model, settings)
        self._records = Records(
            self.name,
            settings.cache_file(remote=True),
            settings.max_comparisons,
            settings.on_unreadable == "tie",
        )
        self.ask: str | None = self._inquiry.ask
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._records.usage

    @property
    def n_criteria(self) -> int:
        """How many questions one presentation takes."""
        return len(self._inquiry.criteria)

    async def alogits(self, presentations: Sequence[Presentation]) -> list[float]:
        """Ask which candidate of each presentation is better; see `PairwiseRanker.logits`."""
        loop = asyncio.get_running_loop()
        session = self._sessions.setdefault(loop, _Session(self.llm))
        asked = [[(self._key(one), one) for one in self._inquiry.questions(pair)] for pair in presentations]
        questions = {key: question for pair in asked for key, question in pair}
        answers = self._records.known(list(questions))
        missing = {key: question for key, question in questions.items() if key not in answers}
        if not session.pending:
            session.refusal = None  # it may be another time
        fresh = [key for key in missing if key not in session.pending]
        self._records.reserve(len(fresh))
        for key in fresh:
            session.pending[key] = asyncio.ensure_future(self._answer(session, key, questions[key]))
        tasks = {key: session.pending[key] for key in missing}
        await session.finish(tasks)
        answers |= {key: task.result() for key, task in tasks.items()}
        return [fmean(self._records.logit(answers[key]) for key, _ in pair) for pair in asked]

    async def _answer(self, session: "_Session", key: bytes, question: Question) -> Answer:
        try:
            async with session.limit, session.connection() as post:
                # One question goes ahead of all others, and shows whether and how the judge can be asked.
                async with session.proving if not session.proven else nullcontext():
                    if session.refusal is not None:
                        raise session.refusal
                    session.sent.add(key)
                    answer = None if session.proven else await self._first(session, post, question)
                if answer is None:
                    answer = await self._asked(post, question)
            self._records.keep(key, answer)
            return answer
        finally:
            session.sent.discard(key)
            session.pending.pop(key, None)

    async def _first(self, session: "_Session", post: Post, question: Question) -> Answer:
        try:
            answer = await (self._detect(post, question) if self.ask is None else self._asked(post, question))
        except GenerationError as error:
            session.refusal = error
            raise
        session.proven = True
        return answer

    async def _asked(self, post: Post, question: Question) -> Answer:
        try:
            return await self._asked_by(str(self.ask), post, question)
        except NotOfferedError as error:
            raise GenerationError(f"the judge {self.name} can't be asked with ask={self.ask!r}: {error}") from None
        except InputError:
            raise
        # Every client raises errors of its own.
        except Exception as error:
            raise self._failure(error, f" (asked with ask={self.ask!r})") from error

    async def _detect(self, post: Post, question: Question) -> Answer:
        """Ask in one way after the other until one is offered, and keep to it."""
        reasons: list[str] = []
        for name in WAYS:
            try:
                answer = await self._asked_by(name, post, question)
            except NotOfferedError as error:
                reasons.append(f"{name}: {error}")
                continue
            except InputError:
                raise
            except Exception as error:
                if status_of(error) not in NOT_OFFERED or name == WAYS[-1]:
                    raise self._failure(error) from error
                reasons.append(f"{name}: {reason_of(error)}")
                continue
            if name == "logprobs" and answer.logit is None:  # a model that thinks before it answers
                reasons.append(f"{name}: {answer.reason}")
                continue
            self.ask = name
            logger.info("the judge %s is asked with ask=%r (%s)", self.name, name, "; ".join(reasons) or "the first")
            return answer
        raise GenerationError(f"the judge {self.name} can't be asked: {'; '.join(reasons)}")

    async def _asked_by(self, name: str, post: Post, question: Question) -> Answer:
        way = self._way(name)
        body = {"model": self.llm.model, **way.body(question)}
        extra = dict(self.llm.extra_body or {})
        if "max_completion_tokens" in extra:  # OpenAI's reasoning models refuse the old name
            body.pop("max_tokens", None)
        body |= extra if self.llm.base_url is not None else {"extra_body": extra} if extra else {}
        reply = await with_retries(
            lambda: post(way.path, body),
            timeout=self.llm.timeout,
            max_retries=self.llm.max_retries,
            backoff=self.llm.backoff,
            may_pass=self._may_pass,
        )
        return way.read(reply)

    def _may_pass(self, error: BaseException) -> bool:
        """Return whether to ask again: not where a server was never there."""
        return is_transient(error) and (self.usage.requests > 0 or unreachable(error) is None)

    def _failure(self, error: Exception, how: str = "") -> GenerationError:
        return GenerationError(f"the judge {self.name} gave no answer: {reason_of(error)}{how}{self._records.where}")

    def _way(self, name: str) -> Way:
        made = {"decisions": decisions, "systemone": systemone, "logprobs": logprobs}
        return made[name]() if name in made else verdict(self._inquiry.form, self.settings.max_new_tokens)

    def _key(self, question: Question) -> bytes:
        """Return what identifies a question: the model, where it is, how it is asked, and all texts."""
        home = self.llm.base_url or self.llm.provider or str(getattr(self.llm.client, "base_url", ""))
        how = self.settings.ask or "", self._inquiry.verdicts
        return key_of_texts((self.llm.model, home, *how, *question.identity))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sessions": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _sessions=WeakKeyDictionary())


class _Session:
    """What a judge has in one event loop: its connection, and the requests that are under way."""

    def __init__(self, llm: RemoteLLM) -> None:
        self.limit = asyncio.Semaphore(llm.concurrency)
        self.proving = asyncio.Lock()
        self.proven = False
        self.refusal: GenerationError | None = None
        self.pending: dict[bytes, asyncio.Task[Answer]] = {}
        self.sent: set[bytes] = set()
        self._llm = llm
        self._opening = asyncio.Lock()
        self._connection = AsyncExitStack()
        self._post: Post | None = None
        self._users = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Post]:
        """Yield one connection to all requests that are under way; the last one closes it."""
        self._users += 1
        try:
            async with self._opening:
                if self._post is None:
                    self._post = await self._connection.enter_async_context(opened(self._llm))
            yield self._post
        finally:
            self._users -= 1
            if not self._users:
                self._post = None
                await self._connection.pop_all().aclose()

    async def finish(self, tasks: Mapping[bytes, "asyncio.Task[Answer]"]) -> None:
        """Wait for answers; after an error only for those that were asked for, which are kept."""
        if not tasks:
            return
        try:
            done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await self._stop(tasks)
            raise
        failed = [task for task in done if task.cancelled() or task.exception() is not None]
        if failed:
            await self._stop(tasks)
            failed[0].result()

    async def _stop(self, tasks: Mapping[bytes, "asyncio.Task[Answer]"]) -> None:
        for key, task in tasks.items():
            if key not in self.sent:
                task.cancel()
        await asyncio.wait(tasks.values())
        for task in tasks.values():
            if not task.cancelled():
                task.exception()  # only the first one is raised
