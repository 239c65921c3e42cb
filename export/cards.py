"""The card of a published checkpoint: README.md with the metadata that the Hub reads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

FIGURES = re.compile(r"<!-- figures: written by \S+ -->\n(.*?)<!-- end of figures -->", re.DOTALL)
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


@dataclass(frozen=True)
class Kind:
    """What the cards of one kind of model have in common.

    Args:
        pipeline_tag: The task under which the Hub lists it.
        tags: How it is found there.
        about: What it does, for a model that has no card of its own.
        use: The section that says how it is loaded from its repository.
    """

    pipeline_tag: str
    tags: tuple[str, ...]
    about: str
    use: str


KINDS = {
    "ranker": Kind(
        "text-ranking",
        ("llm-blending", "reward-model", "preference"),
        "A pairwise ranker: it reads a prompt and two candidate answers together and says which is better.",
        RANKER_USE,
    ),
    "fuser": Kind(
        "text-generation",
        ("llm-blending", "fusion"),
        "A fuser: it reads a prompt and its best candidate answers and writes one answer from them.",
        FUSER_USE,
    ),
}
# The columns of the tables of figures that are results of the model, and their names on the Hub: type and name.
METRICS = {
    "both orders": ("accuracy", "accuracy, both orders of presentation"),
    "one order": ("accuracy", "accuracy, one order of presentation"),
    "ROUGE-L fused": ("rouge", "ROUGE-L of the fused text"),
    "ROUGE-L returned": ("rouge", "ROUGE-L of what is returned"),
    "chrF fused": ("chrf", "chrF of the fused text"),
    "chrF returned": ("chrf", "chrF of what is returned"),
}


def card_text(kind: str, repo_id: str, text: str | None = None) -> str:
    """Return the card of a model, its metadata completed.

    Args:
        kind: "ranker" or "fuser".
        repo_id: Where it is published.
        text: The card that it has, with or without metadata; None writes a short one. What its metadata state stays.

    Returns:
        The text of README.md. The tables between the marks of figures become the results in its `model-index`.

    Raises:
        ValueError: If the metadata of the text are no valid YAML.
    """
    own = KINDS[kind]
    name = repo_id.split("/")[-1]
    card = ModelCard(text if text is not None else f"# {name}\n\n{own.about}\n", ignore_metadata_errors=False)
    data: ModelCardData = card.data
    data.library_name = data.library_name or "transformers"
    data.pipeline_tag = data.pipeline_tag or own.pipeline_tag
    data.tags = list(dict.fromkeys([*(data.tags or []), *own.tags]))
    if not data.eval_results and (results := list(_results(card.text, own.pipeline_tag))):
        data.model_name, data.eval_results = name, results
    if repo_id not in card.text:
        card.text = f"{card.text.rstrip()}\n\n{own.use.format(repo_id=repo_id)}"
    return str(card)


def find_card(folder: str | Path, card: str | Path | None) -> str | None:
    """Return the text of a card: of the file that is named, else of README.md in the folder, if there is one."""
    path = Path(card) if card is not None else Path(folder) / "README.md"
    return path.read_text(encoding="utf-8") if card is not None or path.is_file() else None


def _results(text: str, task: str) -> Iterator[EvalResult]:
    for table in FIGURES.findall(text):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
        if rows and rows[0][0] == "source":
            for row in rows[2:]:
                yield from _row_results(dict(zip(rows[0], row, strict=True)), task)


def _row_results(row: dict[str, str], task: str) -> Iterator[EvalResult]:
    for column, (kind, name) in METRICS.items():
        if column in row:
            yield EvalResult(
                task_type=task,
                dataset_type=re.sub(r"\W+", "-", row["source"]).strip("-").lower(),
                dataset_name=row["source"],
                metric_type=kind,
                metric_name=name,
                metric_value=float(row[column]),
            )
