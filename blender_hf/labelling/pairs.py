"""Which pairs of the candidates of a prompt become rows, as a table."""

import random
from collections.abc import Callable, Iterator

from blender_hf.engine.results import Ranking
from blender_hf.errors import InputError

# Chooses pairs of indices of candidates, the better one first.
PairRule = Callable[[Ranking, random.Random], Iterator[tuple[int, int]]]


def best_worst(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the best and the worst."""
    yield ranking.order[0], ranking.order[-1]


def best_random(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the best and another one, drawn by lot."""
    best = ranking.order[0]
    others = [index for index in ranking.order if ranking.candidates[index] != ranking.candidates[best]]
    if others:
        yield best, rng.choice(others)


def all_pairs(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield every pair of different texts, each once."""
    seen: dict[str, int] = {}
    for index in ranking.order:
        if ranking.candidates[index] not in seen:
            yield from ((better, index) for better in seen.values())
            seen[ranking.candidates[index]] = index


PAIRS: dict[str, PairRule] = {"best-worst": best_worst, "best-random": best_random, "all": all_pairs}


def get_pairs(name: str) -> PairRule:
    """Return a choice of pairs by its name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in PAIRS:
        raise InputError(f"there is no choice of pairs {name!r}; use one of {', '.join(PAIRS)}")
    return PAIRS[name]
