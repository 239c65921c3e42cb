"""The tables of the paper as JSON for machines, and as Markdown for people."""

from dataclasses import asdict
from typing import Any

from .bootstrap import Figure
from .correlations import BY_MODEL, CORRELATIONS, FOOTRULE
from .markdown import markdown_table
from .paper_rows import GPT_RANK, TOP_3
from .paper_tables import PaperTables

NEARNESS = (
    '"By model" is as in the paper: for each model the correlation of its ranks over the prompts, mean over models; '
    '"by prompt" is the mean over prompts of the correlation of the ranks of their candidates. The footrule is the sum '
    "of the distances of the ranks of a prompt; lower is better for it alone."
)


def to_json(tables: PaperTables) -> dict[str, Any]:
    """Return the tables as plain dictionaries, lists and numbers."""
    return asdict(tables)


def to_markdown(tables: PaperTables) -> str:
    """Return both tables with what they mean."""
    settings = tables.settings
    columns = [*settings.metrics, GPT_RANK, *map(settings.column, settings.bases), TOP_3]
    shown = [name for name in columns if any(name in row.figures for row in tables.rows)]
    main = markdown_table(
        ["answers of", "kind", *shown],
        [[row.name, row.kind, *(_cell(row.figures.get(name), name) for name in shown)] for row in tables.rows],
    )
    names = [f"{name}, {BY_MODEL}" for name in ("Pearson", "Spearman")]
    names += [FOOTRULE, *(f"{name}, by prompt" for name in CORRELATIONS)]
    near = markdown_table(
        ["ranks by", *names],
        [[ranker, *(_number(found.get(name)) for name in names)] for ranker, found in tables.correlations.items()],
    )
    return "\n\n".join(["## Main table", main, _meaning(tables), "## Correlation with GPT-Rank", near, NEARNESS]) + "\n"


def _meaning(tables: PaperTables) -> str:
    texts = [
        f"{tables.n_prompts} prompts; {tables.n_left_out} more lack a verdict. GPT-Rank: mean rank by the verdicts, "
        f'lower is better; higher is better for all others. At least as good by the rule "{tables.settings.rule}". '
        "Random in this table is the mean over all candidates."
    ]
    if tables.n_fused:
        judged = f"judged by {tables.judged_by}" if tables.judged_by else "not judged, so nothing is said of their rank"
        texts.append(f"{tables.n_fused} answers of the blend are new texts, {judged}.")
    return " ".join(texts)


def _cell(figure: Figure | None, column: str) -> str:
    if figure is None:
        return ""
    return f"{figure.value:.2f}" if column == GPT_RANK or column.endswith("(%)") else f"{figure.value:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
