"""The formats of labelled data, as a table: ours, MixInstruct, and chosen against rejected."""

import ast
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from blender_hf.errors import BlenderError, InputError, InputTypeError
from blender_hf.inputs import Item, as_candidate, check_characters, make_item

from .implicit_prompts import Completions, completions
from .labelled import UNKNOWN, JudgedPair, LabelledPrompt
from .preferences import soft_label
from .records import id_of
from .sources import STDIN, Entry, is_stream, one_split, open_source

# The verdicts of MixInstruct: the label, and for a tie whether both are good.
VERDICTS: dict[str, tuple[float, bool | None]] = {
    "A is better": (1.0, None),
    "B is better": (0.0, None),
    "Same good": (0.5, True),
    "Same bad": (0.5, False),
}


@dataclass(frozen=True)
class LabelledFormat:
    """A format of labelled records: how to read each part of one."""

    name: str
    #: A record that has all of these is in this format.
    keys: frozenset[str]
    #: The second argument is how messages name the record.
    item: Callable[[Mapping[str, Any], str], Item]
    pairs: Callable[[Mapping[str, Any], Item], list[JudgedPair]]
    #: By metric, a score or None for each candidate.
    scores: Callable[[Mapping[str, Any], Item], dict[str, list[Any]]]
    #: The key of a good answer.
    reference: str = "reference"
    #: The name of the collection.
    source: Callable[[Mapping[str, Any]], str | None] = lambda record: record.get("source") or record.get("subset")


def read_labelled(
    data: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str | None = None,
    limit: int | None = None,
    skipped: list[str] | None = None,
) -> Iterator[LabelledPrompt]:
    """Yield the labelled prompts of any data in one of `FORMATS`, lazily.

    Args:
        data: A file, folder or id as in `sources.open_source`, "-" for the standard input; or any iterable of records,
            such as a `datasets.Dataset` or a `datasets.DatasetDict`.
        split: Which split of a dataset; None takes the only one. Files have no splits.
        limit: Only so many records.
        skipped: Collects the reasons why records can't be used, which are then skipped; None makes them errors.

    Returns:
        An iterator of prompts.

    Raises:
        InputError: If it can't be read, or a record can't be used; the message says which.
        InputTypeError: If a value of a record has the wrong type.
    """
    name = _name_of(data)
    for entry in islice(_entries(data, split), limit):
        try:
            yield from_mapping(entry.value(), where=entry.where, default_id=entry.number, default_source=name)
        except (InputError, InputTypeError) as error:
            if skipped is None:
                raise
            skipped.append(str(error))


class LabelledFile:
    """The labelled prompts of a local file or folder, read anew each time: only those in use take memory.

    The arguments and errors are those of `read_labelled`; all records are checked before the first is used.
    """

    def __init__(self, path: str | Path, *, split: str | None = None, limit: int | None = None) -> None:
        self._read = partial(read_labelled, path, split=split, limit=limit)
        self._n_prompts = sum(1 for _ in self)

    def __iter__(self) -> Iterator[LabelledPrompt]:
        return self._read()

    def __len__(self) -> int:
        return self._n_prompts


def from_mapping(record: Any, *, where: str, default_id: str | int, default_source: str) -> LabelledPrompt:
    """Check a decoded record in any of `FORMATS`, with an id and a source for those that have none."""
    keys = record.keys() if isinstance(record, Mapping) else frozenset()
    found = next((form for form in FORMATS if form.keys <= keys), None)
    if found is None:
        known = "; ".join(f"{form.name}: {', '.join(sorted(form.keys))}" for form in FORMATS)
        raise InputError(f"{where}: not labelled data; the keys of one of these are needed: {known}")
    try:
        item = found.item(record, where)
        pairs = tuple(_checked(pair, item) for pair in found.pairs(record, item))
        scores = {name: _numbers(name, values) for name, values in found.scores(record, item).items()}
        reference, license = _text(record, found.reference), _text(record, "license")
        source = str(found.source(record) or default_source)
    except BlenderError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: can't be read as {found.name}: {type(error).__name__} {error}") from None
    prompt = LabelledPrompt(
        id=id_of(record, default_id),
        item=item,
        pairs=pairs,
        scores={name: values for name, values in scores.items() if any(value is not None for value in values)},
        source=source,
        lang=str(record.get("lang") or record.get("language") or UNKNOWN),
        reference=reference,
        license=license,
    )
    names = (str(prompt.id), *(model or "" for model in prompt.models), *prompt.scores)
    check_characters((*names, source, prompt.lang, reference or "", license or ""), where)
    return prompt


def decode_comparisons(value: Any) -> dict[str, str]:
    """Return MixInstruct's `cmp_results`, which the Hub has as a text of JSON, in old copies of Python, or "null"."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = _python_literal(value)
    return dict(value or {})


def _python_literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, RecursionError, MemoryError):  # the last two are its errors for what is nested too deeply
        raise ValueError("a text that is neither JSON nor Python") from None


def _entries(data: str | Path | Iterable[Mapping[str, Any]], split: str | None) -> Iterator[Entry]:
    if not isinstance(data, str | Path):
        rows = one_split(data, split, "the dataset")
        return (Entry(index, index, f"record {index}", row) for index, row in enumerate(rows))
    # A training run may name a split that only some of its sources have.
    return open_source(data, split=None if is_stream(data) or Path(data).is_file() else split).entries()


def _name_of(data: str | Path | Iterable[Mapping[str, Any]]) -> str:
    """Return a short name for data: a file's without its extensions, or a dataset's id."""
    if not isinstance(data, str | Path):
        return "records"
    if str(data) == STDIN:
        return "stdin"
    return Path(data).name.split(".")[0] if Path(data).exists() else str(data)


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} must be a string, not {type(value).__name__}")
    return value or None


def _item(prompt: str) -> Callable[[Mapping[str, Any], str], Item]:
    def make(record: Mapping[str, Any], where: str) -> Item:
        # The same text where there are messages, but a reward model with a chat template wants the turns.
        asked = record.get("messages") or record[prompt]
        return make_item(asked, record["candidates"], record.get("instruction"), where=where)

    return make


def _id_prefix(record: Mapping[str, Any]) -> str | None:
    """Return the collection that MixInstruct names in its ids, as in "dolly_15k/123"."""
    return record.get("source") or str(record.get("id", "")).rpartition("/")[0] or None


def _our_pairs(record: Mapping[str, Any], item: Item) -> list[JudgedPair]:
    # In a table of Arrow, what a pair lacks is None.
    stated = [{key: value for key, value in pair.items() if value is not None} for pair in record["pairs"]]
    return [JudgedPair(pair["a"], pair["b"], (pair["label"] + 1) / 2, soft_label=soft_label(pair)) for pair in stated]


def _compared_pairs(record: Mapping[str, Any], item: Item) -> list[JudgedPair]:
    place = {candidate.model: index for index, candidate in enumerate(item.candidates)}
    pairs = []
    for names, verdict in decode_comparisons(record.get("cmp_results")).items():
        a, b = (place[name] for name in names.split(","))
        if verdict not in VERDICTS:
            raise ValueError(f"the verdict {verdict!r} is none of {', '.join(VERDICTS)}")
        label, good = VERDICTS[verdict]
        pairs.append(JudgedPair(a, b, label, good))
    return pairs


def _candidate_scores(record: Mapping[str, Any], item: Item) -> dict[str, list[Any]]:
    """Return "score" and the metrics under "scores" of the candidates; the Hub has the latter as texts of JSON too."""
    found = []
    for candidate in record["candidates"]:
        own = candidate if isinstance(candidate, Mapping) else {}
        scores = own.get("scores") or {}
        scores = json.loads(scores) if isinstance(scores, str) else scores
        found.append({**({"score": own["score"]} if own.get("score") is not None else {}), **scores})
    names = dict.fromkeys(name for scores in found for name in scores)
    return {name: [scores.get(name) for scores in found] for name in names}


def _completions(record: Mapping[str, Any]) -> Completions:
    return completions(record.get("prompt"), record["chosen"], record["rejected"])


def _chosen_first(record: Mapping[str, Any]) -> bool:
    # A hash of the texts decides, so that position bias, or a constant answer, gains nothing.
    found = _completions(record)
    text = "\n".join([str(found.prompt), *found.texts])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 2 == 0


def _in_place(record: Mapping[str, Any], chosen: Sequence[Any], rejected: Sequence[Any]) -> list[Any]:
    return [*chosen, *rejected] if _chosen_first(record) else [*rejected, *chosen]


def _preference_item(record: Mapping[str, Any], where: str) -> Item:
    found = _completions(record)
    sides = [
        [
            as_candidate(
                {"text" if isinstance(answer, str) else "messages": answer, "model": record.get(f"{side}_model")},
                f"{where}, {side}",
            )
            for answer in answers
        ]
        for side, answers in (("chosen", found.chosen), ("rejected", found.rejected))
    ]
    return make_item(found.prompt, _in_place(record, *sides), where=where)


def _preference_pairs(record: Mapping[str, Any], item: Item) -> list[JudgedPair]:
    found = _completions(record)
    good = _in_place(record, [True] * len(found.chosen), [False] * len(found.rejected))
    n = range(len(good))
    return [JudgedPair(a, b, float(good[a])) for a in n for b in n if a < b and good[a] != good[b]]


def _preference_scores(record: Mapping[str, Any], item: Item) -> dict[str, list[Any]]:
    scores = [[record.get(f"score_{side}")] for side in ("chosen", "rejected")]
    return {"score": _in_place(record, *scores)} if len(item.candidates) == 2 else {}


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


def _numbers(name: str, values: Sequence[Any]) -> tuple[float | None, ...]:
    found = tuple(None if value is None else float(value) for value in values)
    if wrong := [value for value in found if value is not None and not math.isfinite(value)]:
        # It compares as neither more nor less than any other, so it would become a label that nobody gave.
        raise ValueError(f"the score {wrong[0]} of {name} is no number; leave out a score that is not known")
    return found


# The first format whose keys a record has is taken.
FORMATS = (
    LabelledFormat(
        "records with pairs",
        frozenset({"prompt", "candidates", "pairs"}),
        _item("prompt"),
        _our_pairs,
        _candidate_scores,
    ),
    LabelledFormat(
        "MixInstruct",
        frozenset({"instruction", "input", "candidates"}),
        _item("input"),
        _compared_pairs,
        _candidate_scores,
        reference="output",
        source=_id_prefix,
    ),
    LabelledFormat(
        "records with scores", frozenset({"prompt", "candidates"}), _item("prompt"), _compared_pairs, _candidate_scores
    ),
    LabelledFormat(
        "preferences", frozenset({"chosen", "rejected"}), _preference_item, _preference_pairs, _preference_scores
    ),
)
