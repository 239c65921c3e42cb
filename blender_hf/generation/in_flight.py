"""Requests that are on their way: they end with whoever waits for the answers."""

from collections.abc import Generator, Iterator, Sequence
from typing import Self, TypeVar

from blender_hf.modeling.tokenization import Message

from .models import LanguageModel
from .outcomes import Answers
from .sampling import Sampling

Result = TypeVar("Result")


class InFlight:
    """A context manager that cancels the requests that are still unanswered when it ends.

    Without it, models elsewhere would go on to write, at the user's cost, what nobody reads any more: after an error,
    an interrupted call, or a loop that was left early.
    """

    def __init__(self) -> None:
        self._unanswered: set[Answers] = set()

    def start(self, model: LanguageModel, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Do as the model's own `start`."""
        answers = model.start(requests, sampling)
        self._unanswered.add(answers)
        answers.add_done_callback(self._unanswered.discard)
        return answers

    def during(self, results: Iterator[Result]) -> Generator[Result, None, None]:
        """Yield results; when they end, or nobody wants more of them, nothing is asked any more."""
        with self:
            yield from results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for answers in tuple(self._unanswered):
            answers.cancel()
