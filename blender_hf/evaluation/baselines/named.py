"""Rankers by a short name: rules, oracles and the baselines of the paper; any other name is a checkpoint."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.engine.pointwise import Pointwise
from blender_hf.errors import InputError
from blender_hf.evaluation.judges import Judge, judge_of, judge_of_ranker, length_judge, oracle_judge, random_judge

from .dual_encoder import DualEncoder
from .mlm import MlmScorer


@dataclass(frozen=True)
class NamedRanker:
    """A kind of ranker that is asked for as "name" or "name:what".

    Args:
        needs: What stands behind the colon; empty if there is no colon.
        make: Makes the judge from that, the prompts and the options of loading.
    """

    needs: str
    make: Callable[[str, Iterable[LabelledPrompt], dict[str, Any]], Judge]


NAMED: dict[str, NamedRanker] = {
    "length": NamedRanker("", lambda _, prompts, options: length_judge()),
    "random": NamedRanker("", lambda _, prompts, options: random_judge()),
    "oracle": NamedRanker("the name of a metric", lambda metric, prompts, options: oracle_judge(metric, prompts)),
    "mlm": NamedRanker(
        "a masked language model",
        lambda name, prompts, options: judge_of_ranker(Pointwise(MlmScorer.from_pretrained(name, **options)), False),
    ),
    "simcls": NamedRanker(
        "an encoder",
        lambda name, prompts, options: judge_of_ranker(Pointwise(DualEncoder.from_pretrained(name, **options)), False),
    ),
}


def is_named(spec: str) -> bool:
    """Tell whether a name is that of a rule or a baseline, and not of a checkpoint."""
    return spec.partition(":")[0] in NAMED


def load_judge(
    spec: str, prompts: Iterable[LabelledPrompt], load_blender: Callable[[str], Blender], options: dict[str, Any]
) -> Judge:
    """Load a ranker by its name.

    Args:
        spec: "length", "random", "oracle:METRIC", "mlm:ID", "simcls:ID", or a Hub id or folder of a ranker, pairwise or
            a reward model.
        prompts: The prompts that it will be asked about.
        load_blender: Loads a checkpoint.
        options: How the models of the baselines are loaded: those of `loading.load_with_tokenizer`.

    Returns:
        The judge.

    Raises:
        InputError: If what a name needs is missing.
        CheckpointError: If a checkpoint can't be loaded.
    """
    name, _, what = spec.partition(":")
    if not is_named(spec):
        return judge_of(load_blender(spec))
    if bool(what) != bool(NAMED[name].needs):
        wanted = f"{name}:... with {NAMED[name].needs}" if NAMED[name].needs else name
        raise InputError(f"there is no ranker {spec!r}; write {wanted} (a folder of that name is ./{spec})")
    return NAMED[name].make(what, prompts, options)
