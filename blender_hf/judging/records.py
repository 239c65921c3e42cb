"""What a judge has answered and what it cost: the cache, the budget, and the summary."""

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blender_hf.data.value_cache import ValueCache
from blender_hf.errors import BlenderError, GenerationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A judge's answer to a question.

    Args:
        logit: Positive if the candidate presented first is better; None if the reply could not be read.
        reason: Why it could not.
        input_tokens: Tokens of the request.
        output_tokens: Tokens of the reply.
    """

    logit: float | None
    reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass
class Usage:
    """What a judge was asked so far.

    Args:
        requests: Questions that it answered, one for each order of a pair and each criterion.
        cached: Questions that were answered before, from the cache.
        unreadable: Replies without a verdict, refusals among them.
        input_tokens: Tokens of the requests, as far as the server counts them.
        output_tokens: Tokens of the replies.
    """

    requests: int = 0
    cached: int = 0
    unreadable: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __str__(self) -> str:
        parts = (
            f"{self.requests} requests to the judge, {self.input_tokens} + {self.output_tokens} tokens",
            f"{self.cached} answers from the cache" if self.cached else "",
            f"{self.unreadable} replies without a verdict" if self.unreadable else "",
        )
        return ", ".join(filter(None, parts))


def usage_of(ranker: Any) -> dict[str, int]:
    """Return what a ranker was asked so far, the fields of its `Usage`; nothing if it is no judge."""
    usage = getattr(ranker, "usage", None)
    return asdict(usage) if isinstance(usage, Usage) else {}


class Records:
    """The answers of a judge, each kept as soon as it is there.

    Args:
        name: The judge, for messages.
        cache: The file of answers; None keeps none.
        max_comparisons: How many questions may be asked that the cache can't answer; None is any number.
        ties: Whether a reply that can't be read is a tie; otherwise it is an error.
    """

    def __init__(self, name: str, cache: Path | None, max_comparisons: int | None, ties: bool) -> None:
        self.name = name
        self.usage = Usage()
        self._cache = None if cache is None else ValueCache(cache, "judgments", "TEXT")
        self._max_comparisons = max_comparisons
        self._ties = ties
        self._asked = 0
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """Where the answers are kept, for a message about an error."""
        return "" if self._cache is None else f"; the answers so far are kept in {self._cache.path}"

    def known(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Return the answers to those questions that were answered before."""
        if self._cache is None:
            return {}
        found = {key: Answer(**json.loads(value)) for key, value in self._cache.get(keys).items()}
        with self._lock:
            self.usage.cached += len(found)
        return found

    def reserve(self, n: int) -> None:
        """Count questions that are about to be asked, or raise if they are more than the budget has left."""
        with self._lock:
            left = None if self._max_comparisons is None else self._max_comparisons - self._asked
            if left is not None and n > left:
                raise BlenderError(
                    f"the next {n} comparisons of {self.name} are more than the {left} that are left of "
                    f"max_comparisons={self._max_comparisons}; allow more, or compare fewer pairs, such as with "
                    "schedule='knockout'"
                )
            self._asked += n

    def keep(self, key: bytes, answer: Answer) -> None:
        """Keep an answer that was paid for."""
        with self._lock:
            self.usage.requests += 1
            self.usage.unreadable += answer.logit is None
            self.usage.input_tokens += answer.input_tokens
            self.usage.output_tokens += answer.output_tokens
        if self._cache is not None:
            self._cache.put({key: json.dumps(asdict(answer), ensure_ascii=False)})

    def logit(self, answer: Answer) -> float:
        """Return the logit of an answer, 0 for a tie that stands for a reply without a verdict."""
        if answer.logit is not None:
            return answer.logit
        if not self._ties:
            raise GenerationError(
                f"the judge {self.name} gave no verdict: {answer.reason} (on_unreadable='tie' takes such replies as "
                "ties, and counts them)"
            )
        logger.warning("the judge %s gave no verdict, which is taken as a tie: %s", self.name, answer.reason)
        return 0.0

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.Lock())
