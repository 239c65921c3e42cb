"""Synthetic negatives for a ranker, besides the judged pairs: a good answer against a corrupted one.

They teach a ranker to read the prompt and the whole of an answer, which the judged pairs of small collections alone do
not: to tell apart an answer to another question, and what may go wrong in a fused text.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError, require
from blender_hf.inputs import Candidate
from blender_hf.modeling.segmentation import split_segments

from .fusion_data import good_answers

SOURCE = "synthetic negatives"
# Not certain: a short text may lose nothing with its end, and an answer to another prompt may fit by chance.
LABEL = 0.95
# Whole segments may well be superfluous.
LABELS = {"shortened": 0.8}
# The kinds of corruption and their weights: a good answer to one of the most similar prompts of the collection, or to
# any of them; the answer cut anywhere, or after one of its segments; segments of it repeated; its segments shuffled.
CORRUPTIONS = {"near": 4, "foreign": 1, "cut": 1, "shortened": 1, "loop": 1, "shuffled": 1}
N_NEIGHBOURS = 3
# Prompts that are more alike than this may have the same answer.
MAX_SIMILARITY = 0.8


def synthetic_negatives(
    prompts: Sequence[LabelledPrompt], max_pairs: int, seed: int, kinds: Sequence[str] = tuple(CORRUPTIONS)
) -> list[PreferencePair]:
    """Return pairs of a good answer (a) and a corrupted one (b), from prompts drawn at random.

    An impossible corruption, such as another order of one segment, is skipped.

    Raises:
        InputError: If a kind is none of `CORRUPTIONS`.
    """
    if unknown := set(kinds) - set(CORRUPTIONS):
        raise InputError(f"unknown corruption {min(unknown)!r}; use {', '.join(CORRUPTIONS)}")
    if max_pairs == 0:
        return []
    usable = [(prompt, answers[0]) for prompt in prompts if (answers := good_answers(prompt)) and answers[0].strip()]
    by_source: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for prompt, answer in usable:
        by_source[prompt.source].append((prompt.item.source, answer))
    random.Random(seed).shuffle(usable)
    collections = {source: _Collection(answered) for source, answered in by_source.items()}
    return list(islice(_corrupted(usable, collections, kinds, random.Random(seed)), max_pairs))


class _Collection:
    """The answered prompts of one source: answers to other ones are off the point but look alike."""

    def __init__(self, answered: Sequence[tuple[str, str]]) -> None:
        self.answers = [answer for _, answer in answered]
        self._prompts = [prompt for prompt, _ in answered]
        self._indices = {prompt: index for index, prompt in enumerate(self._prompts)}

    @cached_property
    def _vectors(self) -> Any:
        """A sparse matrix, a row of norm 1 for each prompt; None if no prompt has a word."""
        require("sklearn", "train", "synthetic_negatives")
        from sklearn.feature_extraction.text import TfidfVectorizer

        # The last question of a conversation is what is to be answered.
        asked = [prompt.rsplit("USER: ", 1)[-1] for prompt in self._prompts]
        if not any(text.strip() for text in asked):
            return None
        # Character n-grams: languages that put no space between words have neighbours too.
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(asked)

    def near(self, prompt: str, rng: random.Random) -> str:
        """Return the answer to one of the prompts that share most words with this one; empty if none shares any."""
        if self._vectors is None:
            return ""
        own = self._indices[prompt]
        similar = (self._vectors @ self._vectors[own].T).toarray().ravel()
        order = [int(k) for k in (-similar).argsort(kind="stable") if k != own and 0 < similar[k] < MAX_SIMILARITY]
        return self.answers[rng.choice(order[:N_NEIGHBOURS])] if order else ""

    def any(self, rng: random.Random) -> str:
        """Return any answer."""
        return rng.choice(self.answers)


def _corrupted(
    drawn: Iterable[tuple[LabelledPrompt, str]],
    collections: Mapping[str, _Collection],
    kinds: Sequence[str],
    rng: random.Random,
) -> Iterator[PreferencePair]:
    weights = [CORRUPTIONS[kind] for kind in kinds]
    for prompt, answer in drawn:
        [kind] = rng.choices(kinds, weights)
        corrupted = _corrupt(kind, prompt.item.source, answer, collections[prompt.source], rng)
        if corrupted.strip() and corrupted.strip() != answer.strip():
            item = replace(prompt.item, candidates=(Candidate(answer), Candidate(corrupted)))
            yield PreferencePair(item, LABELS.get(kind, LABEL), SOURCE)


def _corrupt(kind: str, prompt: str, answer: str, collection: _Collection, rng: random.Random) -> str:
    if kind == "near":
        return collection.near(prompt, rng)
    if kind == "foreign":
        return collection.any(rng)
    if kind == "cut":
        return answer[: int(len(answer) * rng.uniform(0.2, 0.8))]
    segments = _movable(split_segments(answer))
    if len(segments) < 2:
        return ""
    if kind == "shortened":
        return "".join(segments[: max(1, int(len(segments) * rng.uniform(0.3, 0.9)))]).strip()
    if kind == "loop":
        start = rng.randrange(len(segments))
        segments[start:start] = [segments[start]] * rng.randint(1, 4)
    else:
        rng.shuffle(segments)
    return "".join(segments).strip()


def _movable(segments: Sequence[str]) -> list[str]:
    """Give the first segment the leading white space of the others: its lack must not reveal where it was."""
    spaced = len(segments) > 1 and segments[1][0].isspace()
    return [f" {segments[0]}", *segments[1:]] if spaced else list(segments)
