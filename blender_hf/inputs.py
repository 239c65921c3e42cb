"""What users pass in, checked once at the border: prompts, candidates, instructions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Protocol, TypeVar

from .errors import InputError, InputTypeError
from .modeling.conversations import Message, as_messages, render_messages

Result = TypeVar("Result")
Entry = TypeVar("Entry", covariant=True)


@dataclass(frozen=True)
class Candidate:
    """An answer, and the name of the language model that wrote it, if it is known."""

    text: str
    model: str | None = None


# A string or chat messages; a string, `{"text", "model"}` or a `Candidate`; the candidates of one prompt, and of many.
Prompt = str | Sequence[Mapping[str, Any]]
CandidateInput = str | Mapping[str, Any] | Candidate
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

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The conversation of prompt and instruction, which every model gets; see `as_messages`."""
        return as_messages(self.prompt, self.instruction)

    @cached_property
    def source(self) -> str:
        """The text of the messages, for models without a chat template."""
        return render_messages(self.messages)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the candidates."""
        return tuple(candidate.text for candidate in self.candidates)


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
        candidates: Strings, or mappings `{"text", "model"}`; any iterable but a string.
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
            f"{where}: candidates must be a list of strings for this prompt, not {type(candidates).__name__}"
        )
    checked = tuple(as_candidate(value, f"{where}, candidate {index}") for index, value in enumerate(candidates))
    if not checked and not allow_no_candidates:
        raise InputError(f"{where}: there are no candidates; give at least one answer to rank")
    item = Item(_own(prompt), checked, instruction, where)
    try:
        texts = [message["content"] for message in item.messages]
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    check_characters((*texts, *item.texts), where)
    return item


def check_characters(texts: Iterable[str], where: str) -> None:
    """Raise InputError if a string has a lone surrogate: JSON can spell one, UTF-8 can't encode it."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: contains a lone surrogate ({error.object[error.start]!r}), which can't be encoded as UTF-8; "
            "remove it, for example by text.encode(errors='replace').decode()"
        ) from None


def item_from_mapping(record: Any, *, where: str) -> Item:
    """Check a mapping `{"prompt", "candidates", "instruction"?}`; errors name it by `where`."""
    if not isinstance(record, Mapping):
        raise InputTypeError(
            f'{where}: expected a mapping {{"prompt": ..., "candidates": [...]}}, not {type(record).__name__}'
        )
    for key in ("prompt", "candidates"):
        if key not in record:
            raise InputError(f'{where}: the key "{key}" is missing; it has {sorted(map(str, record))}')
    return make_item(record["prompt"], record["candidates"], record.get("instruction"), where=where)


def as_items(items: Iterable[Any]) -> Iterator[Item]:
    """Yield items, lazily; mappings `{"prompt", "candidates", "instruction"?}` are made into them."""
    for index, item in enumerate(items):
        yield item if isinstance(item, Item) else item_from_mapping(item, where=f"item {index}")


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
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and len(prompts) > 0 and isinstance(prompts[0], Mapping)


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
    """Return a candidate of a string or a mapping `{"text", "model"}`; errors name it by `where`."""
    if isinstance(value, Candidate):
        return value
    if isinstance(value, str):
        return Candidate(value)
    if not isinstance(value, Mapping):
        name = "None" if value is None else type(value).__name__
        raise InputTypeError(f'{where}: a candidate must be a string or {{"text", "model"}}, not {name}')
    text, model = value.get("text"), value.get("model")
    if not isinstance(text, str):
        raise InputTypeError(f'{where}: the "text" of a candidate must be a string, not {type(text).__name__}')
    if model is not None and not isinstance(model, str):
        raise InputTypeError(f'{where}: the "model" of a candidate must be a string, not {type(model).__name__}')
    return Candidate(text, model)


def _own(prompt: Any) -> Any:
    """Copy the messages of a conversation, which a caller may change later."""
    is_conversation = isinstance(prompt, list | tuple) and all(isinstance(message, Mapping) for message in prompt)
    return [dict(message) for message in prompt] if is_conversation else prompt
