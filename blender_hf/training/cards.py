"""The card of a trained checkpoint, made of the files of its run: no figure in it is typed by hand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from blender_hf.data.preferences import PreferencePair
from blender_hf.export.cards import card_text, markdown_table

from .provenance import licence_text, measured_on
from .ranker_metrics import KINDS
from .runs import SETTINGS_FILE, Run

BEGIN, END = "<!-- figures: written by blender-hf -->", "<!-- end of figures -->"


def ranker_card(run: Run, settings: Any, pairs: Sequence[PreferencePair], metrics: Mapping[str, Any]) -> str:
    """Return the card of a ranker or a reward model.

    Args:
        run: The run.
        settings: Its settings.
        pairs: What it was trained on.
        metrics: What was written to `metrics.json`: what was measured, if anything was, and `provenance.data_facts`.

    Returns:
        The text of README.md.
    """
    about = "A ranker of answers: it says which of two answers to a prompt is better."
    trained = f"{_pairs_text(pairs)}\n\n{licence_text(metrics)}"
    return _card("ranker", run, settings, about, _ranker_figures(metrics), trained)


def fuser_card(run: Run, settings: Any, n_examples: Mapping[str, int], metrics: Mapping[str, Any]) -> str:
    """Return the card of a fuser; the arguments are like those of `ranker_card`."""
    about = "A fuser: it reads a prompt and its best candidate answers and writes one answer from them."
    trained = markdown_table(["task", "examples"], [[task, str(n)] for task, n in n_examples.items()])
    return _card("fuser", run, settings, about, _loss_figures(metrics), f"{trained}\n\n{licence_text(metrics)}")


def _card(kind: str, run: Run, settings: Any, about: str, figures: str, trained: str) -> str:
    name = run.folder.name
    described = run.description()
    data = "\n".join(f"- `{source}`: {mark}" for source, mark in described["data"].items())
    yaml = (run.folder / SETTINGS_FILE).read_text(encoding="utf-8").strip()
    versions = ", ".join(f"{package} {number}" for package, number in described["versions"].items())
    parts = [
        f"# {name}\n\n{about} It was trained from `{settings.model}`."
        if settings.model
        else f"# {name}\n\n{about} It was trained from nothing.",
        f"## How good it is\n\n{figures}",
        f"## What it was trained on\n\n{trained}\n\n{data}",
        f"## How it was trained\n\n```yaml\n{yaml}\n```\n\nCode: {described['git_revision'] or 'unknown'}; {versions}.",
    ]
    return card_text(kind, name, "\n\n".join(parts) + "\n")


def _ranker_figures(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("sources"):
        return "It was not measured: the settings of its run name no data to measure on, or none that is decided."
    rows = [
        [source, str(row["pairs"]), *(f"{row[kind]:.3f}" for kind in KINDS)]
        for source, row in metrics["sources"].items()
    ]
    found = metrics["eval"]
    note = (
        f"Decided pairs of {measured_on(metrics)}; chance is 0.5, higher is better but for flips, the share of pairs "
        "whose winner changes with the order of presentation. Expected calibration error: "
        f"{found['eval_ece']:.3f} under the temperature of {found['eval_temperature']:.2f}, fitted on these pairs."
    )
    return f"{BEGIN}\n{markdown_table(['source', 'pairs', *KINDS], rows)}\n\n{note}\n{END}"


def _loss_figures(metrics: Mapping[str, Any]) -> str:
    if "eval_loss" not in metrics:
        return "It was not measured: the settings of its run name no data to measure on."
    return f"Loss on examples of {measured_on(metrics)}: {metrics['eval_loss']:.3f} a token."


def _pairs_text(pairs: Sequence[PreferencePair]) -> str:
    counts = Counter(pair.source for pair in pairs)
    return markdown_table(["source", "pairs"], [[source, str(n)] for source, n in sorted(counts.items())])
