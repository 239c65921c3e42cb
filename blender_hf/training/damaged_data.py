"""Self-made pairs that a ranker gets besides the judged ones: a good answer against a damaged one.

They teach a ranker to read the prompt and the whole of an answer, which the judged pairs of small collections alone do
not: to tell an answer from one to another question, and from the damage that a fused text may have.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError
from blender_hf.modeling.processing_gen_fuser import split_passages

from .fusion_data import good_answers

SOURCE = "damaged"
# Not certain: a short text may lose nothing with its end, and an answer to another prompt may fit by chance.
LABEL = 0.95
# Whole passages may well be superfluous.
LABELS = {"shortened": 0.8}
# Kinds of damage, and how often each is made: a good answer to one of the most similar prompts of the collection, or to
# any of them; the answer cut short, somewhere or behind one of its passages; passages of it repeated; its passages in
# another order.
DAMAGES = {"near": 4, "foreign": 1, "cut": 1, "shortened": 1, "loop": 1, "shuffled": 1}
N_NEIGHBOURS = 3
# Prompts that are more alike than this may have the same answer.
MOST_SIMILAR = 0.8


def damaged_pairs(
    prompts: Sequence[LabelledPrompt], most: int, seed: int, kinds: Sequence[str] = tuple(DAMAGES)
) -> list[PreferencePair]:
    """Return pairs of a good answer (a) against a damaged text (b).

    Args:
        prompts: The labelled prompts.
        most: How many pairs are made, of prompts drawn at random.
        seed: Of the draw and the damage.
        kinds: Which kinds of `DAMAGES` are made. What can't be had, such as another order of one passage, is not.

    Returns:
        The pairs.

    Raises:
        InputError: If there is no such kind.
    """
    if unknown := set(kinds) - set(DAMAGES):
        raise InputError(f"there is no damage {min(unknown)!r}; use {', '.join(DAMAGES)}")
    if most == 0:
        return []
    usable = [(prompt, answers[0]) for prompt in prompts if (answers := good_answers(prompt)) and answers[0].strip()]
    by_source: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for prompt, answer in usable:
        by_source[prompt.source].append((prompt.item.source, answer))
    random.Random(seed).shuffle(usable)
    drawn = [(prompt.source, prompt.item.source, answer) for prompt, answer in usable]
    collections = {source: _Collection(answered) for source, answered in by_source.items()}
    return list(islice(_damaged_pairs(drawn, collections, kinds, random.Random(seed)), most))


class _Collection:
    """The answered prompts of one source: answers to others of them, near and far, are off the point but look alike."""

    def __init__(self, answered: Sequence[tuple[str, str]]) -> None:
        self.answers = [answer for _, answer in answered]
        self._prompts = [prompt for prompt, _ in answered]
        self._places = {prompt: place for place, prompt in enumerate(self._prompts)}

    @cached_property
    def _vectors(self) -> Any:
        """A sparse matrix, a row of length 1 for each prompt; None if no prompt has a word."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        # What is asked last is what is to be answered.
        asked = [prompt.rsplit("USER: ", 1)[-1] for prompt in self._prompts]
        if not any(text.strip() for text in asked):
            return None
        # Character n-grams: languages that put no space between words have neighbours too.
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(asked)

    def near(self, prompt: str, rng: random.Random) -> str:
        """Return the answer to one of the prompts that share most words with this one; empty if none shares any."""
        if self._vectors is None:
            return ""
        place = self._places[prompt]
        similar = (self._vectors @ self._vectors[place].T).toarray().ravel()
        order = [int(k) for k in (-similar).argsort(kind="stable") if k != place and 0 < similar[k] < MOST_SIMILAR]
        return self.answers[rng.choice(order[:N_NEIGHBOURS])] if order else ""

    def any(self, rng: random.Random) -> str:
        """Return any answer."""
        return rng.choice(self.answers)


def _damaged_pairs(
    drawn: Sequence[tuple[str, str, str]],
    collections: dict[str, _Collection],
    kinds: Sequence[str],
    rng: random.Random,
) -> Iterator[PreferencePair]:
    weights = [DAMAGES[kind] for kind in kinds]
    for source, prompt, answer in drawn:
        [kind] = rng.choices(kinds, weights)
        damaged = _damage(kind, prompt, answer, collections[source], rng)
        if damaged.strip() and damaged.strip() != answer.strip():
            yield PreferencePair(prompt, answer, damaged, LABELS.get(kind, LABEL), SOURCE)


def _damage(kind: str, prompt: str, answer: str, collection: _Collection, rng: random.Random) -> str:
    if kind == "near":
        return collection.near(prompt, rng)
    if kind == "foreign":
        return collection.any(rng)
    if kind == "cut":
        return answer[: int(len(answer) * rng.uniform(0.2, 0.8))]
    passages = _movable(split_passages(answer))
    if len(passages) < 2:
        return ""
    if kind == "shortened":
        return "".join(passages[: max(1, int(len(passages) * rng.uniform(0.3, 0.9)))]).strip()
    if kind == "loop":
        start = rng.randrange(len(passages))
        passages[start:start] = [passages[start]] * rng.randint(1, 4)
    else:
        rng.shuffle(passages)
    return "".join(passages).strip()


def _movable(passages: Sequence[str]) -> list[str]:
    """Give the first passage the white space in front that the others have: its lack must not tell where it was."""
    spaced = len(passages) > 1 and passages[1][0].isspace()
    return [f" {passages[0]}", *passages[1:]] if spaced else list(passages)
