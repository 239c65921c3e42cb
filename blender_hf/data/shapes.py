"""The shapes of records, as a table: where each has its candidates, and what it says of them.

A record of any shape becomes an `Item` that ranks, fuses and trains alike. What it says of its candidates is read only
by those who ask: `rank` does not mind a verdict that is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from blender_hf.errors import BlenderError, InputError, InputTypeError
from blender_hf.inputs import Candidate, Item, as_candidate, make_item
from blender_hf.modeling.conversations import render_prompt
from blender_hf.modeling.record_fields import (
    ASKED,
    MODEL_STEMS,
    NAMES,
    Fields,
    candidates_of,
    missing,
    prompt_of,
    stated_prompt,
    with_system,
)
from blender_hf.modeling.record_values import as_list, as_turns, decoded_list, is_given, is_parts, same

from . import verdicts
from .implicit_prompts import Answer, completions
from .labelled import JudgedPair
from .verdicts import side_of

Scores = dict[str, list[Any]]
# How keys are called that say something of the chosen or of the rejected answer.
SIDE_KEYS = ("{side}_{name}", "{name}_{side}", "{side}-{name}")


@dataclass(frozen=True)
class Found:
    """A record as it is read: the prompt with its candidates, and what is said of them once it is asked for."""

    item: Item
    pairs: Callable[[], list[JudgedPair]]
    #: By metric, a score or None for each candidate.
    scores: Callable[[], Scores]


@dataclass(frozen=True)
class Shape:
    """A shape of records."""

    name: str
    #: How its records show where the candidates are.
    sign: str
    matches: Callable[[Fields], bool]
    #: The second argument is how messages name the record.
    read: Callable[[Fields, str], Found]


def read_shape(fields: Fields, where: str) -> Found:
    """Read a record in the first of `SHAPES` that it matches.

    Raises:
        InputError: If it matches none, or can't be used; the message names it by `where`.
        InputTypeError: If something has the wrong type.
    """
    shape = _shape_of(fields)
    if shape is None:
        raise InputError(f"{where}: {_no_candidates(fields)}")
    with naming(where):
        return shape.read(fields, where)


def asked_of(fields: Fields, where: str) -> tuple[Any, str | None]:
    """Return the prompt of a record and its instruction, also where the prompt is a part of the answers alone."""
    stated = any(is_given(fields.values.get(role)) for role in ASKED if role != "system")
    shape = _shape_of(fields)
    if shape is not None and (not stated or _turns_of_cells(fields) is not None):
        item = shape.read(fields, where).item
        return item.prompt, item.instruction
    return prompt_of(fields)


def _shape_of(fields: Fields) -> Shape | None:
    return next((shape for shape in SHAPES if shape.matches(fields)), None)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Let the errors of a record name it."""
    try:
        yield
    except BlenderError:
        raise
    except TypeError as error:
        raise InputTypeError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {error}") from None


def _no_candidates(fields: Fields) -> str:
    sides = [side for side in ("chosen", "rejected") if side in fields.keys]
    if sides:
        absent = "rejected" if fields.keys.get("chosen") and is_given(fields.values["chosen"]) else "chosen"
        return missing(absent, fields)
    key = fields.keys.get("answer")
    if key is not None and is_given(fields.values["answer"]):
        return (
            f'"{key}" is one answer, and there is nothing to compare it with; put the answers to a prompt into one '
            'record, {"prompt": ..., "candidates": [...]}'
        )
    return missing("candidates", fields)


def _is_batch_output(fields: Fields) -> bool:
    answer = fields.values.get("answer")
    return isinstance(answer, Mapping) and "body" in answer


def _given(*roles: str) -> Callable[[Fields], bool]:
    return lambda fields: all(is_given(fields.values.get(role)) for role in roles)


def _listed(fields: Fields, where: str) -> Found:
    """Read candidates in a list, or in numbered columns."""
    turns = _turns_of_cells(fields)
    if turns is not None:
        return _conversations(turns, where)
    prompt, instruction = prompt_of(fields)
    item = make_item(prompt, candidates_of(fields) or (), instruction, where=where)
    return Found(
        item,
        lambda: verdicts.of_candidates(fields, item),
        lambda: verdicts.scores_of(fields, item),
    )


def _batch_output(fields: Fields, where: str) -> Found:
    """Read a line of OpenAI's batch API, which states the choices alone, once a prompt was put beside them."""
    body = fields.values["answer"].get("body")
    found = body if isinstance(body, Mapping) else {}
    choices = as_list(found.get("choices")) or [{"output": output} for output in [found.get("output")] if output]
    prompt, instruction = prompt_of(fields)
    if not choices:
        raise ValueError(f'"{fields.keys["answer"]}" has no choices; leave out requests that failed')
    answers = [{**choice, "model": found.get("model")} for choice in choices if isinstance(choice, Mapping)]
    item = make_item(prompt, answers, instruction, where=where)
    return Found(item, list, dict)


def _conversations(fields: Fields, where: str) -> Found:
    """Read two conversations with the same beginning (MT-bench and Chatbot Arena by people)."""
    sides = [_conversation_cell(value, fields) for value in fields.values["conversations"]]
    if len(sides) != 2:
        raise ValueError(f"{len(sides)} conversations; give two to compare")
    for side, key in zip(sides, ("first", "second"), strict=True):
        if not side or not all(isinstance(turn, Mapping) for turn in side):
            raise TypeError(f"the {key} conversation in {fields.keys['conversations']} must be a list of chat messages")
    found = completions(None, *sides)
    if not found.prompt:
        raise ValueError(missing("prompt", fields))
    prompt, instruction = with_system(found.prompt, fields.values.get("instruction"), fields)
    models = fields.of_each(MODEL_STEMS) or [None, None]
    candidates = [
        _answered(answer, model if isinstance(model, str) else None, where)
        for (answer,), model in zip((found.chosen, found.rejected), models, strict=True)
    ]
    item = make_item(prompt, candidates, instruction, where=where)
    return Found(
        item,
        lambda: verdicts.of_candidates(fields, item),
        lambda: verdicts.scores_of(fields, item),
    )


def _conversation_cell(value: Any, fields: Fields) -> list[Any]:
    """Return a conversation up to the turn that was judged."""
    turns = as_list(as_turns(value)) or []
    turn = fields.record.get("turn")
    if isinstance(turn, int) and not isinstance(turn, bool) and turn > 0:
        ends = [n for n, said in enumerate(turns) if isinstance(said, Mapping) and said.get("role") == "assistant"]
        turns = turns[: ends[turn - 1] + 1] if turn <= len(ends) else turns
    return turns


def _turns_of_cells(fields: Fields) -> Fields | None:
    """Return the fields with conversations in place of JSON texts with one entry a turn (the Arena's competition)."""
    if not fields.suffixes or fields.stated or not is_given(fields.values.get("candidates")):
        return None
    asked, answers = _texts_of(fields.values.get("prompt")), [_texts_of(cell) for cell in fields.values["candidates"]]
    if not asked or any(texts is None or len(texts) != len(asked) for texts in answers):
        return None
    dialogues = [
        [
            {"role": role, "content": text or ""}
            for pair in zip(asked, texts or (), strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        for texts in answers
    ]
    values = {role: value for role, value in fields.values.items() if role not in ("prompt", "candidates")}
    return replace(fields, values={**values, "conversations": dialogues}, keys={**fields.keys, "conversations": ""})


def _texts_of(cell: Any) -> list[Any] | None:
    texts = decoded_list(cell) if isinstance(cell, str) else None
    return texts if isinstance(texts, list) and all(isinstance(text, str | None) for text in texts) else None


def _sides(fields: Fields, where: str) -> Found:
    """Read chosen and rejected answers."""
    chosen, rejected = (side_of(fields, side) for side in ("chosen", "rejected"))
    messages = as_list(as_turns(fields.values.get("messages")))
    if messages and messages in (chosen, rejected):  # it is a copy (UltraFeedback, binarized)
        fields = replace(fields, values={**fields.values, "messages": None})
    asked, instruction = stated_prompt(fields)
    if asked is None and is_given(instruction):
        asked, instruction = instruction, None
    if not isinstance(asked, str | None) and as_list(asked) != [] and not is_parts(asked):
        raise TypeError(f"a prompt must be a text or a list of chat messages, not {type(asked).__name__}")
    found = completions(asked, chosen, rejected)
    if asked is None and (not found.prompt or (isinstance(found.prompt, str) and fields.unread)):
        # A text that both begin alike is the prompt only if nothing else can be it.
        raise ValueError(missing("prompt", fields))
    _check_held(asked, found.prompt, fields)
    prompt, instruction = with_system(found.prompt, instruction, fields)
    sides = [
        [_answered(answer, _of_side(fields, side, NAMES["model"]), f"{where}, {side}") for answer in answers]
        for side, answers in (("chosen", found.chosen), ("rejected", found.rejected))
    ]
    # A hash of the texts decides the order, so that position bias, or a constant answer, gains nothing.
    text = "\n".join([str(found.prompt), *(candidate.text for side in sides for candidate in side)])
    chosen_first = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 2 == 0

    def in_place(good: Sequence[Any], bad: Sequence[Any]) -> list[Any]:
        return [*good, *bad] if chosen_first else [*bad, *good]

    item = make_item(prompt, in_place(*sides), instruction, where=where)
    good = in_place([True] * len(found.chosen), [False] * len(found.rejected))
    n = range(len(good))
    scores = [[_of_side(fields, side, NAMES["score"])] for side in ("chosen", "rejected")]
    return Found(
        item,
        lambda: [JudgedPair(a, b, float(good[a])) for a in n for b in n if a < b and good[a] != good[b]],
        lambda: {"score": in_place(*scores)} if len(good) == 2 else {},
    )


def _check_held(asked: Any, prompt: Any, fields: Fields) -> None:
    """Reject a stated prompt that is no part of the conversations that are chosen and rejected."""
    if not isinstance(prompt, list) or not asked:
        return
    contents = [turn.get("content") for turn in prompt]
    stated = [asked] if isinstance(asked, str) else [turn.get("content") for turn in as_list(asked) or ()]
    if not all(any(same(content, one) for one in contents) for content in stated) and render_prompt(prompt) != asked:
        key = next(
            fields.keys[role] for role in ("messages", "history", "prompt", "instruction") if role in fields.keys
        )
        raise ValueError(
            f'"{key}" is not in the conversations in "{fields.keys["chosen"]}" and "{fields.keys["rejected"]}", which '
            "begin with another prompt; drop it, or correct one of them"
        )


def _answered(answer: Answer, model: Any, where: str) -> Candidate:
    """Return an answer, a text or chat messages, as a candidate."""
    return as_candidate({"text" if isinstance(answer, str) else "messages": answer, "model": model}, where)


def _of_side(fields: Fields, side: str, names: Sequence[str]) -> Any:
    """Return what a record says of the chosen or of the rejected answer, such as its model or its score."""
    keys = (form.format(name=name, side=side) for name in names for form in SIDE_KEYS)
    return next((fields.record[key] for key in keys if is_given(fields.record.get(key))), None)


# The first that a record matches is taken.
SHAPES = (
    Shape("candidates", '"candidates", or numbered columns such as "response_a"', _given("candidates"), _listed),
    Shape("conversations", '"conversation_a" and "conversation_b"', _given("conversations"), _conversations),
    Shape("batch", '"response" with "body" (OpenAI batch output)', _is_batch_output, _batch_output),
    Shape("preferences", '"chosen" and "rejected"', _given("chosen", "rejected"), _sides),
)
