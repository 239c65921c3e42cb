"""The draw of judged pairs on which benchmarks measure a ranker."""

from collections.abc import Iterable

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.training.pair_data import balance_sources, training_pairs


def decided_pairs(prompts: Iterable[LabelledPrompt], most: int, seed: int) -> list[PreferencePair]:
    """Return the pairs that a judge decided, at most so many of a source, drawn with a seed."""
    decided = (pair for pair in training_pairs(prompts) if pair.label != 0.5)
    return balance_sources(decided, most=most, seed=seed)
