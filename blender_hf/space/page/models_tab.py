"""The tab with the cards of the models that the page offers."""

from blender_hf.space.about import model_card
from blender_hf.space.models import Models

from .events import gr


def models_tab(models: Models) -> None:
    """Arrange the tab: a card that opens for each ranker and fuser."""
    for role, names in (("Ranker", models.rankers), ("Fuser", models.fusers)):
        for name in names:
            with gr.Accordion(f"{role} {name}", open=False):
                gr.Markdown(model_card(name))
