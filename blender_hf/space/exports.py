"""What can be taken home from a batch: its rankings, and preferences to train with."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from blender_hf.data.records import Record
from blender_hf.results import Ranking


def ranked_record(record: Record, ranking: Ranking) -> dict[str, Any]:
    """Return a record with its ranking, its candidates the best first."""
    candidates = [
        {
            "model": ranking.models[index],
            "text": ranking.candidates[index],
            "rank": ranking.ranks[index],
            "score": ranking.scores[index],
        }
        for index in ranking.order
    ]
    names = ("schedule", "n_comparisons", "flip_rate", "n_cycles", "truncated")
    full = ranking.to_dict()
    return {
        "id": record.id,
        "prompt": record.item.source,
        "candidates": candidates,
        **{name: full[name] for name in names},
    }


def preference_record(record: Record, ranking: Ranking) -> dict[str, Any] | None:
    """Return the best candidate as chosen and the worst as rejected, in the standard format of preferences.

    Returns:
        `prompt`, `chosen` and `rejected`, with their scores; None if the best is no better than the worst.
    """
    best, worst = ranking.order[0], ranking.order[-1]
    if ranking.scores[best] == ranking.scores[worst]:
        return None
    return {
        "prompt": record.item.source,
        "chosen": ranking.candidates[best],
        "rejected": ranking.candidates[worst],
        "score_chosen": ranking.scores[best],
        "score_rejected": ranking.scores[worst],
    }


def preference_records(records: Sequence[Record], rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Return the preferences of a batch, without the prompts whose candidates all tie."""
    found = (preference_record(record, ranking) for record, ranking in zip(records, rankings, strict=True))
    return [preference for preference in found if preference is not None]


def as_json_lines(records: Iterable[dict[str, Any]]) -> str:
    """Return records as JSON, one a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
