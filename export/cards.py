"""The card of a published checkpoint: README.md with the metadata that the Hub reads."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

from huggingface_hub import EvalResult, ModelCardData

from blender_hf.loading.checkpoints import BUNDLED, locate
from blender_hf.modeling import GenFuserConfig, PairRankerConfig
from blender_hf.modeling.hub_mixins import TASKS, completed_card

FIGURES = re.compile(r"<!-- figures: written by \S+ -->\n(.*?)<!-- end of figures -->", re.DOTALL)
# For characters from which a backslash does not take their meaning everywhere: "|" ends the cell of a table.
ENTITIES = {ord(character): f"&#{ord(character)};" for character in "|\\$"} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
}
RANKER_USE = """\
## From the Hub

With the package `blender-hf`:

```python
from blender_hf import Blender

blender = Blender.from_pretrained("{repo_id}")
print(blender.rank("2 + 2?", ["4", "Bananas are yellow."]).best)
```

Without it, with the code that is in this repository:

```python
from transformers import pipeline

blend = pipeline(model="{repo_id}", trust_remote_code=True)
print(blend({{"prompt": "2 + 2?", "candidates": ["4", "Bananas are yellow."]}})["output"])
```
"""
FUSER_USE = """\
## From the Hub

```python
from blender_hf import Blender

blender = Blender.from_pretrained(fuser="{repo_id}")
print(blender.fuse("How do I boil an egg?", ["Boil water. Add the egg.", "Wait for eight minutes."]).text)
```

Without the package `blender-hf`, `AutoModelForSeq2SeqLM` and `AutoProcessor` load it with `trust_remote_code=True`.
"""
CAUSAL_FUSER_USE = FUSER_USE.replace(
    "`AutoModelForSeq2SeqLM` and `AutoProcessor` load it with `trust_remote_code=True`",
    "`AutoModelForCausalLM` loads it as any language model, and `AutoProcessor` with\n`trust_remote_code=True` writes "
    "what it reads",
)


@dataclass(frozen=True)
class Kind:
    """What the cards of one kind of model have in common."""

    model_type: str  # as in its configuration
    about: str  # what it does, for a model without a card
    use: str  # the section on loading it from its repository


# The card of a fuser that is a causal language model.
CAUSAL_FUSER = "causal fuser"
KINDS = {
    "ranker": Kind(
        PairRankerConfig.model_type,
        "A pairwise ranker: it reads a prompt and two candidate answers together and says which is better.",
        RANKER_USE,
    ),
    "fuser": Kind(
        GenFuserConfig.model_type,
        "A fuser: it reads a prompt and its best candidate answers and writes one answer from them.",
        FUSER_USE,
    ),
    CAUSAL_FUSER: Kind(
        GenFuserConfig.model_type,
        "A fuser: it reads a prompt and its best candidate answers and writes one answer from them.",
        CAUSAL_FUSER_USE,
    ),
}
# Columns of tables of metrics that are results of the model, and their type and name on the Hub.
METRICS = {
    "both orders": ("accuracy", "accuracy, both orders of presentation"),
    "one order": ("accuracy", "accuracy, one order of presentation"),
    "ROUGE-L fused": ("rouge", "ROUGE-L of the fused text"),
    "ROUGE-L returned": ("rouge", "ROUGE-L of what is returned"),
    "chrF fused": ("chrf", "chrF of the fused text"),
    "chrF returned": ("chrf", "chrF of what is returned"),
}


def card_text(kind: str, repo_id: str, text: str | None = None) -> str:
    """Return the text of a model's card with completed metadata.

    What the existing card, `text`, states stays; without one a short card is written. The tables between the markers
    of figures become the results in its `model-index`.
    """
    own = KINDS[kind]
    name = repo_id.split("/")[-1]
    card = completed_card(text if text is not None else f"# {name}\n\n{own.about}\n", own.model_type)
    data = cast(ModelCardData, card.data)
    if not data.eval_results and (results := list(_results(card.text, TASKS[own.model_type]))):
        data.model_name, data.eval_results = name, results
    if not _names(card.text, repo_id):
        card.text = f"{card.text.rstrip()}\n\n{own.use.format(repo_id=repo_id)}"
    return str(card)


def find_card(folder: str | Path, card: str | Path | None) -> str | None:
    """Return the text of a card: of the given file, or of README.md in the checkpoint's folder; None if there is none.

    The cards of bundled checkpoints lie in the installed package, or in the repository if the package runs from there.
    """
    folder = Path(folder)
    if card is not None:
        return Path(card).read_text(encoding="utf-8")
    paths = [folder / "README.md"]
    if folder.name in BUNDLED and folder == Path(locate(folder.name)):
        paths += [parent / "model_cards" / f"{folder.name}.md" for parent in folder.parents[1:3]]
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)


def markdown_text(text: str) -> str:
    r"""Return a text as it is in Markdown, in one line: nothing in it is markup, ends the cell of a table, or is HTML.

    >>> markdown_text("*a* | b\n<c>")
    '\\*a\\* &#124; b<br>&lt;c&gt;'
    """
    lines = (re.sub(r"[`*_\[\]~]", r"\\\g<0>", line.translate(ENTITIES)) for line in text.splitlines())
    return "<br>".join(lines)


def markdown_table(
    header: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: Collection[str] | None = None
) -> str:
    """Return a Markdown table, with the columns of numbers flush right; by default these are all but the first."""
    names = list(header)
    ruler = ["---:" if name in (names[1:] if numbers is None else numbers) else "---" for name in names]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [names, ruler, *rows]
    )


def _names(text: str, repo_id: str) -> bool:
    """Return whether a text names a repository, and not just one whose name begins or ends like it."""
    return re.search(rf"(?<![\w./-]){re.escape(repo_id)}(?![\w/-]|\.\w)", text) is not None


def _results(text: str, task: str) -> Iterator[EvalResult]:
    """Yield the results in the tables of figures whose rows are sources."""
    for figures in FIGURES.findall(text):
        for is_table, lines in groupby(figures.splitlines(), key=lambda line: line.startswith("|")):
            if is_table:
                header, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
                if header[0] == "source":
                    for row in rows[1:]:  # the first is the ruler
                        yield from _row_results(dict(zip(header, row, strict=False)), task)


def _row_results(row: dict[str, str], task: str) -> Iterator[EvalResult]:
    for column, (kind, name) in METRICS.items():
        # A cell may be empty or hold words, a mark or a unit.
        if row["source"] and re.fullmatch(r"-?\d+(\.\d+)?", row.get(column, "")):
            yield EvalResult(
                task_type=task,
                dataset_type=re.sub(r"\W+", "-", row["source"]).strip("-").lower(),
                dataset_name=row["source"],
                metric_type=kind,
                metric_name=name,
                metric_value=float(row[column]),
            )
