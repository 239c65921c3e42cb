"""What users pass in, checked once at the border: prompts, candidates, instructions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, Protocol, TypeVar

from .errors import InputError, InputTypeError
from .modeling.conversations import (
    Message,
    Turn,
    after_prompt,
    as_messages,
    candidate_of,
    is_conversation,
    plain_values,
    render_answer,
    render_turns,
    report_unread,
    turns,
)

Result = TypeVar("Result")
Entry = TypeVar("Entry", covariant=True)


@dataclass(frozen=True)
class Candidate:
    """An answer, and the name of the language model that wrote it, if it is known.

    Args:
        text: Its text, which is what rankers, judges and fusers read; of chat messages, `render_answer` of them.
        model: The name of its language model.
        messages: The chat messages that it was given as, such as a tool call; None for a text.
    """

    text: str
    model: str | None = None
    messages: tuple[Message, ...] | None = field(default=None, hash=False, repr=False)

    @property
    def fields(self) -> dict[str, Any]:
        """It as the fields of a record."""
        messages = {} if self.messages is None else {"messages": list(self.messages)}
        return {"model": self.model, "text": self.text, **messages}


# A string or chat messages; a string, `{"text", "model"}`, chat messages or a `Candidate`; the candidates of a prompt;
# those of many.
Prompt = str | Sequence[Mapping[str, Any]]
CandidateInput = str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Candidate
Candidates = Iterable[CandidateInput]
CandidateLists = Iterable[Candidates]


class Many(Protocol[Entry]):
    """A list or the like; not a string, though to a type checker that is a sequence of strings."""

    def __contains__(self, value: object, /) -> bool: ...
    def __iter__(self) -> Iterator[Entry]: ...
    def __len__(self) -> int: ...


Prompts = Many[Prompt]


@dataclass(frozen=True)
class Item:
    """A prompt with its candidates.

    Args:
        prompt: A string or chat messages, as given.
        candidates: The answers; none for a prompt that language models are about to answer.
        instruction: What to do with the prompt, if stated separately.
        where: How messages name this item, such as "item 3".
    """

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    instruction: str | None = None
    where: str = "item 0"
    # Which parts of it were logged as not read; shared with the items that are made of it by `dataclasses.replace`.
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The conversation of prompt and instruction, which every model gets; see `as_messages`."""
        return as_messages(self.prompt, self.instruction)

    @cached_property
    def _turns(self) -> list[Turn]:
        return turns(self.messages)

    @cached_property
    def source(self) -> str:
        """The text of the messages, for models without a chat template; parts that are no text are logged."""
        self.report_unread()
        return render_turns(self._turns)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the candidates."""
        return tuple(candidate.text for candidate in self.candidates)

    def report_unread(self) -> None:
        """Log, once an item, which pictures and the like are not read, where a model reads text alone."""
        if isinstance(self.prompt, str) and not any(candidate.messages for candidate in self.candidates):
            return
        given = {"": self._turns} | {
            f", candidate {index}": turns(candidate.messages)
            for index, candidate in enumerate(self.candidates)
            if candidate.messages is not None
        }
        for place, found in given.items():
            key = render_turns(found)
            if key not in self._told:
                self._told.add(key)
                report_unread(found, self.where + place)


def make_item(
    prompt: Prompt,
    candidates: Iterable[CandidateInput],
    instruction: str | None = None,
    *,
    where: str = "item 0",
    allow_no_candidates: bool = False,
) -> Item:
    """Check one prompt with its candidates.

    Args:
        prompt: A string, or chat messages.
        candidates: Strings, mappings `{"text", "model"}` or chat messages; any iterable but a string. Messages that
            begin with those of the prompt, as a chat pipeline of transformers returns them, are what follows it.
        instruction: What to do with the prompt, if stated separately.
        where: How error messages name this item.
        allow_no_candidates: Whether there may be none.

    Returns:
        The checked item; the arguments are left as they are.

    Raises:
        InputTypeError: If something has the wrong type; the message names the item.
        InputError: If there is no candidate or a chat message can't be used; the message names the item.
    """
    if instruction is not None and not isinstance(instruction, str):
        raise InputTypeError(f"{where}: the instruction must be a string, not {type(instruction).__name__}")
    if not _is_column(candidates):
        raise InputTypeError(
            f"{where}: candidates must be a list of strings for this prompt, or of chat messages, not "
            f"{type(candidates).__name__}"
        )
    checked = tuple(as_candidate(value, f"{where}, candidate {index}") for index, value in enumerate(candidates))
    if not checked and not allow_no_candidates:
        raise InputError(f"{where}: there are no candidates; give at least one answer to rank")
    with _naming(where):
        item = Item(prompt if isinstance(prompt, str) else plain_values(prompt), checked, instruction, where)
        texts = [turn.line for turn in item._turns]
        item = replace(item, candidates=tuple(_without_prompt(candidate, item) for candidate in checked))
    check_characters((*texts, *item.texts), where)
    return item


def _without_prompt(candidate: Candidate, item: Item) -> Candidate:
    if candidate.messages is None:
        return candidate
    own = after_prompt(candidate.messages, item.prompt, item.instruction)
    return candidate if own == candidate.messages else Candidate(render_answer(own), candidate.model, own)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Raise what is wrong with chat messages as an error of this package that names the item."""
    try:
        yield
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: it is nested too deeply") from None


def check_characters(texts: Iterable[str], where: str) -> None:
    """Raise InputError if a string has a lone surrogate: JSON can spell one, UTF-8 can't encode it."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: contains a lone surrogate ({error.object[error.start]!r}), which can't be encoded as UTF-8; "
            "remove it, for example by text.encode(errors='replace').decode()"
        ) from None


def make_items(prompts: Any, candidates: Any, instructions: Any = None) -> tuple[list[Item], bool]:
    """Check one prompt with its candidates, or lists of both; return the items, and whether it was a single prompt.

    Raises:
        InputTypeError: If the lists are nested wrongly.
        InputError: If the lists differ in length.
    """
    if is_single_prompt(prompts):
        return [make_item(prompts, candidates, instructions, where="the prompt")], True
    columns = {"prompts": prompts, "candidates": candidates}
    columns |= {"instructions": instructions} if instructions is not None else {}
    rows = as_columns(columns)
    rows.setdefault("instructions", [None] * len(rows["prompts"]))
    triples = zip(rows["prompts"], rows["candidates"], rows["instructions"], strict=True)
    return [make_item(*triple, where=f"item {index}") for index, triple in enumerate(triples)], False


def is_single_prompt(prompts: Any) -> bool:
    """Return whether this is one prompt (a string or a conversation), not a list of prompts."""
    return isinstance(prompts, str) or is_conversation(prompts)


def as_columns(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return columns, by their names, as lists of equal length, or raise InputTypeError or InputError."""
    for name, column in columns.items():
        if not _is_column(column):
            found = "None" if column is None else type(column).__name__
            raise InputTypeError(f"{name} must be a list with one entry a prompt, not {found}")
    rows = {name: list(column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in rows.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"give one entry a prompt in every list; the lengths are {lengths}")
    return rows


def pairs_of(prompts: Any, candidates_a: Any, candidates_b: Any) -> tuple[Any, Any]:
    """Return the prompts, and two columns of candidates as one column of pairs, for `make_items` to check."""
    if is_single_prompt(prompts):
        return prompts, [candidates_a, candidates_b]
    rows = as_columns({"prompts": prompts, "candidates_a": candidates_a, "candidates_b": candidates_b})
    pairs = zip(rows["candidates_a"], rows["candidates_b"], strict=True)
    return rows["prompts"], [list(pair) for pair in pairs]


def unwrapped(results: Iterable[Result], single: bool) -> Result | list[Result]:
    """Return the result of a single prompt, or the list of those of many."""
    found = list(results)
    return found[0] if single else found


def check_tie_threshold(tie_threshold: float) -> None:
    """Raise InputError unless this is a distance from probability 0.5."""
    if not isinstance(tie_threshold, Real) or not 0 <= tie_threshold <= 0.5:
        raise InputError(f"tie_threshold={tie_threshold!r}; it is a distance from probability 0.5, from 0 to 0.5")


def _is_column(value: Any) -> bool:
    """Return whether this is a list or the like: not a string, a mapping, or a set, which has no order."""
    return isinstance(value, Iterable) and not isinstance(value, str | Mapping | Set)


def as_candidate(value: Any, where: str) -> Candidate:
    """Return a candidate; errors name it by `where`.

    Args:
        value: A candidate, or what `candidate_of` takes.
        where: How error messages name it.

    Raises:
        InputTypeError: If it is something else, or of the wrong type.
        InputError: If its messages can't be read, or its text is not theirs.
    """
    if isinstance(value, Candidate):
        return value
    with _naming(where):
        return Candidate(*candidate_of(value))
