"""A chat model that judges pairs of candidates, each pair in both orders of presentation."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from blender_hf.engine.streaming import windowed
from blender_hf.errors import GenerationError
from blender_hf.inputs import Item
from blender_hf.modeling.conversations import Message

from .models import LanguageModel, PendingRequests
from .outcomes import Answers, Failure, Outcome
from .sampling import Sampling
from .verdicts import SWAPPED, Verdict, judging_messages, parse_verdict, reminded, settle

# A verdict is short; the rest is for models that think first.
DEFAULT_SAMPLING = Sampling(max_new_tokens=1024, temperature=0)
# How often the question is repeated after a reply without a verdict.
MAX_REMINDERS = 2
# Prompts that are judged together; each has many pairs.
DEFAULT_WINDOW = 4
UNPARSABLE = "the judge gave no verdict"

Pair = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """Pairs of a prompt's candidates to judge, each the indices of two."""

    item: Item
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Judgment:
    """The judgment of a pair of candidates."""

    pair: Pair  # their indices, a and b
    verdict: Verdict | None  # the verdict of both orders, see `settle`; None if one of them has none
    # the verdicts with a shown first and with b shown first; in each, "A" is the one shown first
    orders: tuple[Verdict | None, Verdict | None]
    reason: str | None = None  # why there is no verdict, or None
    reminders: int = 0  # how many replies had no verdict, so that the judge was asked again

    @property
    def replied(self) -> bool:
        """Whether the judge replied, with or without a verdict."""
        return self.verdict is not None or self.reason == UNPARSABLE

    @property
    def consistent(self) -> bool:
        """Whether both orders agree."""
        first, second = self.orders
        return second is not None and first == SWAPPED[second]


@dataclass
class _Question:
    """One order of a pair, until it has a verdict or fails."""

    messages: Sequence[Message]
    verdict: Verdict | None = None
    reason: str | None = None
    reminders: int = 0

    @property
    def is_open(self) -> bool:
        return self.verdict is None and self.reason is None

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            self.reason = outcome.reason
            return
        self.verdict = parse_verdict(outcome.text)
        if self.verdict is None and self.reminders == MAX_REMINDERS:
            self.reason = UNPARSABLE
        elif self.verdict is None:
            self.messages = reminded(self.messages, outcome.text)
            self.reminders += 1


class Judge:
    """A chat model that compares candidates.

    Args:
        model: The chat model.
        sampling: How it generates.
    """

    def __init__(self, model: LanguageModel, sampling: Sampling = DEFAULT_SAMPLING) -> None:
        self.model = model
        self.sampling = replace(sampling, n=1)

    def iter(self, tasks: Iterable[Task], window: int = DEFAULT_WINDOW) -> Generator[list[Judgment], None, None]:
        """Judge the pairs of prompts from any iterable, lazily and in order, with constant memory.

        A window of prompts is worked on together. Left early, the iterator cancels the pending requests.
        """
        pending = PendingRequests()

        def ask(batch: Sequence[Task]) -> tuple[list[_Question], Answers]:
            questions = [question for task in batch for question in _questions(task)]
            return questions, self._start(pending, questions)

        def finish(batch: Sequence[Task], asked: tuple[list[_Question], Answers]) -> list[list[Judgment]]:
            questions, answers = asked
            self._settle_all(pending, questions, answers)
            two = iter(questions)
            return [[_judgment(pair, next(two), next(two)) for pair in task.pairs] for task in batch]

        return pending.during(windowed(tasks, ask, finish, window))

    def _start(self, pending: PendingRequests, questions: Sequence[_Question]) -> Answers:
        return pending.start(self.model, [question.messages for question in questions], self.sampling)

    def _settle_all(self, pending: PendingRequests, questions: Sequence[_Question], answers: Answers) -> None:
        asked = list(questions)
        while asked:
            for question, (outcome,) in zip(asked, answers.result(), strict=True):
                question.take(outcome)
            if self.model.given_up is not None:
                raise GenerationError(f"the judge {self.model.name} can't be asked any more: {self.model.given_up}")
            asked = [question for question in asked if question.is_open]
            if asked:
                answers = self._start(pending, asked)


def _questions(task: Task) -> Iterator[_Question]:
    for first, second in task.pairs:
        for a, b in ((first, second), (second, first)):
            yield _Question(judging_messages(task.item.source, task.item.texts[a], task.item.texts[b]))


def _judgment(pair: Pair, first: _Question, second: _Question) -> Judgment:
    orders = (first.verdict, second.verdict)
    reminders = first.reminders + second.reminders
    if first.verdict is None or second.verdict is None:
        return Judgment(pair, None, orders, first.reason or second.reason, reminders)
    return Judgment(pair, settle(first.verdict, second.verdict), orders, None, reminders)
