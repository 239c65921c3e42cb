"""An evaluation as JSON and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from blender_hf.export.cards import markdown_table
from blender_hf.logs import counted

from .bootstrap import Figure
from .evaluate import MEAN, Evaluation
from .measuring import FIGURES
from .official import ABOUT

# Fewer prompts are warned of: a figure of yes or no is then known to no better than a tenth.
FEW_PROMPTS = 100
# Further columns of the first ranker in the tables by source and language.
MORE = ("accuracy, one order", "flips", "win rate", "spearman")


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain dictionaries, lists and numbers."""
    return asdict(evaluation)


def to_markdown(evaluation: Evaluation) -> str:
    """Return an evaluation as a document: a table of the rankers, one for each division, and what the figures mean."""
    everyone = {name: found.figures for name, found in evaluation.rankers.items()}
    shown = [name for name in FIGURES if any(name in figures for figures in everyone.values())]
    parts = [_counts(evaluation), "## Rankers", _figures_table("figure", shown, everyone)]
    if evaluation.differences:
        parts += ["## Differences", _differences(evaluation, shown)]
    for title, divisions in (("source", "by_source"), ("language", "by_language")):
        tables = {name: getattr(found, divisions) for name, found in evaluation.rankers.items()}
        if len(next(iter(tables.values()))) > 1:
            parts += [f"## By {title}", _division_table(title, tables)]
    calibrated = {name: found.calibration for name, found in evaluation.rankers.items() if found.calibration}
    if calibrated:
        header = ["ranker", "expected calibration error", "Brier score"]
        rows = [[name, f"{found.error:.3f}", f"{found.brier:.3f}"] for name, found in calibrated.items()]
        parts += ["## Calibration", markdown_table(header, rows), "Over the decided pairs; lower is better for both."]
    parts += _official(evaluation)
    return "\n\n".join([*parts, "## What they mean", _meanings(shown)]) + "\n"


def warning_of(evaluation: Evaluation) -> str:
    """Return a warning if an evaluation has few prompts; nothing if it has enough."""
    if evaluation.n_prompts >= FEW_PROMPTS:
        return ""
    prompts = counted(evaluation.n_prompts, "prompt")
    return f"Only {prompts}: with so few the intervals are rough, and differences may be chance; use {FEW_PROMPTS}."


def summary_of(evaluation: Evaluation, names: Mapping[str, str]) -> str:
    """Return the accuracies of rankers in one line, and by how much the first of all is better than each.

    Args:
        evaluation: The evaluation.
        names: What the line calls the rankers, and what the evaluation does.
    """
    first, parts = next(iter(evaluation.rankers)), []
    for name, ranker in names.items():
        accuracy = evaluation.rankers[ranker].figures.get("accuracy")
        difference = evaluation.differences.get(ranker, {}).get("accuracy")
        if accuracy is None:
            parts.append(f"{name}: no pair was decided")
            continue
        pairs = counted(round(accuracy.n), "decided pair")
        less = f" ({first} minus this: {_with_interval(difference, '+')})" if difference else ""
        parts.append(f"{name}: accuracy {accuracy.value:.3f} on {pairs}{less}")
    return "; ".join([*parts, counted(evaluation.n_prompts, "prompt")])


def _official(evaluation: Evaluation) -> list[str]:
    """Return a table for each benchmark, as its authors score it."""
    parts = []
    for benchmark in dict.fromkeys(name for found in evaluation.rankers.values() for name in found.official):
        columns = {name: found.official.get(benchmark, {}) for name, found in evaluation.rankers.items()}
        rows = [
            [score, *(f"{column[score]:.3f}" if score in column else "" for column in columns.values())]
            for score in dict.fromkeys(score for column in columns.values() for score in column)
        ]
        about = f"The official scores: {ABOUT[benchmark]}. Higher is better."
        parts += [f"## {benchmark}", markdown_table(["score", *columns], rows), about]
    return parts


def _counts(evaluation: Evaluation) -> str:
    gold = evaluation.gold or "scores, or verdicts on at least half of the pairs"
    few = warning_of(evaluation)
    prompts, ranked = (counted(number, "prompt") for number in (evaluation.n_prompts, evaluation.n_ranked))
    return (
        f"{prompts}, {counted(evaluation.n_pairs, 'judged pair')}, {evaluation.n_ties} of them ties; "
        f"rankings of {ranked} (gold scores: {gold}). A probability within "
        f"{evaluation.tie_threshold:g} of 0.5 is a tie. In brackets: 95 % bootstrap intervals over prompts."
        f"{few and f' {few}'}"
    )


def _differences(evaluation: Evaluation, shown: Sequence[str]) -> str:
    """Return a table of the first ranker minus each other one, and how to read it."""
    first = next(iter(evaluation.rankers))
    names = [name for name in shown if any(name in figures for figures in evaluation.differences.values())]
    rows = [
        [name, *(_with_interval(figures.get(name), sign="+") for figures in evaluation.differences.values())]
        for name in names
    ]
    return (
        markdown_table(["figure", *(f"minus {name}" for name in evaluation.differences)], rows)
        + f"\n\n{first} minus each other ranker, on the same prompts: where the interval has 0, the difference may be "
        "chance."
    )


def _figures_table(corner: str, names: Iterable[str], columns: Mapping[str, Mapping[str, Figure]]) -> str:
    counts = (figures.get("accuracy") for figures in columns.values())
    rows = [["decided pairs", *("" if figure is None else f"{figure.n:.0f}" for figure in counts)]]
    rows += [[name, *(_with_interval(figures.get(name)) for figures in columns.values())] for name in names]
    return markdown_table([corner, *columns], rows)


def _division_table(title: str, tables: Mapping[str, Mapping[str, Mapping[str, Figure]]]) -> str:
    """Return a table with a row for each part of the data."""
    parts = list(dict.fromkeys(part for table in tables.values() for part in table))
    first = next(iter(tables))
    columns = [(ranker, "accuracy") for ranker in tables] + [(first, figure) for figure in MORE]
    shown = [key for key in columns if any(key[1] in figures for figures in tables[key[0]].values())]
    rows = []
    for part in parts:
        counted = tables[first].get(part, {}).get("accuracy")
        figures = [tables[ranker].get(part, {}).get(figure) for ranker, figure in shown]
        rows.append([part, f"{counted.n:.0f}" if counted and part != MEAN else "", *map(_plain, figures)])
    return markdown_table([title, "decided pairs", *(f"{ranker}: {figure}" for ranker, figure in shown)], rows)


def _with_interval(figure: Figure | None, sign: str = "-") -> str:
    if figure is None or figure.low is None:
        return _plain(figure, sign)
    return f"{_plain(figure, sign)} [{figure.low:{sign}z.3f}, {figure.high:{sign}z.3f}]"


def _plain(figure: Figure | None, sign: str = "-") -> str:
    return "" if figure is None else f"{figure.value:{sign}z.3f}"


def _meanings(names: Iterable[str]) -> str:
    return "\n".join(
        f"- {name}: {FIGURES[name][0]}; {'higher' if FIGURES[name][1] else 'lower'} is better" for name in names
    )
