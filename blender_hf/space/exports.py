"""What can be taken home from a batch: its rankings, and preferences to train with."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from blender_hf.data.records import Record
from blender_hf.engine.results import Ranking
from blender_hf.labelling.filters import Filters
from blender_hf.labelling.formats import Labelled, get_format, ranked_fields


def ranked_record(record: Record, ranking: Ranking) -> dict[str, Any]:
    """Return a record with its ranking, its candidates the best first."""
    return {"id": record.id, "prompt": record.item.source, **ranked_fields(ranking)}


def preference_records(records: Sequence[Record], rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Return the best candidate of each prompt as chosen and the worst as rejected, as `blender-hf label` does.

    Args:
        records: The prompts with their candidates.
        rankings: Their rankings.

    Returns:
        Rows of `labelling.formats.dpo_rows`; none for a prompt whose best candidate is no better than its worst.
    """
    form, filters = get_format("dpo"), Filters()
    return [
        row.fields
        for record, ranking in zip(records, rankings, strict=True)
        for row in form.rows(Labelled(record, ranking))
        if filters.reason(row, form) is None
    ]


def as_json_lines(records: Iterable[dict[str, Any]]) -> str:
    """Return records as JSON, one a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
