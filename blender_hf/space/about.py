"""What the page says of itself: where the project is, and the cards of its models."""

import re
from collections.abc import Iterable
from importlib.metadata import metadata
from pathlib import Path

from huggingface_hub import ModelCard

from blender_hf.export.cards import find_card
from blender_hf.loading.checkpoints import locate

PAPER = "https://arxiv.org/abs/2306.02561"
# At the end of a name, which may begin with "chat:" or "chat:providers:".
HUB_ID = re.compile(r"(?:^|(?<=:))[\w.-]+/[\w.-]+$")
RELATIVE_LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#)[^)]*\)")


def links(project_urls: Iterable[str] | None = None) -> dict[str, str]:
    """Return addresses by their names: what the installed package states, such as its repository, and the paper.

    Args:
        project_urls: Values of `Project-URL` in the metadata of a package, "name, address"; None for those of this one.

    >>> list(links(["Repository, https://example.org/repository"]))
    ['Repository', 'Paper']
    """
    stated = metadata("blender-hf").get_all("Project-URL", []) if project_urls is None else project_urls
    return {name: url for name, _, url in (entry.partition(", ") for entry in stated)} | {"Paper": PAPER}


def model_card(name: str) -> str:
    """Return the card of a checkpoint that the page offers, in Markdown: its text, or a link to it on the Hub."""
    text = find_card(locate(name), None)
    if text is not None:  # links to its neighbours in the repository lead nowhere on the page
        return RELATIVE_LINK.sub(r"\1", ModelCard(text, ignore_metadata_errors=True).text)
    model = HUB_ID.search(name)
    if model is None or Path(name).exists():
        return "This checkpoint comes without a card."
    return f"[{model[0]} on the Hub](https://huggingface.co/{model[0]})"
