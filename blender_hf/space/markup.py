"""The results as HTML, by the macros of `results.html`, which escape every string from outside."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from blender_hf.data.records import Record
from blender_hf.engine.results import POINTWISE, Comparison, Ranking, Unread
from blender_hf.logs import counted
from blender_hf.modeling.ranking_math import probability_of

from .fused import Fused
from .leaderboard import Standing

# How many colours of sources style.css has.
N_COLOURS = 8
# How far from 0.5 a probability must be at least to have the full colour of the heat map.
MIN_FULL = 0.05
# What the figures of a ranking mean, by the words that the page has for them.
TERMS = {
    "percentage": "The mean probability, in the ranker's estimate, that this answer is better than another candidate.",
    "score": "What candidates are sorted by; higher is better. The aggregation computes it from the comparisons.",
    "tie": "Two neighbours in the ranking have equal scores, or a probability within the tie threshold of 50 %.",
    "comparisons": "The pairs of candidates that the ranker compared, out of all pairs; the schedule chooses them.",
    "flip": "The ranker prefers the other candidate when the two are presented in reverse order (position bias).",
    "cycle": "Three candidates that beat each other in a circle: A beats B, B beats C, and C beats A.",
}
POINTWISE_TERMS = ("percentage", "score", "tie")


def title_html(links: Mapping[str, str]) -> str:
    """Return the title of the page with its links, addresses by their names."""
    return _html("title", links=links)


def ranking_html(ranking: Ranking, tie_threshold: float) -> str:
    """Return the candidates in order as a list of cards."""
    tied = tied_candidates(ranking, tie_threshold)
    names = _names(ranking)
    unread = _unread(ranking.unread, [names[index] for index in sorted(names)])
    terms = {term: TERMS[term] for term in (POINTWISE_TERMS if ranking.schedule == POINTWISE else TERMS)}
    return _html("ranking", ranking=ranking, names=names, facts=_facts(ranking), tied=tied, terms=terms, unread=unread)


def heat_map_html(ranking: Ranking) -> str:
    """Return all comparisons as a table, in the order of the ranking: the rows beat the columns."""
    # The strongest win of the map has the full colour, unless all are close to a tie.
    known = [(i, j) for i in ranking.order for j in ranking.order if not math.isnan(ranking.comparisons[i][j])]
    full = max([MIN_FULL, *(abs(ranking.probability(*pair) - 0.5) for pair in known)])

    def presentations(row: int, column: int) -> str:
        return _presentations(ranking, row, column)

    return _html("heat_map", ranking=ranking, names=_names(ranking), full=full, presentations=presentations)


def candidate_name(ranking: Ranking, index: int) -> str:
    """Return the name of a candidate's model, or its number if that is unknown or another candidate has it too."""
    model = ranking.models[index]
    number = f"Candidate {index + 1}"
    if model is None:
        return number
    return model if ranking.models.count(model) == 1 else f"{model} ({number.lower()})"


def tied_candidates(ranking: Ranking, tie_threshold: float) -> set[int]:
    """Return the candidates that share a score with a neighbour, or are too close to call."""
    close = (
        pair
        for pair in pairwise(ranking.order)
        if ranking.scores[pair[0]] == ranking.scores[pair[1]] or abs(ranking.probability(*pair) - 0.5) <= tie_threshold
    )
    return {index for pair in close for index in pair}


def intro_html() -> str:
    """Return what stands in place of the answer before anything was asked."""
    return _html("intro")


def working_html(n_candidates: int) -> str:
    """Return what stands in place of the answer while candidates are ranked."""
    return _html("working", told=f"Ranking {n_candidates} candidates")


def writing_html(text: str) -> str:
    """Return a fused text while it is written."""
    return _html("working", told="Ranked; fusing the best", text=text)


def answer_html(ranking: Ranking, fused: Fused | None, note: str = "") -> str:
    """Return the answer: the fused text if the ranker prefers it to the best candidate, else that candidate.

    Args:
        ranking: The ranking of the candidates.
        fused: The fused text; None if there is none.
        note: Why there is none.
    """
    return _html("answer", ranking=ranking, names=_names(ranking), fused=fused, note=note)


def stale_html() -> str:
    """Return the note above results whose inputs have changed since."""
    return _html("stale")


def note_html(title: str, text: str) -> str:
    """Return a plain note under a heading."""
    return _html("note", title=title, text=text)


def error_html(text: str) -> str:
    """Return what is wrong with the input, to stay until it is changed."""
    return _html("error", text=text)


def prompt_html(prompt: str) -> str:
    """Return a whole prompt under a heading."""
    return _html("prompt", prompt=prompt)


def contents_html(name: str, records: Sequence[Record], left_out: Iterable[str]) -> str:
    """Return what a file for a batch contains, and which keys of it are not read."""
    candidates = [candidate for record in records for candidate in record.item.candidates]
    models = sorted({candidate.model for candidate in candidates if candidate.model})
    found = f"{counted(len(records), 'prompt')}, {counted(len(candidates), 'answer')}"
    named = f" by {counted(len(models), 'model')}: {', '.join(models)}." if models else "; no models are named."
    keys = ", ".join(left_out)
    return note_html(name, found + named + (f" Not read: {keys}." if keys else ""))


def comparison_html(comparison: Comparison, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a comparison in both orders, with the position bias.

    Args:
        comparison: The comparison.
        names: The models that wrote "a" and "b", where they are known.
    """
    temperature = comparison.temperature
    rows = (
        ("A read first", probability_of(comparison.logit_ab, temperature), comparison.logit_ab),
        ("B read first", probability_of(-comparison.logit_ba, temperature), -comparison.logit_ba),
        ("Both orders", comparison.probability, comparison.logit),
    )
    return _html(
        "comparison",
        comparison=comparison,
        verdict=_verdict(comparison, names),
        rows=rows,
        bias=_bias(comparison),
        cuts=_cuts(comparison),
        unread=_unread(comparison.unread, ("A", "B")),
    )


def progress_html(done: int, total: int) -> str:
    """Return how far a batch is."""
    return _html("progress", done=done, total=total)


def leaderboard_html(standings: Sequence[Standing], rankings: Sequence[Ranking], left_out: Iterable[str] = ()) -> str:
    """Return the models by strength, with their intervals as a plot, and what of the batch was not read."""
    notes = _not_read(rankings, left_out)
    if not standings:
        told = "No leaderboard: the candidates do not name two models that met."
        return note_html("Leaderboard", " ".join([told, *notes]))
    return _html("leaderboard", standings=standings, n_prompts=len(rankings), notes=notes)


def _not_read(rankings: Sequence[Ranking], left_out: Iterable[str]) -> list[str]:
    n_cut = sum(bool(ranking.truncated) for ranking in rankings)
    n_unknown = sum(bool(ranking.unread) for ranking in rankings)
    keys = ", ".join(left_out)
    return [
        *([f"Not read: {keys}."] if keys else []),
        *([f"Prompts with a text too long for the ranker: {n_cut}."] if n_cut else []),
        *([f"Prompts with text that the ranker does not know: {n_unknown}."] if n_unknown else []),
    ]


@cache
def _macros() -> Any:
    environment = Environment(
        loader=PackageLoader("blender_hf", "space"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "explained": _explained,
        "letter": lambda index: chr(ord("A") + index % 26),
        "n_colours": N_COLOURS,
        "percent": lambda share: f"{100 * share:.1f}%",
        "preview": _preview,
        "signed": _signed,
    }
    return environment.get_template("results.html").module


def _html(macro: str, **values: Any) -> str:
    return str(getattr(_macros(), macro)(**values)).strip()


def _names(ranking: Ranking) -> Mapping[int, str]:
    return {index: candidate_name(ranking, index) for index in ranking.order}


def _facts(ranking: Ranking) -> list[Markup | str]:
    if ranking.schedule == POINTWISE:
        return ["each answer scored by itself"]
    cycles = f"{ranking.n_cycles} cycle{'' if ranking.n_cycles == 1 else 's'}"
    facts = {"comparisons": f"{ranking.n_comparisons} of {ranking.n_possible} comparisons"}
    if ranking.flip_rate is not None:
        facts["flip"] = f"{ranking.flip_rate:.0%} flip with the order"
    return [_explained(text, term) for term, text in (facts | {"cycle": cycles}).items()]


def _explained(text: str, term: str) -> Markup:
    return Markup('<abbr title="{}">{}</abbr>').format(TERMS[term], text)


def _presentations(ranking: Ranking, row: int, column: int) -> str:
    """Return what each presentation order says of two candidates."""
    if ranking.schedule == POINTWISE:
        return "From the scores of both."
    if ranking.candidates[row] == ranking.candidates[column]:
        return "The same text: a tie without a comparison."
    orders = (("read first", ranking.logits[row][column]), ("read second", -ranking.logits[column][row]))
    told = "; ".join(f"{name} {_signed(logit)}" for name, logit in orders if not math.isnan(logit))
    return f"Logit in its favour: {told}.{' The order decides.' if ranking.flipped(row, column) else ''}"


def _verdict(comparison: Comparison, names: Mapping[str, str]) -> str:
    if comparison.preferred == "tie":
        return "A tie"
    name = names.get(comparison.preferred)
    return f"Answer {comparison.preferred.upper()}{f' ({name})' if name else ''} is better"


def _bias(comparison: Comparison) -> str:
    bias = (comparison.logit_ab + comparison.logit_ba) / 2
    if bias == 0:
        return "The order of presentation changes nothing."  # of a symmetric ranker, always
    place = "read first" if bias > 0 else "read second"
    strength = f"The order alone moves the logit by {abs(bias):.2f} in favour of the answer that is {place}."
    return f"{strength} {'It decides who wins.' if comparison.flipped else 'It does not change who wins.'}"


def _cuts(comparison: Comparison) -> str:
    cut = comparison.truncated
    parts = zip(("the prompt", "A", "B"), (cut.prompt, *cut.candidates), strict=True)
    return ", ".join(f"{count} tokens of {name}" for name, count in parts if count)


def _unread(unread: Unread | None, names: Sequence[str]) -> str:
    """Return what the ranker could not read, with the names of the candidates; empty for nothing."""
    if not unread:
        return ""
    counted = zip(("the prompt", *names), (unread.prompt, *unread.candidates), strict=True)
    counts = ", ".join(f"{count} tokens of {name}" for name, count in counted if count)
    same = ", ".join(" and ".join(names[index] for index in group) for group in unread.indistinguishable)
    parts = (
        f"The ranker does not know {counts}." if counts else "",
        f"It reads the same in {same}, so their tie says nothing." if same else "",
    )
    return " ".join(filter(None, parts))


def _signed(number: float) -> str:
    rounded = round(number, 2)
    return f"{rounded:+.2f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.00"


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:159] + "…"
