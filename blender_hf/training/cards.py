"""The card of a trained checkpoint: `model_card.md`, filled from the files of its run; nothing is typed by hand."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blender_hf.data.preferences import PreferencePair
from blender_hf.export.cards import card_text, markdown_table

from .loading import LICENCES, SEEN, UNSTATED
from .ranker_metrics import KINDS
from .run_folder import SETTINGS_FILE, RunFolder

TEMPLATE = Path(__file__).with_name("model_card.md")
# As in cc-by-nc-4.0, "CC BY-NC-SA 4.0" and "non-commercial".
NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?\s?commercial", re.IGNORECASE)


def ranker_card(folder: RunFolder, settings: Any, pairs: Sequence[PreferencePair], metrics: Mapping[str, Any]) -> str:
    """Return the card of a ranker or a reward model from its settings, training pairs and `metrics.json`."""
    sources = [
        [source, str(row["pairs"]), *(f"{row[kind]:.3f}" for kind in KINDS)]
        for source, row in metrics.get("sources", {}).items()
    ]
    found = metrics.get("eval", {})
    return _card(
        "ranker",
        folder,
        settings,
        metrics,
        about="A ranker of answers: it says which of two answers to a prompt is better.",
        counts_header=["source", "pairs"],
        counts=[[source, str(n)] for source, n in sorted(Counter(pair.source for pair in pairs).items())],
        columns=list(KINDS),
        sources=sources,
        eval_ece=found.get("eval_ece"),
        eval_temperature=found.get("eval_temperature"),
        eval_loss=None,
    )


def fuser_card(folder: RunFolder, settings: Any, metrics: Mapping[str, Any]) -> str:
    """Return the card of a fuser from its settings and `metrics.json`."""
    return _card(
        "fuser",
        folder,
        settings,
        metrics,
        about="A fuser: it reads a prompt and its best candidate answers and writes one answer from them.",
        counts_header=["task", "examples"],
        counts=[[task, str(n)] for task, n in metrics["training examples"].items()],
        columns=[],
        sources=[],
        eval_loss=metrics.get("eval_loss"),
    )


def eval_prompts_text(facts: Mapping[str, Any]) -> str:
    """Return which prompts a model was evaluated on, as a noun phrase, from `loading.data_facts`."""
    if seen := facts[SEEN]:
        return f"prompts of which this run was trained on {seen}, so the metrics are too optimistic"
    return "prompts that this run was not trained on"


def licence_text(facts: Mapping[str, Any]) -> str:
    """Return the licences of the records in words, with what they forbid, from `loading.data_facts`."""
    counts = facts[LICENCES]
    if set(counts) <= {UNSTATED}:
        return "The records state no licence: find out what their sources allow before you use or publish the model."
    listed = "Licences that the records state: " + ", ".join(f"{name} ({n})" for name, n in counts.items()) + "."
    if any(NON_COMMERCIAL.search(name) for name in counts):
        return f"{listed} Some forbid commercial use, which may bind the model too."
    return listed


def _card(kind: str, folder: RunFolder, settings: Any, metrics: Mapping[str, Any], **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    described = folder.description()
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=folder.path.name,
        model=settings.model,
        data=described["data"],
        settings=(folder.path / SETTINGS_FILE).read_text(encoding="utf-8").strip(),
        git_revision=described["git_revision"],
        versions=", ".join(f"{package} {number}" for package, number in described["versions"].items()),
        eval_prompts=eval_prompts_text(metrics),
        licences=licence_text(metrics),
        table=markdown_table,
        **values,
    )
    return card_text(kind, folder.path.name, text)
