"""Results of the benchmarks: JSON files in benchmarks/results/, and the Markdown rendered from them.

    python -m benchmarks.tables            # render all results into the documents that show them
    python -m benchmarks.tables --check    # change nothing; fail if a document differs from the results

A document shows a result between the lines `<!-- figures: written by MARK -->` and `<!-- end of figures -->`.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blender_hf.evaluation.bootstrap import Figure
from blender_hf.export.cards import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- figures: written by ([^>]+) -->\n)(.*?)(\n<!-- end of figures -->)", re.DOTALL)

# Formats with a name; the others are format specifications.
FORMATS: dict[str, Callable[[float], str]] = {
    "seconds": lambda value: f"{value:.{2 if value >= 1 else 3}f}",
    "ms": lambda value: f"{value:.3g}" if value < 100 else f"{value:.0f}",
}

Cell = str | float | Mapping[str, Any] | None


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Args:
        columns: For each header the format of its numbers: a specification such as ".3f", or a name of `FORMATS`;
            after a "|" that of the ends of intervals.
        rows: The cells. A string stands as it is, None is empty, and an interval is `{"value", "low", "high"}`, which
            may have its own `"format"`.
    """

    columns: Mapping[str, str]
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        """Render the table."""
        formats = list(self.columns.values())
        return markdown_table(
            self.columns, [[shown(*cell) for cell in zip(row, formats, strict=True)] for row in self.rows]
        )


def shown(cell: Cell, form: str) -> str:
    """Format a cell.

    >>> shown({"value": 0.5, "low": 0.25, "high": 0.75}, ".3f|.2f")
    '0.500 (0.25 to 0.75)'
    """
    if cell is None or isinstance(cell, str):
        return cell or ""
    if not isinstance(cell, Mapping):
        return number(cell, form.partition("|")[0])
    form, _, ends = cell.get("format", form).partition("|")
    spread = "" if cell["low"] is None else f" ({number(cell['low'], ends)} to {number(cell['high'], ends)})"
    return number(cell["value"], form) + spread


def number(value: float, form: str) -> str:
    return FORMATS[form](value) if form in FORMATS else format(value, form)


def interval(figure: Figure) -> dict[str, float | None]:
    """Return the cell of a number with its confidence interval."""
    return {"value": figure.value, "low": figure.low, "high": figure.high}


@dataclass(frozen=True)
class Result:
    """What a benchmark measured, and on what.

    Args:
        mark: The script and the options that tell its results apart; documents show the result under this mark.
        command: How to run it again.
        revision: The commit that was measured.
        date: ISO 8601, in UTC.
        processor: Of the machine, and its GPU if one was used; None if it was not recorded.
        settings: The options of the run.
        source: "measured", or where the numbers were transcribed from.
        sections: Paragraphs of Markdown, and tables.
        details: Numbers that no table shows.
    """

    mark: str
    command: str
    revision: str
    date: str
    processor: str | None
    settings: Mapping[str, Any]
    source: str
    sections: Sequence[str | Table]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the result."""
        return RESULTS / (re.sub(r"\W+", "-", self.mark.removeprefix("benchmarks/").replace(".py", "")) + ".json")

    def markdown(self) -> str:
        """Render all sections."""
        return markdown_of(self.sections)

    def write(self) -> None:
        """Write the file, with each row of a table on a line of its own."""
        facts = {name: value for name, value in asdict(self).items() if name != "sections"}
        sections = ",\n    ".join(map(_json_of, self.sections))
        head = json.dumps(facts, indent=2, ensure_ascii=False).removesuffix("\n}")
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(f'{head},\n  "sections": [\n    {sections}\n  ]\n}}\n', encoding="utf-8")


def markdown_of(sections: Sequence[str | Table]) -> str:
    """Render paragraphs and tables."""
    return "\n\n".join(part if isinstance(part, str) else part.markdown() for part in sections)


def _json_of(section: str | Table) -> str:
    if isinstance(section, str):
        return json.dumps(section, ensure_ascii=False)
    rows = ",\n      ".join(json.dumps(row, ensure_ascii=False) for row in section.rows)
    return f'{{"columns": {json.dumps(section.columns, ensure_ascii=False)}, "rows": [\n      {rows}\n    ]}}'


def read_results() -> dict[str, Result]:
    """Return all results by their marks."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    for result in found:
        result["sections"] = [part if isinstance(part, str) else Table(**part) for part in result["sections"]]
    return {result["mark"]: Result(**result) for result in found}


def documents() -> list[Path]:
    """Return all documents that may show results."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("model_cards/*.md"))]


def document_of(mark: str) -> Path | None:
    """Return the document that shows the results of a mark."""
    line = f"<!-- figures: written by {mark} -->\n"
    return next((path for path in documents() if line in path.read_text(encoding="utf-8")), None)


def filled(text: str, results: Mapping[str, Result]) -> str:
    """Return a document with its results; places without a result stay as they are."""
    return PLACE.sub(
        lambda place: place[1] + results[place[2]].markdown() + place[4] if place[2] in results else place[0], text
    )


def publish(
    script: str,
    sections: Sequence[str | Table],
    options: argparse.Namespace,
    *,
    variant: str = "",
    details: Mapping[str, Any] | None = None,
    drawing: Any = None,
) -> None:
    """Print a result as Markdown and, on the last line, as JSON; with `--save` write it, and the document showing it.

    `script` is the `__file__` of the script, and `variant` has the options that tell its results apart. `details` are
    numbers that no table shows; `drawing` is a plot, saved beside the document and shown above the sections.
    """
    file = Path(script).resolve().relative_to(ROOT)
    mark = f"{file.as_posix()} {variant}".strip()
    document = document_of(mark)
    if drawing is not None and document is not None:
        picture = document.with_suffix(".png")
        sections = [f"![The table as a plot]({picture.name})", *sections]
        if options.save:
            drawing.savefig(picture, dpi=80)
    # A path of one machine tells a reader nothing.
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:] if word != "--save"]
    result = Result(
        mark,
        shlex.join(["python", "-m", ".".join(file.with_suffix("").parts), *words]),
        _revision(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        processor(),
        {name: _plain(value) for name, value in vars(options).items() if name != "save"},
        "measured",
        sections,
        details or {},
    )
    if options.save:
        result.write()
        if document is not None:
            document.write_text(filled(document.read_text(encoding="utf-8"), {mark: result}), encoding="utf-8")
    print(result.markdown(), json.dumps(asdict(result), default=str), sep="\n\n")


def _plain(value: Any) -> Any:
    """Return a setting without the folders of this machine."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return Path(value).name if isinstance(value, Path) or str(value).startswith("/") else value


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def processor() -> str:
    """Return the name of the processor and the number of its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document differs")
    check = parser.parse_args().check
    results, stale = read_results(), []
    for path in documents():
        old = path.read_text(encoding="utf-8")
        if (new := filled(old, results)) != old:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    print("\n".join(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}" for path in stale) or "up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
