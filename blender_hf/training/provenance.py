"""Where the data of a run is from: its licences, and whether a model was measured on what it was trained on."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blender_hf.data.labelled import LabelledPrompt

UNSTATED = "not stated"
# As in cc-by-nc-4.0, "CC BY-NC-SA 4.0" and "non-commercial".
NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?\s?commercial", re.IGNORECASE)
LICENCES, SEEN, SKIPPED = "licences", "eval prompts trained on", "skipped records"


def data_facts(
    trained: Sequence[LabelledPrompt],
    used: Iterable[str],
    measured: Iterable[str],
    skipped: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return what `metrics.json` says of the data of a run.

    Args:
        trained: The prompts that it could be trained on.
        used: The texts of those that it was trained on.
        measured: The texts of the prompts that it was measured on.
        skipped: By what they were for, the reasons why records were skipped.

    Returns:
        `licences`, how many records each has; `eval prompts trained on`, the number of prompts in both; and the
        `skipped records` with each reason.
    """
    texts = set(used)
    records = (prompt for prompt in trained if prompt.item.source in texts)
    return {
        LICENCES: dict(Counter(prompt.license or UNSTATED for prompt in records).most_common()),
        SEEN: len(texts & set(measured)),
        SKIPPED: {name: list(reasons) for name, reasons in skipped.items()},
    }


def measured_on(facts: Mapping[str, Any]) -> str:
    """Return what a card says of what figures were measured on, without a verb."""
    if seen := facts[SEEN]:
        return f"prompts of which this run was trained on {seen}, so the figures promise too much"
    return "prompts that this run was not trained on"


def licence_text(facts: Mapping[str, Any]) -> str:
    """Return the licences of the records, in words, with what they forbid."""
    counts = facts[LICENCES]
    if set(counts) <= {UNSTATED}:
        return "The records state no licence: find out what their sources allow before you use or publish the model."
    listed = "Licences that the records state: " + ", ".join(f"{name} ({n})" for name, n in counts.items()) + "."
    if any(NON_COMMERCIAL.search(name) for name in counts):
        return f"{listed} Some forbid commercial use, which may bind the model too."
    return listed
