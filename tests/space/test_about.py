from pathlib import Path

import pytest

from blender_hf.loading.checkpoints import BUNDLED
from blender_hf.space.about import PAPER, links, model_card

pytestmark = pytest.mark.once


def test_links_are_those_of_the_package_and_the_paper() -> None:
    stated = ["Repository, https://example.org/a, b", "Documentation, https://example.org/docs"]
    assert links(stated) == {
        "Repository": "https://example.org/a, b",
        "Documentation": "https://example.org/docs",
        "Paper": PAPER,
    }
    assert links()["Paper"] == PAPER


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_has_its_card_without_links_that_lead_nowhere(name: str) -> None:
    card = model_card(name)
    assert card.lstrip().startswith(f"# {name}")
    assert "](../" not in card
    assert "license:" not in card


@pytest.mark.parametrize("name", ["org/model", "chat:org/model", "chat:providers:org/model"])
def test_a_model_of_the_hub_is_linked(name: str) -> None:
    assert model_card(name) == "[org/model on the Hub](https://huggingface.co/org/model)"


def test_a_model_of_a_folder_or_a_server_is_not_linked(tmp_path: Path) -> None:
    for name in (str(tmp_path), "chat:http://localhost:8000/v1#model"):
        assert model_card(name) == "This checkpoint comes without a card."
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nSee [the data](data.md).\n")
    assert model_card(str(tmp_path)).strip() == "# Mine\n\nSee the data."
