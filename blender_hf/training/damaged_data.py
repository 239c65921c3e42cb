"""Self-made pairs that a ranker gets besides the judged ones: a good answer against a damaged one.

They teach a new ranker to read the prompt and the whole of an answer, which the judged pairs of small collections alone
do not, and they are the damage that a fused text may have: off the point, cut short, or caught in a loop.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.modeling.processing_gen_fuser import split_passages

from .fusion_data import good_answers

SOURCE = "damaged"
# Not certain: a short text may lose nothing with its end, and an answer to another prompt may fit by chance.
LABEL = 0.95


def damaged_pairs(prompts: Sequence[LabelledPrompt], most: int, seed: int) -> list[PreferencePair]:
    """Return pairs of a good answer (a) against a damaged text (b).

    The damage is one of three, at random: an answer to another prompt, the answer cut short in mid-word, or its
    passages repeated.

    Args:
        prompts: The labelled prompts.
        most: How many pairs are made, of prompts drawn at random.
        seed: Of the draw and the damage.

    Returns:
        The pairs.
    """
    shuffled = list(prompts)
    random.Random(seed).shuffle(shuffled)
    return list(islice(_damaged_pairs(shuffled, random.Random(seed)), most))


def _damaged_pairs(prompts: Iterable[LabelledPrompt], rng: random.Random) -> Iterator[PreferencePair]:
    foreign: list[str] = []
    for prompt in prompts:
        for answer in good_answers(prompt)[:1]:
            damaged = _damage(answer, foreign, rng)
            if damaged.strip() and damaged != answer:
                yield PreferencePair(prompt.item.source, answer, damaged, LABEL, SOURCE)
            foreign = [*foreign[-200:], answer]


def _damage(answer: str, foreign: list[str], rng: random.Random) -> str:
    kind = rng.choice(("foreign", "cut", "loop"))
    if kind == "foreign" and foreign:
        return rng.choice(foreign)
    passages = split_passages(answer)
    if kind == "loop" and len(passages) > 1:
        start = rng.randrange(len(passages))
        return "".join(passages[: start + 1] + [passages[start]] * rng.randint(1, 4) + passages[start + 1 :])
    return answer[: int(len(answer) * rng.uniform(0.2, 0.8))]
