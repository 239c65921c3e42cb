"""What records say of their candidates: judged pairs, winners under many names, ranks and scores."""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from numbers import Real
from typing import Any

from blender_hf.errors import InputError
from blender_hf.inputs import Item
from blender_hf.modeling.record_fields import (
    LETTERS,
    NAMES,
    SCORE_STEMS,
    STEMS,
    Fields,
)
from blender_hf.modeling.record_values import as_list, as_turns, candidate_parts, is_given, is_parts, python_literal

from .implicit_prompts import completions
from .labelled import JudgedPair
from .preferences import soft_label

# A verdict on two candidates: the label of `JudgedPair`, its `tie_is_good`, its `soft_label`.
Verdict = tuple[float, bool | None, float | None]

# The verdicts of MixInstruct: the label, and for a tie whether both are good.
VERDICTS: dict[str, tuple[float, bool | None]] = {
    "A is better": (1.0, None),
    "B is better": (0.0, None),
    "Same good": (0.5, True),
    "Same bad": (0.5, False),
}
TIES: dict[str, bool | None] = {
    **dict.fromkeys(("tie", "ties", "tied", "draw", "equal", "same", "both", "tie (inconsistent)"), None),
    **dict.fromkeys(("same bad", "tie (bothbad)", "bothbad", "both_bad", "both bad", "tie_bothbad", "neither"), False),
    **dict.fromkeys(("same good", "bothgood", "both_good", "both good"), True),
}
# "A>B", and Arena-Hard's "[[A>>B]]".
ARROW = re.compile(r"([\w-]+)\s*([<>=]+)\s*([\w-]+)")
# Scores of candidates under names of their own, beside "score" and "scores".
METRICS = ("fine-grained_score", "helpfulness", "correctness", "coherence", "complexity", "verbosity")
# Keys whose texts also name a winner where candidates stand in a list, which numbers nothing.
OF_LISTS = ("winner",)


def of_candidates(fields: Fields, item: Item) -> list[JudgedPair]:
    """Return the judged pairs of a record that lists its candidates.

    Raises:
        InputError: If a verdict can't be read; the message names the record and says what is needed.
    """
    for found in (_stated_pairs, _compared_pairs, _sides_pair, _winner_pairs, _ranked_pairs, _labelled_pairs):
        pairs = found(fields, item)
        if pairs is not None:
            return pairs
    return _scored_pair(fields, item)


def decode_comparisons(value: Any) -> dict[str, str]:
    """Return MixInstruct's `cmp_results`, which the Hub has as a text of JSON, in old copies of Python, or "null".

    Raises:
        ValueError: If it is none of these, or no mapping from names of two models to verdicts.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            text, value = value, python_literal(value)
            if value is None and text.strip() != "None":
                raise ValueError("cmp_results is a text that is neither JSON nor Python") from None
    if not is_given(value) or (isinstance(value, Mapping | list) and not value):
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f'cmp_results must be an object {{"modelA,modelB": verdict}}, not {type(value).__name__}')
    return dict(value)


def scores_of(fields: Fields, item: Item) -> dict[str, list[Any]]:
    """Return by metric a score or None for each candidate: their own, or those in a list beside them.

    Raises:
        ValueError: If scores can't be read; the Hub has those under "scores" as texts of JSON too.
    """
    n = len(item.candidates)
    raw = as_list(fields.values.get("candidates")) or [None] * n
    found = [_own_scores(candidate) if isinstance(candidate, Mapping) else {} for candidate in raw]
    names = dict.fromkeys(name for scores in found for name in scores)
    scores = {name: [one.get(name) for one in found] for name in names}
    if "score" not in scores:
        beside = fields.of_each(SCORE_STEMS) or fields.values.get("scores")
        scores |= _scores_beside(beside, n, fields.keys.get("scores", "score")) if is_given(beside) else {}
    return scores


def _own_scores(candidate: Mapping[str, Any]) -> dict[str, Any]:
    own = next((candidate[key] for key in NAMES["score"] if is_given(candidate.get(key))), None)
    several = candidate.get("scores")
    if isinstance(several, str):
        try:
            several = json.loads(several)
        except ValueError:
            raise ValueError('the "scores" of a candidate are a text that is no JSON') from None
    if is_given(several) and several and not isinstance(several, Mapping):
        raise ValueError(f'the "scores" of a candidate must be a mapping by metric, not {type(several).__name__}')
    metrics = {name: candidate[name] for name in METRICS if is_given(candidate.get(name))}
    return {
        **({"score": own} if own is not None else {}),
        **metrics,
        **(several if isinstance(several, Mapping) else {}),
    }


def _scores_beside(value: Any, n: int, key: str) -> dict[str, list[Any]]:
    if isinstance(value, Mapping):
        return {str(name): _one_each(of_one, n, f"{key}.{name}") for name, of_one in value.items()}
    return {"score": _one_each(value, n, key)}


def _one_each(value: Any, n: int, key: str) -> list[Any]:
    found = as_list(value)
    if found is None or len(found) != n:
        held = type(value).__name__ if found is None else f"{len(found)} entries"
        raise ValueError(f'"{key}" must be a list with one entry for each of the {n} candidates, not {held}')
    return found


def numbers(name: str, values: Sequence[Any]) -> tuple[float | None, ...]:
    """Return scores as numbers, None where one is not given; a text of a number, as in a CSV file, is one.

    Raises:
        ValueError: If one is no number, or NaN or infinite: it would become a label that nobody gave.
    """
    found = tuple(float(value) if isinstance(value, bool) else _number(value) for value in values)
    for value, number in zip(values, found, strict=True):
        if value is not None and (number is None or not math.isfinite(number)):
            raise ValueError(f"the score {value!s:.40} of {name} is no number; leave out a score that is not known")
    return found


def _number(value: Any) -> float | None:
    """Return a number, or the text of one, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _stated_pairs(fields: Fields, item: Item) -> list[JudgedPair] | None:
    if "pairs" not in fields.keys:
        return None
    key, value = fields.keys["pairs"], fields.values["pairs"]
    if not is_given(value):
        if is_given(fields.values.get("cmp_results")) or scores_of(fields, item):
            return None
        raise InputError(
            f'{item.where}: "{key}" is null; give a list of {{"a", "b", "label"}}, where label is 1 if candidate a is '
            "better, -1 if b is, and 0 for a tie, or drop the key"
        )
    pairs = as_list(value)
    if pairs is None:
        raise InputError(f'{item.where}: "{key}" must be a list of {{"a", "b", "label"}}, not {type(value).__name__}')
    return [_stated_pair(pair, f"{item.where}, pair {index}") for index, pair in enumerate(pairs)]


def _stated_pair(value: Any, where: str) -> JudgedPair:
    if not isinstance(value, Mapping):
        raise InputError(f'{where}: a pair must be a mapping {{"a", "b", "label"}}, not {type(value).__name__}')
    # In a table of Arrow, what a pair lacks is None.
    pair = {key: told for key, told in value.items() if is_given(told)}
    for key in ("a", "b", "label"):
        if key not in pair:
            there = ", ".join(f'"{name}"' for name in pair) or "no keys with a value"
            raise InputError(
                f'{where}: "{key}" is missing or null: a and b are indices of candidates, and label is 1 if a is '
                f"better, -1 if b is, 0 for a tie; it has {there}"
            )
    votes = as_list(pair.get("votes")) or []
    for key, told in (
        ("label", pair["label"]),
        ("pref_b", pair.get("pref_b", 0)),
        *(("votes", vote) for vote in votes),
    ):
        if isinstance(told, str) or _number(told) is None:
            raise InputError(f'{where}: "{key}" must be a number, not {told!r:.40}')
    if not votes and "votes" in pair:
        pair.pop("votes")
    return JudgedPair(pair["a"], pair["b"], (float(pair["label"]) + 1) / 2, soft_label=soft_label(pair))


def _compared_pairs(fields: Fields, item: Item) -> list[JudgedPair] | None:
    if not is_given(fields.values.get("cmp_results")):
        return None
    place = {candidate.model: index for index, candidate in enumerate(item.candidates)}
    pairs = []
    for names, verdict in decode_comparisons(fields.values["cmp_results"]).items():
        models = names.split(",") if isinstance(names, str) else []
        if len(models) != 2 or any(model not in place for model in models):
            known = ", ".join(str(model) for model in place)
            raise ValueError(f'cmp_results has "{names}", which must be two models of candidates, as in "A,B": {known}')
        if not isinstance(verdict, str) or verdict not in VERDICTS:
            raise ValueError(f"the verdict {verdict!r} is none of {', '.join(VERDICTS)}")
        label, good = VERDICTS[verdict]
        pairs.append(JudgedPair(place[models[0]], place[models[1]], label, good))
    return pairs


def side_of(fields: Fields, side: str) -> Any:
    """Return a chosen or rejected answer as `completions` takes it."""
    value, key = as_turns(fields.values[side]), fields.keys[side]
    if isinstance(value, Mapping):
        value = value if "role" in value else candidate_parts(value)[0]
        value = [value] if isinstance(value, Mapping) else value
    listed = as_list(value)
    texts = isinstance(value, str) or (listed is not None and all(isinstance(text, str) for text in listed))
    if not texts and not is_parts(listed):
        found = "null" if value is None else type(value).__name__
        raise TypeError(f'"{key}" must be a text, a list of texts or chat messages, not {found}')
    return value if isinstance(value, str) else listed


def _sides_pair(fields: Fields, item: Item) -> list[JudgedPair] | None:
    """Return the verdict of a chosen and a rejected answer that are among the candidates."""
    if not all(fields.values.get(side) for side in ("chosen", "rejected")):
        return None
    sides = [side_of(fields, side) for side in ("chosen", "rejected")]
    found = completions(item.prompt, *sides)
    texts = found.texts[0], found.texts[len(found.chosen)]
    places = [item.texts.index(text) if text in item.texts else None for text in texts]
    if None in places:
        chosen, rejected = fields.keys["chosen"], fields.keys["rejected"]
        listed = fields.keys.get("candidates") or fields.keys["conversations"]
        raise ValueError(
            f'"{chosen}" and "{rejected}" are not among the answers in "{listed}"; drop the one or the other, or '
            f"choose with --columns candidates={listed}"
        )
    a, b = (place or 0 for place in places)
    return [] if a == b else [JudgedPair(a, b, 1.0)]


def _winner_pairs(fields: Fields, item: Item) -> list[JudgedPair] | None:
    """Return the verdict on answers in numbered columns, or the model that won, in any of the names of the table."""
    n, models = len(item.candidates), {candidate.model for candidate in item.candidates} - {None}
    names = [
        key
        for key in NAMES["winner"]
        if fields.suffixes or key in OF_LISTS or _names_one(fields.record.get(key), models)
    ]
    keys = [fields.keys["winner"]] if "winner" in fields.stated else [key for key in names if key in fields.record]
    told = {key: fields.record[key] for key in keys if is_given(fields.record[key]) and fields.record[key] != ""}
    verdicts = {key: _verdict(key, value, fields, item) for key, value in told.items()}
    one_hot = fields.of_each(("winner_model", "winner")) if "winner" not in fields.stated else None
    if one_hot is not None:
        verdicts["winner_..."] = _one_hot([*one_hot, fields.record.get("winner_tie", 0)], item)
    if not verdicts:
        if keys and fields.suffixes and fields.of_each(SCORE_STEMS) is None:
            raise InputError(f'{item.where}: the verdict "{keys[0]}" is null or empty; leave out records without one')
        return None
    (first, found), *others = verdicts.items()
    for other, differs in others:
        if isinstance(found, int) != isinstance(differs, int) or (
            found != differs if isinstance(found, int) or isinstance(differs, int) else found[0] != differs[0]
        ):
            raise InputError(
                f'{item.where}: the verdicts "{first}" and "{other}" disagree; choose one with --columns winner={first}'
            )
    if isinstance(found, int):
        return [JudgedPair(found, other, 1.0) for other in range(n) if other != found]
    return [JudgedPair(0, 1, *found)]


def _names_one(value: Any, models: Collection[str | None]) -> bool:
    return isinstance(value, str) and value in models


def _verdict(key: str, value: Any, fields: Fields, item: Item) -> Verdict | int:
    """Return a verdict on two candidates, or the index of the winner of more."""
    n, number = len(item.candidates), _number(value)
    names = _names(fields, item)
    scale = SCALES.get(key)
    if scale is not None and number is not None and n == 2 and (found := scale(number, fields.suffixes)) is not None:
        return found
    text = value if number is None or isinstance(value, str) else f"{number:g}"
    if isinstance(text, str) and not (key in ("label", "labels") and number is not None):
        text = text.strip().strip("[]").strip().lower().removesuffix(" is better")
        winner = next((index for index, own in enumerate(names) if text in own), None)
        if winner is not None:
            return (float(winner == 0), None, None) if n == 2 else winner
        if text in TIES and n == 2:
            return 0.5, TIES[text], None
        arrow = ARROW.fullmatch(text)
        if arrow and n == 2 and {arrow[1], arrow[3]} <= names[0] | names[1]:
            first = arrow[1] in names[0]
            return {">": float(first), "<": float(not first)}.get(arrow[2][0], 0.5), None, None
    ways = " or ".join(f'"{sorted(own, key=len)[0]}"' for own in names if own) or "the name of a model"
    raise InputError(
        f'{item.where}: the verdict "{key}" is {value!r:.60}, and it is not certain what that means; write {ways} for '
        'the better candidate, or "tie"'
    )


def _names(fields: Fields, item: Item) -> list[set[str]]:
    """Return for each candidate the texts that name it in a verdict, in small letters."""
    models = [(candidate.model or "").lower() for candidate in item.candidates]
    names = [{model} if model and models.count(model) == 1 else set() for model in models]
    for place, (own, suffix) in enumerate(zip(names, fields.suffixes, strict=False)):
        # The first of two numbered answers is A; the other way round, "1" may be the first or the second.
        ends = {suffix.lower(), *(LETTERS[0][place : place + 1] if suffix.isdigit() else ())}
        own |= ends
        stems = (*STEMS, "model", "assistant")
        own |= {f"{stem}{joint}{end}" for stem in stems for joint in ("_", "", " ") for end in ends}
    return names


def _one_hot(values: Sequence[Any], item: Item) -> Verdict | int:
    """Return the verdict of columns of which one is 1, the last for a tie (the Arena's competition)."""
    marks = [_number(value) for value in values]
    if sorted(mark is not None and mark for mark in marks) != [0] * (len(marks) - 1) + [1]:
        raise InputError(f"{item.where}: of winner_model_a, winner_model_b and winner_tie one must be 1, the others 0")
    winner = marks.index(1)
    if winner == len(item.candidates):
        return 0.5, None, None
    return (float(winner == 0), None, None) if len(item.candidates) == 2 else winner


def _signed(number: float, suffixes: Sequence[str]) -> Verdict | None:
    """HelpSteer2 and 3: from -3, where the first is much better, to 3."""
    return ((1.0 if number < 0 else 0.0 if number else 0.5), None, None) if -3 <= number <= 3 else None


def _one_to_two(number: float, suffixes: Sequence[str]) -> Verdict | None:
    """alpaca_eval: from 1, where output_1 is better, to 2; 1.5 and 0 are ties."""
    if suffixes != ("1", "2") or not (number == 0 or 1 <= number <= 2):
        return None
    share = 1.5 if number == 0 else number
    return (1.0 if share < 1.5 else 0.0 if share > 1.5 else 0.5), None, 2 - share


def _one_is_first(number: float, suffixes: Sequence[str]) -> Verdict | None:
    """SHP: 1 if the first is preferred, 0 if the second is."""
    return (number, None, None) if suffixes == ("A", "B") and number in (0, 1) else None


# Verdicts that are numbers, by their keys; None where the number means nothing.
SCALES: dict[str, Callable[[float, Sequence[str]], Verdict | None]] = {
    "preference_strength": _signed,
    "overall_preference": _signed,
    "preference": _one_to_two,
    "labels": _one_is_first,
}


def _ranked_pairs(fields: Fields, item: Item) -> list[JudgedPair] | None:
    """Return all pairs of candidates that have ranks, 1 for the best, and no scores (Nectar)."""
    n = len(item.candidates)
    value = fields.values.get("ranks")
    raw = as_list(fields.values.get("candidates")) or []
    ranks = (
        _one_each(value, n, fields.keys["ranks"])
        if is_given(value)
        else [candidate.get("rank") if isinstance(candidate, Mapping) else None for candidate in raw]
    )
    if not ranks or not all(map(is_given, ranks)) or scores_of(fields, item):
        return None
    places = [place or 0.0 for place in numbers("rank", ranks)]
    return [
        JudgedPair(a, b, 0.5 if places[a] == places[b] else float(places[a] < places[b]))
        for a, b in combinations(range(n), 2)
    ]


def _labelled_pairs(fields: Fields, item: Item) -> list[JudgedPair] | None:
    """Return the pairs of a desirable and an undesirable answer (KTO, gathered by prompt)."""
    raw = as_list(fields.values.get("candidates")) or []
    labels = [_truth(candidate.get("label")) if isinstance(candidate, Mapping) else None for candidate in raw]
    if all(label is None for label in labels):
        return None
    return [
        JudgedPair(a, b, float(bool(labels[a])))
        for a, b in combinations(range(len(labels)), 2)
        if labels[a] is not None and labels[b] is not None and labels[a] != labels[b]
    ]


def _truth(value: Any) -> bool | None:
    """Return a label that is true or false; a CSV file has it as a text."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)) else None


def _scored_pair(fields: Fields, item: Item) -> list[JudgedPair]:
    """Return the pair of two numbered answers whose scores are the verdict (WebGPT)."""
    if len(item.candidates) != 2 or not fields.suffixes or fields.stated & {"candidates"}:
        return []
    scores = scores_of(fields, item).get("score")
    if scores is None or not all(map(is_given, scores)):
        return []
    a, b = (score or 0.0 for score in numbers("score", scores))
    return [JudgedPair(0, 1, 0.5 if a == b else float(a > b))]
