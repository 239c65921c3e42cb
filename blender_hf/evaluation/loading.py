"""Loading what is evaluated by its name."""

from collections.abc import Callable, Iterable

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.errors import InputError
from blender_hf.named_rankers import split_name

from .predictors import Predictor, oracle, predictor_of

ORACLE = "oracle"


def has_no_fuser(spec: str) -> bool:
    """Return whether a ranker has no checkpoint, whose configuration could name a fuser."""
    return spec.partition(":")[0] == ORACLE or split_name(spec) is not None


def load_predictor(spec: str, prompts: Iterable[LabelledPrompt], load_blender: Callable[[str], Blender]) -> Predictor:
    """Load a predictor by name, for the prompts that it will be asked about.

    Args:
        spec: Any ranker that `load_blender` takes, or "oracle:METRIC", the scores that the prompts have.
        prompts: The prompts.
        load_blender: Returns the blender of a ranker by its name.
    """
    name, _, metric = spec.partition(":")
    if name != ORACLE:
        named = split_name(spec)
        return predictor_of(load_blender(spec), probabilities=named is None or named[0].probabilities)
    if not metric:
        raise InputError(f"there is no ranker {spec!r}; write {ORACLE}:... with the name of a metric")
    return oracle(metric, prompts)
