"""What the command line prints for each record: a JSON object a line, or text for people."""

import json
import textwrap
from typing import Any

from blender_hf.data.records import Record
from blender_hf.engine.results import Blend, Fusion, Ranking

WIDTH = 100
PREVIEW = 56


def rank_fields(ranking: Ranking) -> dict[str, Any]:
    """Return what `blender-hf rank` says of a record."""
    names = ("order", "ranks", "scores", "models", "schedule", "n_comparisons", "flip_rate", "n_cycles", "truncated")
    full = ranking.to_dict()
    return {"ranking": {name: full[name] for name in names}, "best": ranking.best}


def fuse_fields(fusion: Fusion) -> dict[str, Any]:
    """Return what `blender-hf fuse` says of a record."""
    full = fusion.to_dict()
    return {"fused": fusion.text, "fused_from": full["fused_from"], "truncated": full["truncated"]}


def blend_fields(blend: Blend) -> dict[str, Any]:
    """Return what `blender-hf blend` says of a record."""
    return {
        **rank_fields(blend.ranking),
        "fused": blend.fused,
        "fused_from": list(blend.fused_from),
        "returned": blend.returned,
        "output": blend.output,
    }


def as_json_line(record: Record, fields: dict[str, Any]) -> str:
    """Return a record's result as one line of JSON."""
    return json.dumps({"id": record.id, "prompt": record.item.source, **fields}, ensure_ascii=False)


def rank_text(ranking: Ranking) -> str:
    """Return a ranking as a small table, the best candidate first."""
    names = _names(ranking)
    width = max(map(len, names))
    rows = [
        f"  {ranking.ranks[i]:>2}  {ranking.scores[i]:+6.2f}  {names[i]:<{width}}  {_preview(ranking.candidates[i])}"
        for i in ranking.order
    ]
    return "\n".join([f"rank  score  {'model':<{width}}  answer", *rows])


def fuse_text(fusion: Fusion) -> str:
    """Return a fused answer for people."""
    sources = ", ".join(f"candidate {index}" for index in fusion.fused_from)
    return f"Fused from {sources}:\n{_indented(fusion.text)}"


def blend_text(blend: Blend) -> str:
    """Return a ranking, what became of the fusion, and the answer."""
    return f"{rank_text(blend.ranking)}\n\n{_verdict(blend)}:\n{_indented(blend.output)}"


def as_text(record: Record, body: str) -> str:
    """Return a record's result for people, under its prompt."""
    title = f"== {record.id} "
    return f"{title:=<{WIDTH}}\n{_wrapped(record.item.source)}\n\n{body}\n"


def _verdict(blend: Blend) -> str:
    if blend.comparison is None:
        return "Returned: the best candidate (there are not two different candidates to fuse)"
    names = _names(blend.ranking)
    sources = ", ".join(names[index] for index in blend.fused_from)
    chance = f"{blend.comparison.probability:.0%} against the best candidate"
    if blend.returned == "fused":
        return f"Returned: the text fused from {sources} ({chance})"
    return f"Returned: the best candidate (the text fused from {sources} has {chance})"


def _names(ranking: Ranking) -> list[str]:
    return [model or f"candidate {index}" for index, model in enumerate(ranking.models)]


def _preview(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), PREVIEW, placeholder=" ...") if text.strip() else "(empty)"


def _wrapped(text: str) -> str:
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""])


def _indented(text: str) -> str:
    return textwrap.indent(_wrapped(text), "    ", lambda line: True)
