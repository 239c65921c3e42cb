"""One interface for language models, local or remote, and their pending requests."""

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol, Self, TypeVar

from blender_hf.modeling.conversations import Message

from .outcomes import Answers
from .sampling import Sampling
from .specs import LLMInput, RemoteLLM, as_llm

Result = TypeVar("Result")


class LanguageModel(Protocol):
    """A `LocalModel` or a `RemoteModel`."""

    name: str  # of its candidates
    runs_here: bool  # whether `start` does all of the work before it returns

    @property
    def given_up(self) -> str | None:
        """Why it is not asked for now, or None."""
        ...

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Start answering conversations; the future has `n` replies or failures for each."""
        ...


def load_model(llm: LLMInput) -> LanguageModel:
    """Return a language model, loaded if it is local, not yet asked if it is remote."""
    spec = as_llm(llm)
    # Imported lazily: each pulls in heavy dependencies.
    if isinstance(spec, RemoteLLM):
        from .remote import RemoteModel

        return RemoteModel(spec)
    from .local import LocalModel

    return LocalModel(spec)


class PendingRequests:
    """Pending requests, cancelled when their consumer stops iterating.

    Otherwise remote models would go on generating, at the user's cost, after an error, an interrupt, or a loop that was
    left early.
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
        """Yield results; cancel the pending requests when they end or the consumer stops."""
        with self:
            yield from results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for answers in tuple(self._unanswered):
            answers.cancel()
