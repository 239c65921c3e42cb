"""Rankers by name, beside those that are checkpoints: "length", "mlm:org/model", "reward:http://host:8000", ..."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .engine.compositions import cascade_of, minimum_bayes_risk_of, mixture_of
from .engine.rankers import OwnRanker, Ranker, as_ranker
from .errors import InputError
from .generation.reward_server import load_reward_server
from .judging.loading import load_named_judge, names_judge
from .loading.baselines import DualEncoder, LengthRanker, MlmScorer, RandomRanker
from .loading.checkpoints import HubOptions
from .loading.rankers import load_any_ranker


@dataclass(frozen=True)
class NamedRanker:
    """A kind of ranker that is written as "name" or "name:argument".

    Args:
        make: Returns it, from its argument, where things are looked up, and `device`, `dtype` and
            `attn_implementation` of its model.
        argument: What the argument is; empty if there is none.
        probabilities: Whether the sigmoid of a difference of its scores is a probability.
    """

    make: Callable[[str, HubOptions, dict[str, Any]], OwnRanker]
    argument: str = ""
    probabilities: bool = False


NAMED_RANKERS = {
    "length": NamedRanker(lambda _, hub, running: LengthRanker()),
    "random": NamedRanker(lambda _, hub, running: RandomRanker()),
    "mlm": NamedRanker(
        lambda name, hub, running: MlmScorer.from_pretrained(name, hub=hub, **running),
        "a masked language model",
    ),
    "simcls": NamedRanker(
        lambda name, hub, running: DualEncoder.from_pretrained(name, hub=hub, **running),
        "an encoder",
    ),
    "reward": NamedRanker(
        lambda address, hub, running: load_reward_server(address, hub),
        "the address of a server, http://host:8000#model",
        probabilities=True,
    ),
    "mixture": NamedRanker(
        lambda parts, hub, running: mixture_of(parts, lambda name: _part(name, hub, running)),
        "rankers, 0.7*pair-ranker-mini|0.3*org/reward-model",
    ),
    "cascade": NamedRanker(
        lambda parts, hub, running: cascade_of(parts, lambda name: _part(name, hub, running)),
        "a band and two rankers, 0.25-0.75|pair-ranker-mini|org/large",
    ),
    "mbr": NamedRanker(
        lambda utility, hub, running: minimum_bayes_risk_of(utility, lambda name: _part(name, hub, running)),
        "chrf or a ranker",
    ),
}


def split_name(spec: object) -> tuple[NamedRanker, str] | None:
    """Return the kind and the argument of a named ranker; None for a checkpoint, or anything but a string.

    Raises:
        InputError: If an argument is missing, or not expected.
    """
    name, _, argument = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    kind = NAMED_RANKERS.get(name)
    if kind is None:
        return None
    if bool(argument) != bool(kind.argument):
        wanted = f"{name}:... with {kind.argument}" if kind.argument else name
        raise InputError(f"there is no ranker {spec!r}; write {wanted} (a folder of that name is ./{spec})")
    return kind, argument


def load_named_ranker(spec: object, hub: HubOptions, **running: Any) -> OwnRanker | None:
    """Return a ranker by its name; None if the name is that of a checkpoint."""
    found = split_name(spec)
    return None if found is None else found[0].make(found[1], hub, running)


def _part(name: str, hub: HubOptions, running: dict[str, Any]) -> Ranker:
    """Return a ranker that another one is made of; a revision would be of all of them, so it has none."""
    own = replace(hub, revision=None, subfolder=None)
    if names_judge(name):
        return as_ranker(load_named_judge(name, None, own, **running))
    named = load_named_ranker(name, own, **running)
    return as_ranker(*load_any_ranker(name, own, **running)) if named is None else as_ranker(named)
