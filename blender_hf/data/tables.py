"""Answers to one prompt that a table has in several rows, or in a column for each model: put together as one record."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from blender_hf.errors import InputError
from blender_hf.modeling.record_fields import (
    ASKED,
    NAMES,
    Fields,
    missing,
    names_a_field,
    read_fields,
)
from blender_hf.modeling.record_values import as_list, is_given, same

from .columns import Columns
from .files import Cells
from .verdicts import METRICS

if TYPE_CHECKING:
    from .sources import Entry

# Texts of cells that are no answers, beside numbers.
TRUTH_VALUES = frozenset(("true", "false", "yes", "no", "nan", "none", "null"))


def answers_together(entries: "Iterable[Entry]", columns: Columns) -> "Iterator[Entry]":
    """Yield entries, lazily; where the first has one answer, or is a row of a CSV file without any, all are gathered.

    A row with one answer joins those with the same prompt. In a CSV file without a column for answers, each column that
    has no other meaning is a model and holds its answers.

    Raises:
        InputError: If no prompt has two answers, or it is not certain which columns hold answers.
    """
    source = iter(entries)
    first = next(source, None)
    if first is None:
        return
    everything = chain([first], source)
    try:
        fields = read_fields(first.value(), columns.stated)
    except (InputError, ValueError, AttributeError, TypeError):
        yield from everything  # whoever reads it as a record says what is wrong with it
        return
    if any(is_given(fields.values.get(role)) for role in ("candidates", "conversations", "chosen", "rejected")):
        yield from everything
    elif "answer" in fields.keys and _is_answer(fields.values["answer"]) and _has_prompt(fields):
        yield from _by_prompt(everything, columns)
    elif isinstance(first.content, Cells):
        yield from _by_model(list(everything), columns)
    else:
        yield from everything


def _has_prompt(fields: Fields) -> bool:
    return any(is_given(fields.values.get(role)) for role in ASKED if role != "system")


def _is_answer(value: Any) -> bool:
    """Return whether this is an answer, and not, for example, the response of a server."""
    return isinstance(value, str) or bool(as_list(value)) or (isinstance(value, Mapping) and "body" not in value)


def _by_prompt(entries: "Iterable[Entry]", columns: Columns) -> "Iterator[Entry]":
    rows: list[tuple[Entry, Fields, str]] = []
    for entry in entries:
        try:
            fields = read_fields(entry.value(), columns.stated)
            answer = _answer_key(fields)
        except InputError:
            yield entry
            continue
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{entry.where}: {error}") from None
        rows.append((entry, fields, answer))
    groups = _grouped(rows, ("id", *ASKED))
    if not any(len(group) > 1 for group in groups):  # ids of rows, not of prompts
        groups = _grouped(rows, ASKED)
    if groups and not any(len(group) > 1 for group in groups):
        raise InputError(
            f"{rows[0][0].where}: this and every other record has one answer to its prompt, and there is nothing to "
            'compare it with; put the answers to a prompt into one record, {"prompt": ..., "candidates": [...]}, or '
            "into rows with the same prompt"
        )
    for index, group in enumerate(groups):
        entry, fields, answer = group[0]
        of_rows = (answer, *NAMES["answer"], *NAMES["model"], *NAMES["score"], *METRICS, "label")
        said = {key: told for key, told in fields.record.items() if key not in of_rows}
        candidates = [_candidate(row, key) for _, row, key in group]
        yield replace(entry, index=index, content={**said, "candidates": candidates})


def _grouped(
    rows: Iterable[tuple["Entry", Fields, str]], roles: Iterable[str]
) -> list[list[tuple["Entry", Fields, str]]]:
    """Return the rows whose fields of some roles are the same together, in the order in which they came."""
    groups: dict[str, list[tuple[Entry, Fields, str]]] = {}
    for row in rows:
        asked = [row[1].values.get(role) for role in roles]
        groups.setdefault(json.dumps(asked, default=str), []).append(row)
    return list(groups.values())


def _answer_key(fields: Fields) -> str:
    if "answer" not in fields.keys:
        raise ValueError(missing("answer", fields))
    key = fields.keys["answer"]
    if "answer" in fields.stated:
        return key
    for other in NAMES["answer"]:
        if is_given(fields.record.get(other)) and not same(fields.record[other], fields.values["answer"]):
            raise ValueError(
                f'"{key}" and "{other}" may both be the answer; rename or drop one of them, or choose with --columns '
                f"answer={key}"
            )
    return key


def _candidate(fields: Fields, key: str) -> Any:
    """Return the answer of a row with what the row says of it."""
    value, model, score = (fields.values.get(role) for role in ("answer", "model", "score"))
    if isinstance(value, Mapping) and "role" not in value:
        return value
    is_text = isinstance(value, str) or value is None  # an empty cell is an answer that is empty
    found = {"text" if is_text else "messages": value or "", "model": str(model) if is_given(model) else None}
    told = {name: fields.record[name] for name in (*METRICS, "label") if is_given(fields.record.get(name))}
    return {**found, **({"score": score} if is_given(score) else {}), **told}


def _by_model(entries: "list[Entry]", columns: Columns) -> "Iterator[Entry]":
    stated = {name for names in columns.stated.values() for name in names}
    header = list(entries[0].content)
    models = [column for column in header if column not in stated and not names_a_field(column)]
    if not models:
        yield from entries
        return
    for column in models:
        if _are_figures([entry.content.get(column) for entry in entries]) and any(
            not _are_figures([entry.content.get(other) for entry in entries if entry.content.get(column)])
            for other in models
            if other != column
        ):
            others = ",".join(other for other in models if other != column)
            raise InputError(
                f'{entries[0].where}: the column "{column}" has numbers where other columns have texts, so it is not '
                f"certain that it holds answers; drop it, or say which columns do with --columns candidates={others}"
            )
    for entry in entries:
        candidates = [{"text": entry.content[model], "model": model} for model in models if _says(entry.content[model])]
        record = {name: cell for name, cell in entry.value().items() if name not in models}
        yield replace(entry, content={**record, "candidates": candidates})


def _says(cell: str | None) -> bool:
    return bool(cell and cell.strip())


def _are_figures(cells: Iterable[str | None]) -> bool:
    """Return whether all cells that are not empty hold numbers or truth values."""
    return all(_is_figure(cell) for cell in cells if cell is not None and cell.strip())


def _is_figure(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in TRUTH_VALUES
    return True
