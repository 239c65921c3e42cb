"""BLEURT (Sellam et al. 2020, arXiv 2004.04696): a regression model that reads the reference and the candidate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blender_hf.engine.reward_models import RewardModelScorer
from blender_hf.inputs import Candidate, Item
from blender_hf.loading.checkpoints import HubOptions
from blender_hf.loading.rankers import load_reward_model

# A port to PyTorch of the one that the paper's evaluation code takes.
DEFAULT_MODEL = "Elron/bleurt-base-128"


class Bleurt:
    """The score of a sequence classification model with one label, which reads the reference first.

    Args:
        model: Hub id or folder.
        hub: How it is looked up.
        device: Where it runs; None takes a GPU where there is one.
        dtype: The precision; None is float32.

    Raises:
        CheckpointError: If the model can't be loaded.
    """

    def __init__(
        self, model: str | Path = DEFAULT_MODEL, *, hub: HubOptions | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        self.key = f"bleurt {model}"
        self._scorer = RewardModelScorer(*load_reward_model(model, hub or HubOptions(), device, dtype))

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; about 1 is as good, about 0 unrelated."""
        pairs = zip(candidates, references, strict=True)
        return [scores[0] for scores in self._scorer.scores([Item(ref, (Candidate(text),)) for text, ref in pairs])]
