"""The results as HTML. Every text from outside goes through `escape`; styles and classes are made of numbers alone."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from blender_hf.engine.results import POINTWISE, Comparison, Ranking, probability_of

from .fused import Fused
from .leaderboard import Standing
from .passages import SourcedPassage

# How many colours of sources style.css has.
N_COLOURS = 8
# How far from 0.5 a probability must be at least to have the full colour of the heat map.
LEAST_FULL = 0.05


def ranking_html(ranking: Ranking, tie_threshold: float) -> str:
    """Return the candidates in order as a list of cards."""
    tied = tied_candidates(ranking, tie_threshold)
    cards = "".join(_card(ranking, index, index in tied) for index in ranking.order)
    cut = ranking.truncated.prompt
    note = f'<p class="bh-note">The ranker did not read {cut} tokens of the prompt.</p>' if cut else ""
    return f'<div class="bh">{_heading("Ranking", _facts(ranking))}<ol class="bh-ranking">{cards}</ol>{note}</div>'


def heat_map_html(ranking: Ranking) -> str:
    """Return all comparisons as a table, in the order of the ranking: the rows beat the columns."""
    # The strongest win of the map has the full colour, unless all are close to a tie.
    known = [(i, j) for i in ranking.order for j in ranking.order if not math.isnan(ranking.comparisons[i][j])]
    full = max([LEAST_FULL, *(abs(ranking.probability(*pair) - 0.5) for pair in known)])
    names = {index: escape(candidate_name(ranking, index)) for index in ranking.order}
    head = "".join(
        f'<th scope="col">{_dot(index)}<span class="bh-sr">{name}</span></th>' for index, name in names.items()
    )
    body = "".join(
        f'<tr><th scope="row">{_dot(row)}<span>{name}</span></th>'
        + "".join(_cell(ranking, row, column, full) for column in ranking.order)
        + "</tr>"
        for row, name in names.items()
    )
    return (
        f'<div class="bh">{_heading("Who beats whom", "")}'
        '<p class="bh-note">Probability in per cent that the answer of the row is better than that of the column.</p>'
        f'<div class="bh-heat"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
        '<p class="bh-tip-hint">Point at a cell, or reach it with Tab, to see both orders of presentation.</p></div>'
        f"{_legend()}</div>"
    )


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


def writing_html(text: str) -> str:
    """Return a fused text while it is written."""
    return f'<div class="bh">{_heading("Fused answer", "writing …")}<div class="bh-text">{escape(text)}</div></div>'


def fused_html(fused: Fused, ranking: Ranking) -> str:
    """Return a fused text, coloured by the sources of its passages, and what the ranker makes of it."""
    names = {index: candidate_name(ranking, index) for index in ranking.order}
    legend = "".join(
        f"<li>{_dot(index)}<span>{escape(names[index])}</span>{_cut(cut)}</li>"
        for index, cut in zip(fused.sources, fused.truncated, strict=True)
    )
    passages = "".join(_passage(passage, names) for passage in fused.passages) or "<em>(nothing)</em>"
    return (
        f'<div class="bh">{_heading("Fused answer", "")}{_fusion_verdict(fused, names[ranking.order[0]])}'
        f'<ul class="bh-sources" aria-label="Fused from">{legend}</ul>'
        f'<div class="bh-text" data-testid="fused">{passages}</div></div>'
    )


def note_html(title: str, text: str) -> str:
    """Return a plain note under a heading."""
    return f'<div class="bh">{_heading(title, "")}<p class="bh-note">{escape(text)}</p></div>'


def comparison_html(comparison: Comparison) -> str:
    """Return a comparison in both orders, with what the order alone does."""
    verdict = {"a": "Answer A is better", "b": "Answer B is better", "tie": "A tie"}[comparison.preferred]
    bias = (comparison.logit_ab + comparison.logit_ba) / 2
    temperature = comparison.temperature
    rows = (
        ("A read first", probability_of(comparison.logit_ab, temperature), comparison.logit_ab),
        ("B read first", probability_of(-comparison.logit_ba, temperature), -comparison.logit_ba),
        ("Both orders", comparison.probability, comparison.logit),
    )
    bars = "".join(_duel(name, probability, logit) for name, probability, logit in rows)
    return (
        f'<div class="bh">{_heading(verdict, f"{comparison.probability:.0%} for A")}'
        f'<div class="bh-duels"><div class="bh-ends"><span>A</span><span>B</span></div>{bars}</div>'
        f'<p class="bh-note">{_bias(bias, comparison.flipped)}</p>{_cuts(comparison)}</div>'
    )


def progress_html(done: int, total: int) -> str:
    """Return how far a batch is."""
    return (
        f'<div class="bh">{_heading("Ranking", f"{done} of {total} prompts")}'
        f'<div class="bh-track" role="progressbar" aria-valuenow="{done}" aria-valuemax="{total}">'
        f'<div class="bh-fill" style="width:{100 * done / max(total, 1):.1f}%"></div></div></div>'
    )


def leaderboard_html(standings: Sequence[Standing], n_prompts: int) -> str:
    """Return the models by strength, with their intervals as a plot."""
    if not standings:
        return note_html("Leaderboard", "No leaderboard: the candidates do not name two models that met.")
    low, high = min(s.low for s in standings), max(s.high for s in standings)
    rows = "".join(_standing(place, standing, low, high) for place, standing in enumerate(standings, 1))
    return (
        f'<div class="bh">{_heading("Leaderboard", f"{n_prompts} prompts")}'
        '<div class="bh-scroll"><table class="bh-board">'
        "<thead><tr><th></th><th>Model</th><th>Win rate</th><th>Strength</th>"
        '<th class="bh-wide">95 % interval</th><th class="bh-wide">Won / tied / lost</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="bh-note">Strength is the Bradley-Terry score: the difference of two is the log-odds that one beats '
        "the other. The interval comes from drawing the prompts again; where two intervals overlap widely, their order "
        "may be chance.</p></div>"
    )


def _heading(title: str, aside: str) -> str:
    return f'<div class="bh-heading"><h3>{escape(title)}</h3><span class="bh-facts">{aside}</span></div>'


def _facts(ranking: Ranking) -> str:
    if ranking.schedule == POINTWISE:
        return "<span>each answer scored by itself</span>"
    facts = [f"{ranking.n_comparisons} of {ranking.n_possible} comparisons"]
    if ranking.flip_rate is not None:
        facts.append(f"{ranking.flip_rate:.0%} flip with the order")
    facts.append(f"{ranking.n_cycles} cycle{'' if ranking.n_cycles == 1 else 's'}")
    return _joined(f"<span>{fact}</span>" for fact in facts)


def _card(ranking: Ranking, index: int, tied: bool) -> str:
    rank, text, chance = ranking.ranks[index], ranking.candidates[index], ranking.win_probability(index)
    name, badges = escape(candidate_name(ranking, index)), _cut(ranking.truncated.candidates[index])
    if tied:
        badges = f'<span class="bh-badge bh-tie">tie</span>{badges}'
    return (
        f'<li class="bh-card{" bh-first" if rank == 1 else ""}">'
        f'<div class="bh-place" aria-label="rank {rank}">{rank}</div>'
        f'<div class="bh-main"><div class="bh-name">{_dot(index)}<b>{name}</b>{badges}</div>'
        f'<div class="bh-track" title="mean probability of beating another answer">'
        f'<div class="bh-fill" style="width:{100 * chance:.1f}%"></div></div></div>'
        f'<div class="bh-figures"><b>{chance:.0%}</b><span>score {_signed(ranking.scores[index])}</span></div>'
        f'<details><summary>{escape(_preview(text))}</summary><div class="bh-text">{escape(text)}</div>'
        "</details></li>"
    )


def _cell(ranking: Ranking, row: int, column: int, full: float) -> str:
    if row == column:
        return '<td class="bh-none" aria-hidden="true"></td>'
    names = [escape(candidate_name(ranking, index)) for index in (row, column)]
    title = "<b>{}</b> against <b>{}</b>".format(*names)
    if math.isnan(ranking.comparisons[row][column]):
        return f'<td class="bh-none" tabindex="0"><i>·</i><span class="bh-tip">{title}: not compared.</span></td>'
    probability = ranking.probability(row, column)
    side = "win" if probability >= 0.5 else "loss"
    strength = 8 + 62 * abs(probability - 0.5) / full
    flipped = " bh-flipped" if ranking.flipped(row, column) else ""
    return (
        f'<td class="bh-{side}{flipped}" tabindex="0" style="--x:{strength:.0f}%"><i>{100 * probability:.0f}</i>'
        f'<span class="bh-tip">{title}: {probability:.1%}. {_orders(ranking, row, column)}</span></td>'
    )


def _orders(ranking: Ranking, row: int, column: int) -> str:
    if ranking.schedule == POINTWISE:
        return "From the scores of both."
    if ranking.candidates[row] == ranking.candidates[column]:
        return "The same text: a tie without a comparison."
    orders = (("read first", ranking.logits[row][column]), ("read second", -ranking.logits[column][row]))
    told = "; ".join(f"{name} {_signed(logit)}" for name, logit in orders if not math.isnan(logit))
    return f"Logit in its favour: {told}.{' The order decides.' if ranking.flipped(row, column) else ''}"


def _legend() -> str:
    return (
        '<ul class="bh-legend"><li><span class="bh-key bh-win"></span>row is better</li>'
        '<li><span class="bh-key bh-loss"></span>column is better</li>'
        '<li><span class="bh-key bh-flipped"></span>winner changes with the order</li></ul>'
    )


def _fusion_verdict(fused: Fused, best: str) -> str:
    kind, words = {
        "a": ("good", "The ranker prefers this text to the best candidate"),
        "b": ("poor", "The ranker does not prefer this text to the best candidate"),
        "tie": ("even", "The ranker finds this text as good as the best candidate"),
    }[fused.comparison.preferred]
    return (
        f'<p class="bh-verdict bh-{kind}"><span>{words}, <span class="bh-whole">{escape(best)}.</span></span>'
        f'<b title="probability that this text is better">{fused.comparison.probability:.0%}</b></p>'
    )


def _passage(passage: SourcedPassage, names: dict[int, str]) -> str:
    if passage.source is None:
        return escape(passage.text)
    body = passage.text.lstrip()
    white = passage.text[: len(passage.text) - len(body)]
    word = "from" if passage.exact else "much like"
    return (
        f'{escape(white)}<mark class="bh-c{passage.source % N_COLOURS}" '
        f'title="{word} {escape(names[passage.source])}">{escape(body)}</mark>'
    )


def _duel(name: str, probability: float, logit: float) -> str:
    return (
        f'<div class="bh-duel"><span>{name}</span><div class="bh-both"><div class="bh-a" '
        f'style="width:{100 * probability:.1f}%"></div></div>'
        f"<b>{probability:.0%}</b><small>{_signed(logit)}</small></div>"
    )


def _bias(bias: float, flipped: bool) -> str:
    if bias == 0:
        return "The order of presentation changes nothing."  # of a symmetric ranker, always
    place = "read first" if bias > 0 else "read second"
    strength = f"The order alone moves the logit by {abs(bias):.2f} in favour of the answer that is {place}."
    return f"{strength} {'It decides who wins.' if flipped else 'It does not change who wins.'}"


def _cuts(comparison: Comparison) -> str:
    cut = comparison.truncated
    parts = zip(("the prompt", "A", "B"), (cut.prompt, *cut.candidates), strict=True)
    told = ", ".join(f"{count} tokens of {name}" for name, count in parts if count)
    return f'<p class="bh-note">The ranker did not read {told}.</p>' if told else ""


def _standing(place: int, standing: Standing, low: float, high: float) -> str:
    width = max(high - low, 1e-9)
    at = {name: 100 * (getattr(standing, name) - low) / width for name in ("low", "strength", "high")}
    plot = (
        f'<div class="bh-whisker"><i style="left:{at["low"]:.1f}%;width:{at["high"] - at["low"]:.1f}%"></i>'
        f'<b style="left:{at["strength"]:.1f}%"></b></div>'
    )
    return (
        f'<tr><td>{place}</td><th scope="row">{escape(standing.model)}</th><td>{standing.win_rate:.0%}</td>'
        f'<td>{_signed(standing.strength)}</td><td class="bh-wide" '
        f'title="{_signed(standing.low)} to {_signed(standing.high)}">{plot}</td>'
        f'<td class="bh-wide">{standing.wins} / {standing.ties} / {standing.losses}</td></tr>'
    )


def _dot(index: int) -> str:
    return f'<span class="bh-dot bh-c{index % N_COLOURS}" aria-hidden="true">{_letter(index)}</span>'


def _letter(index: int) -> str:
    return chr(ord("A") + index % 26)


def _cut(tokens: int) -> str:
    return f'<span class="bh-badge bh-cut">{tokens} tokens cut</span>' if tokens else ""


def _signed(number: float) -> str:
    rounded = round(number, 2)
    return f"{rounded:+.2f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.00"


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:159] + "…"


def _joined(parts: Iterable[str]) -> str:
    return "".join(parts)
