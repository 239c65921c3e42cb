"""How the results of `rank`, `fuse` and `blend` are written: as JSON, as text, and as tables of CSV and Markdown."""

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blender_hf.data.records import Record
    from blender_hf.engine.results import Blend, Fusion, Ranking

READING = ("truncated", "unread")
WIDTH = 100
PREVIEW = 56
# A spreadsheet takes a cell that begins so for a formula, or for an error, unless it is a number.
FORMULA = re.compile(r"[=@\t\r]|[+-](?!\d*[.,]?\d+\Z)")


@dataclass(frozen=True)
class Presentation:
    """How the results of a command are shown."""

    #: The fields of a line of JSON, after those of the record.
    fields: Callable[[Any], dict[str, Any]]
    text: Callable[[Any], str]
    #: The columns of a CSV file after `id` and `prompt`, and the rows that a result of a record becomes.
    columns: tuple[str, ...]
    rows: "Callable[[Record, Any], Iterable[Sequence[Any]]]"
    #: The result of a record in Markdown, under its prompt.
    markdown: "Callable[[Record, Any], str]"

    def as_json(self, record: "Record", result: Any, *, texts: bool) -> str:
        """Return a result as a line of JSON; with `texts` it has the candidates, which its indices count."""
        from blender_hf.data.records import json_fields

        candidates = [candidate.fields for candidate in record.item.candidates] if texts else None
        held = {} if candidates is None else json_fields({"candidates": candidates}, record.item.where)
        return json.dumps(
            {"id": record.id, "prompt": record.item.source, **held, **self.fields(result)}, ensure_ascii=False
        )

    def as_text(self, record: "Record", result: Any) -> str:
        """Return a result as text under its record's name and prompt."""
        return as_text(record, self.text(result))

    def as_csv(self, record: "Record", result: Any) -> str:
        """Return the rows of a result in CSV."""
        return csv_lines((record.id, record.item.source, *row) for row in self.rows(record, result))

    def as_markdown(self, record: "Record", result: Any) -> str:
        """Return a result as a section of Markdown."""
        from blender_hf.export.cards import markdown_text

        title, prompt = markdown_text(record.id), markdown_text(record.item.source)
        return f"### {title}\n\n**Prompt:** {prompt}\n\n{self.markdown(record, result)}\n"


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as lines of CSV; texts that a spreadsheet would take for formulas get an apostrophe in front."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return out.getvalue().removesuffix("\n")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def rank_fields(ranking: "Ranking") -> dict[str, Any]:
    """Return the fields of `rank` in a JSON line."""
    asked = ("schedule", "n_comparisons", "n_encodings", "flip_rate", "n_cycles")
    names = ("order", "ranks", "scores", "models", *asked, *READING)
    full = ranking.to_dict()
    return {"ranking": {name: full[name] for name in names}, "best": ranking.best}


def fuse_fields(fusion: "Fusion") -> dict[str, Any]:
    """Return the fields of `fuse` in a JSON line."""
    full = fusion.to_dict()
    return {"fused": fusion.text, **{name: full[name] for name in ("fused_from", *READING)}}


def blend_fields(blend: "Blend") -> dict[str, Any]:
    """Return the fields of `blend` in a JSON line."""
    return {
        **rank_fields(blend.ranking),
        "fused": blend.fused,
        "fused_from": list(blend.fused_from),
        "fusion_error": blend.fusion_error,
        "returned": blend.returned,
        "output": blend.output,
    }


def rank_text(ranking: "Ranking") -> str:
    """Return a ranking as a small table, the best candidate first."""
    names = _names(ranking)
    width = max(map(len, names))
    rows = [
        f"  {ranking.ranks[i]:>2}  {ranking.scores[i]:+z6.2f}  {names[i]:<{width}}  {_preview(ranking.candidates[i])}"
        for i in ranking.order
    ]
    return "\n".join([f"rank  score  {'model':<{width}}  answer", *rows])


def fuse_text(fusion: "Fusion") -> str:
    """Return a fused answer under its sources."""
    sources = ", ".join(f"candidate {index}" for index in fusion.fused_from)
    return f"Fused from {sources}:\n{_indented(fusion.text)}"


def blend_text(blend: "Blend") -> str:
    """Return a ranking, what became of the fusion, and the answer."""
    return f"{rank_text(blend.ranking)}\n\n{_verdict(blend)}:\n{_indented(blend.output)}"


def _verdict(blend: "Blend") -> str:
    if blend.comparison is None:
        why = blend.fusion_error or "there are not two different candidates to fuse"
        return f"Returned: the best candidate ({why})"
    names = _names(blend.ranking)
    sources = ", ".join(names[index] for index in blend.fused_from)
    chance = f"{blend.comparison.probability:.0%} against the best candidate"
    if blend.returned == "fused":
        return f"Returned: the text fused from {sources} ({chance})"
    return f"Returned: the best candidate (the text fused from {sources} has {chance})"


def as_text(record: "Record", body: str) -> str:
    """Return a text about a record under its name and prompt."""
    title = f"== {record.id} "
    return f"{title:=<{WIDTH}}\n{_wrapped(record.item.source)}\n\n{body}\n"


def rank_rows(record: "Record", ranking: "Ranking") -> Iterator[Sequence[Any]]:
    """Yield a row for each candidate, the best first."""
    for index in ranking.order:
        score = round(ranking.scores[index], 4) + 0.0  # which is no negative zero
        yield ranking.ranks[index], ranking.models[index], score, ranking.candidates[index]


def fuse_rows(record: "Record", fusion: "Fusion") -> Iterator[Sequence[Any]]:
    """Yield the one row of a fused answer."""
    yield fusion.text, _sources(record, fusion.fused_from)


def blend_rows(record: "Record", blend: "Blend") -> Iterator[Sequence[Any]]:
    """Yield the one row of an answer."""
    sources = _sources(record, blend.fused_from)
    yield blend.output, blend.returned, blend.best, blend.fused, sources, blend.fusion_error


def rank_markdown(record: "Record", ranking: "Ranking") -> str:
    """Return a ranking as a table, the best candidate first, with whole texts."""
    from blender_hf.export.cards import markdown_table, markdown_text

    names = _names(ranking)
    rows = (
        (
            str(ranking.ranks[index]),
            f"{ranking.scores[index]:+z.2f}",
            markdown_text(names[index]),
            markdown_text(ranking.candidates[index]),
        )
        for index in ranking.order
    )
    return markdown_table(("rank", "score", "model", "answer"), rows, numbers=("rank", "score"))


def fuse_markdown(record: "Record", fusion: "Fusion") -> str:
    """Return a fused answer after its sources."""
    return _answer(f"Fused from {_sources(record, fusion.fused_from)}", fusion.text)


def blend_markdown(record: "Record", blend: "Blend") -> str:
    """Return a ranking, what became of the fusion, and the answer."""
    return f"{rank_markdown(record, blend.ranking)}\n\n{_answer(_verdict(blend), blend.output)}"


def _answer(title: str, text: str) -> str:
    from blender_hf.export.cards import markdown_text

    return f"**{markdown_text(title)}:** {markdown_text(text)}"


def _sources(record: "Record", indices: Iterable[int]) -> str:
    return ", ".join(record.item.candidates[index].model or f"candidate {index}" for index in indices)


def _names(ranking: "Ranking") -> list[str]:
    return [model or f"candidate {index}" for index, model in enumerate(ranking.models)]


def _preview(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), PREVIEW, placeholder=" ...") if text.strip() else "(empty)"


def _wrapped(text: str) -> str:
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""])


def _indented(text: str) -> str:
    return textwrap.indent(_wrapped(text), "    ", lambda line: True)


RANKED = Presentation(rank_fields, rank_text, ("rank", "model", "score", "text"), rank_rows, rank_markdown)
FUSED = Presentation(fuse_fields, fuse_text, ("fused", "fused_from"), fuse_rows, fuse_markdown)
BLENDED = Presentation(
    blend_fields,
    blend_text,
    ("output", "returned", "best", "fused", "fused_from", "fusion_error"),
    blend_rows,
    blend_markdown,
)
