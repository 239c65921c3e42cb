"""Labelled data of any shape: the prompts with their candidates, and what is known of the quality of these."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError, InputTypeError
from blender_hf.inputs import Item, check_characters
from blender_hf.modeling.record_fields import Fields, reference_of

from .benchmarks import BENCHMARKS, benchmark_of
from .columns import ColumnNames, Columns
from .labelled import UNKNOWN, JudgedPair, LabelledPrompt
from .records import id_of, text_of
from .shapes import naming, read_shape
from .sources import STDIN, Entry, is_stream, one_split, open_source
from .tables import answers_together
from .verdicts import numbers


def read_labelled(
    data: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str | None = None,
    limit: int | None = None,
    skipped: list[str] | None = None,
    columns: ColumnNames | Columns | None = None,
) -> Iterator[LabelledPrompt]:
    """Yield the labelled prompts of any data in one of `shapes.SHAPES`, lazily.

    Args:
        data: A file, folder or id as in `sources.open_source`, "-" for the standard input; or any iterable of records,
            such as a `datasets.Dataset` or a `datasets.DatasetDict`.
        split: Which split of a dataset; None takes the only one. Files have no splits.
        limit: Only so many records.
        skipped: Collects the reasons why records can't be used, which are then skipped; None makes them errors.
        columns: By role, the names of columns to read in place of those that are known, such as
            `{"prompt": "frage", "candidates": ["gpt", "llama"]}`; the roles are those of `record_fields.NAMES`.

    Returns:
        An iterator of prompts.

    Raises:
        InputError: If it can't be read, or a record can't be used; the message says which.
        InputTypeError: If a value of a record has the wrong type.
    """
    read = columns if isinstance(columns, Columns) else Columns(columns)
    name = _name_of(data)
    for entry in islice(_entries(data, split, read), limit):
        try:
            yield from_mapping(
                entry.value(), where=entry.where, default_id=entry.number, default_source=name, columns=read
            )
        except (InputError, InputTypeError) as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    read.report(name if not isinstance(data, str | Path) else str(data))


class LabelledFile:
    """The labelled prompts of a local file or folder, read anew each time: only those in use take memory.

    The arguments and errors are those of `read_labelled`; all records are checked before the first is used.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: str | None = None,
        limit: int | None = None,
        columns: ColumnNames | None = None,
    ) -> None:
        self._read = partial(read_labelled, path, split=split, limit=limit, columns=Columns(columns))
        self._n_prompts = sum(1 for _ in self)

    def __iter__(self) -> Iterator[LabelledPrompt]:
        return self._read()

    def __len__(self) -> int:
        return self._n_prompts


def from_mapping(
    record: Any, *, where: str, default_id: str | int, default_source: str, columns: Columns | None = None
) -> LabelledPrompt:
    """Check a decoded record in any of `shapes.SHAPES`, with an id and a source for those that have none."""
    fields = (columns or Columns()).fields(record, where)
    found = read_shape(fields, where)
    with naming(where):
        pairs = tuple(_checked(pair, found.item) for pair in found.pairs())
        scores = {name: numbers(name, values) for name, values in found.scores().items()}
        reference, license = (
            text_of("reference", reference_of(fields)),
            text_of("license", fields.values.get("license")),
        )
    benchmark = benchmark_of(fields.record)
    prompt = LabelledPrompt(
        id=id_of(fields, default_id),
        item=found.item,
        pairs=pairs,
        scores={name: values for name, values in scores.items() if any(value is not None for value in values)},
        source=_source_of(fields, benchmark) or default_source,
        lang=str(fields.values.get("lang") or UNKNOWN),
        reference=reference,
        license=license,
        benchmark=benchmark,
    )
    names = (str(prompt.id), *(model or "" for model in prompt.models), *prompt.scores)
    check_characters((*names, prompt.source, prompt.lang, reference or "", license or ""), where)
    return prompt


def _source_of(fields: Fields, benchmark: str | None) -> str | None:
    """Return the name of the collection; MixInstruct names it in its ids, as in "dolly_15k/123"."""
    named = ("source", "subset") if benchmark is None else (BENCHMARKS[benchmark].source,)
    stated = next((fields.record[key] for key in named if fields.record.get(key)), None)
    if not stated and fields.keys.get("prompt") == "input" and "instruction" in fields.keys:
        stated = str(fields.record.get("id", "")).rpartition("/")[0]
    return str(stated) if stated else None


def _entries(data: str | Path | Iterable[Mapping[str, Any]], split: str | None, columns: Columns) -> Iterator[Entry]:
    if not isinstance(data, str | Path):
        rows = one_split(data, split, "the dataset")
        entries = (Entry(index, index, f"record {index}", row, columns) for index, row in enumerate(rows))
        return answers_together(entries, columns)
    # A training run may name a split that only some of its sources have.
    source = open_source(data, split=None if is_stream(data) or Path(data).is_file() else split, columns=columns)
    return source.records()


def _name_of(data: str | Path | Iterable[Mapping[str, Any]]) -> str:
    """Return a short name for data: a file's without its extensions, or a dataset's id."""
    if not isinstance(data, str | Path):
        return "records"
    if str(data) == STDIN:
        return "stdin"
    return Path(data).name.split(".")[0] if Path(data).exists() else str(data)


def _checked(pair: JudgedPair, item: Item) -> JudgedPair:
    n = len(item.candidates)
    if any(not isinstance(index, int) or isinstance(index, bool) for index in (pair.a, pair.b)):
        raise InputError(f"{item.where}: a and b of a pair must be whole numbers, not {pair.a!r} and {pair.b!r}")
    if not (0 <= pair.a < n and 0 <= pair.b < n and pair.a != pair.b):
        raise InputError(f"{item.where}: a pair of the candidates {pair.a} and {pair.b}; there are {n}, from 0")
    if not 0 <= pair.label <= 1:
        raise InputError(f"{item.where}: the label of a pair must be 1, 0 or -1, not {2 * pair.label - 1:g}")
    if not 0 <= pair.probability <= 1:
        raise InputError(f"{item.where}: pref_b of a pair must be from 0 to 1, and its votes 1, 0 or -1")
    return pair
