"""Synthetic negatives for a ranker, besides the judged pairs: a good answer against a corrupted one.

They teach a ranker to read the prompt and the whole of an answer, which the judged pairs of small collections alone do
not: to tell apart an answer to another question, and what may go wrong in a fused text.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from blender_hf.data.labelled import UNKNOWN, LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError, require
from blender_hf.inputs import Candidate
from blender_hf.modeling.segmentation import split_segments

from .bad_answers import (
    ECHOES,
    NON_ANSWERS,
    NUMBER,
    REFUSALS,
    ROLES,
    RUDE,
    SENTENCES,
    empty,
    gibberish,
    names_in,
    other_names,
    other_numbers,
    phrase,
)
from .fusion_data import good_answers

SOURCE = "synthetic negatives"
# Not certain: a short text may lose nothing with its end, and an answer to another prompt may fit by chance.
LABEL = 0.95
# Whole segments may well be superfluous; a sentence of another answer may be to the point, and a number beside it.
LABELS = {"shortened": 0.8, "irrelevant": 0.9, "numbers": 0.9, "names": 0.9}
# The kinds of corruption that are made unless others are named, and their weights: a good answer to one of the most
# similar prompts of the collection, or to any of them; the answer cut anywhere, or after one of its segments; segments
# of it repeated; its segments shuffled.
CORRUPTIONS = {"near": 4, "foreign": 1, "cut": 1, "shortened": 1, "loop": 1, "shuffled": 1}
# The kinds that are made if they are named: sentences on the topic from other answers; other numbers, or other names;
# the question repeated; an answer without content; nonsense; another language; a refusal; an insult; phrases that say
# nothing; the dialogue continued.
FAULTS = {
    "irrelevant": 3,
    "numbers": 2,
    "names": 2,
    "echo": 1,
    "empty": 1,
    "gibberish": 1,
    "language": 1,
    "refusal": 1,
    "rude": 1,
    "nonanswer": 1,
    "roles": 1,
}
WEIGHTS = CORRUPTIONS | FAULTS
N_NEIGHBOURS = 3
# Prompts that are more alike than this may have the same answer.
MAX_SIMILARITY = 0.8
# A sentence that is less like the prompt is on another topic.
LEAST_SIMILARITY = 0.05
# Sentences and names are drawn from so many that are nearest.
N_SENTENCES, N_NAMED = 6, 15
# A sentence that stands alone, in characters.
SENTENCE_LENGTHS = range(20, 241)
# A reference of so many characters is the very point of the answer.
SHORT_REFERENCE = 60
# Characters a number, or a name, of a text that has its point in them, where no reference tells.
TEXT_OF_A_NUMBER, TEXT_OF_A_NAME = 120, 160
# Repeating a longer prompt is repeating a passage, with what is to be said of it.
LONGEST_ECHO = 600
# To refuse is right for many prompts of such sources.
HARMFUL_SOURCE = re.compile(r"harm|safe|toxic|red.?team|refus", re.IGNORECASE)
# A refusal begins with it.
REFUSED_WITHIN = 150
REFUSAL = re.compile(
    r"\b(sorry|can['’]?t|cannot|unable|not able|won['’]t|apologi[sz]e|don['’]t (know|think|have)|as an ai)\b"
    "|抱歉|对不起|无法|不能|申し訳|できません",
    re.IGNORECASE,
)
# A line break, or what belongs to a conversation.
NO_STATEMENT = re.compile(
    r"\n|^(yes|yeah|no|sure|well|oh|ok|okay|hmm|great|thanks)\b|\b(i|me|my|we|our|us|you|your|here)\b|[你您我]"
    rf"|{REFUSAL.pattern}",
    re.IGNORECASE,
)
ASKS_FOR_LANGUAGE = re.compile(
    r"translat|languag|english|german|french|spanish|italian|portuguese|russian|dutch|chinese|japanese|翻译|翻訳|[英日中]文|语|語",
    re.IGNORECASE,
)
CODE = re.compile(r"```|\bdef |\bimport |[;{}]\s*$", re.MULTILINE)


def synthetic_negatives(
    prompts: Sequence[LabelledPrompt], max_pairs: int, seed: int, kinds: Sequence[str] = tuple(CORRUPTIONS)
) -> list[PreferencePair]:
    """Return pairs of a good answer (a) and a corrupted one (b), from prompts drawn at random.

    An impossible corruption, such as another order of one segment, is skipped. Where the reference is short and the
    good answer has it, the kinds of `FAULTS` take it for the good answer in half of the pairs: the shorter one is then
    the better one more often.

    Raises:
        InputError: If a kind is neither in `CORRUPTIONS` nor in `FAULTS`.
    """
    if unknown := set(kinds) - set(WEIGHTS):
        raise InputError(f"unknown corruption {min(unknown)!r}; use {', '.join(WEIGHTS)}")
    if max_pairs == 0:
        return []
    usable = [(prompt, answers[0]) for prompt in prompts if (answers := good_answers(prompt)) and answers[0].strip()]
    by_source: dict[str, list[tuple[str, str]]] = defaultdict(list)
    by_lang: dict[str, list[str]] = defaultdict(list)
    for prompt, answer in usable:
        by_source[prompt.source].append((prompt.item.source, answer))
        by_lang[prompt.lang].append(answer)
    random.Random(seed).shuffle(usable)
    collections = {source: _Collection(answered) for source, answered in by_source.items()}
    rng = random.Random(seed)
    drawn = (_Drawn(prompt, answer, collections[prompt.source], by_lang, rng) for prompt, answer in usable)
    return list(islice(_corrupted(drawn, kinds, rng), max_pairs))


class _Collection:
    """The answered prompts of one source: answers to other ones are off the point but look alike."""

    def __init__(self, answered: Sequence[tuple[str, str]]) -> None:
        self.answers = [answer for _, answer in answered]
        self.prompts = [prompt for prompt, _ in answered]
        self._indices = {prompt: index for index, prompt in enumerate(self.prompts)}

    @cached_property
    def _vectorizer(self) -> Any:
        require("sklearn", "train", "synthetic_negatives")
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Character n-grams: languages that put no space between words have neighbours too.
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)

    @cached_property
    def _vectors(self) -> Any:
        """A sparse matrix, a row of norm 1 for each prompt; None if no prompt has a word."""
        # The last question of a conversation is what is to be answered.
        asked = [_asked(prompt) for prompt in self.prompts]
        return self._vectorizer.fit_transform(asked) if any(text.strip() for text in asked) else None

    def _similarities(self, prompt: str) -> Any:
        """Return the similarity of each prompt to this one, from 0 to 1; None if no prompt has a word."""
        if self._vectors is None:
            return None
        return (self._vectors @ self._vectors[self._indices[prompt]].T).toarray().ravel()

    def _neighbours(self, prompt: str) -> list[int]:
        """Return the indices of the prompts that share something with this one, the nearest first."""
        similar = self._similarities(prompt)
        if similar is None:
            return []
        own = self._indices[prompt]
        return [int(k) for k in (-similar).argsort(kind="stable") if k != own and 0 < similar[k] < MAX_SIMILARITY]

    def near(self, prompt: str, rng: random.Random) -> str:
        """Return the answer to one of the prompts that share most words with this one; empty if none shares any."""
        order = self._neighbours(prompt)
        return self.answers[rng.choice(order[:N_NEIGHBOURS])] if order else ""

    def any(self, rng: random.Random) -> str:
        """Return any answer."""
        return rng.choice(self.answers)

    @cached_property
    def _sentences(self) -> list[tuple[int, str]]:
        """The sentences of the answers that can stand alone, each with the index of its answer."""
        return [(index, text) for index, answer in enumerate(self.answers) for text in _statements(answer)]

    @cached_property
    def _sentence_vectors(self) -> Any:
        return self._vectorizer.transform([text for _, text in self._sentences])

    def sentences_near(self, prompt: str) -> list[str]:
        """Return the sentences of answers to other prompts that are nearest to this prompt."""
        similar = self._similarities(prompt)
        if similar is None or not self._sentences:
            return []
        own, opening = self._indices[prompt], prompt[:SHORT_REFERENCE]
        found = (self._sentence_vectors @ self._vectors[own].T).toarray().ravel()
        order = [int(k) for k in (-found).argsort(kind="stable")[: 20 * N_SENTENCES] if found[k] > LEAST_SIMILARITY]
        # Another turn of the same conversation may be to the point.
        return [
            text
            for index, text in (self._sentences[k] for k in order)
            if index != own and similar[index] < MAX_SIMILARITY and self.prompts[index][:SHORT_REFERENCE] != opening
        ]

    @cached_property
    def common_words(self) -> set[str]:
        """The words that some answer writes without a capital."""
        return {word for answer in self.answers for word in re.findall(r"(?<!\w)[a-zà-ÿ][\w'’]*", answer)}

    @cached_property
    def _names(self) -> list[list[str]]:
        return [[answer[a:b] for a, b in names_in(answer, self.common_words)] for answer in self.answers]

    def names_near(self, prompt: str, rng: random.Random) -> list[str]:
        """Return the names in answers to other prompts: those to the nearest first, in any order, then others."""
        near = [name for index in self._neighbours(prompt)[:N_NAMED] for name in self._names[index]]
        rng.shuffle(near)
        some = rng.sample(range(len(self.prompts)), min(5 * N_NAMED, len(self.prompts)))
        own = self._indices[prompt]
        return near + [name for index in some if index != own for name in self._names[index]]


@dataclass(frozen=True)
class _Drawn:
    """A prompt with a good answer, and what it is corrupted by."""

    prompt: LabelledPrompt
    answer: str
    collection: _Collection
    by_lang: Mapping[str, Sequence[str]]
    rng: random.Random

    @property
    def text(self) -> str:
        """The text of the prompt."""
        return self.prompt.item.source

    @property
    def short_reference(self) -> str | None:
        """The reference, if it is short and the answer has it."""
        reference = self.prompt.reference
        if reference is None or len(reference) > SHORT_REFERENCE or reference.lower() not in self.answer.lower():
            return None
        return reference

    @property
    def says_something(self) -> bool:
        """Whether the answer is neither a refusal nor a question in return."""
        return not (REFUSAL.search(self.answer[:REFUSED_WITHIN]) or self.answer.rstrip().endswith(("?", "？")))

    @property
    def needs_an_answer(self) -> bool:
        """Whether it is certain that a refusal, or an answer off the point, is worse."""
        return self.says_something and not HARMFUL_SOURCE.search(self.prompt.source)


def _corrupted(drawn: Iterable[_Drawn], kinds: Sequence[str], rng: random.Random) -> Iterator[PreferencePair]:
    weights = [WEIGHTS[kind] for kind in kinds]
    for draw in drawn:
        [kind] = rng.choices(kinds, weights)
        if kind in FAULTS and draw.short_reference is not None and rng.random() < 0.5:
            draw = replace(draw, answer=draw.short_reference)
        corrupted = MAKERS[kind](draw)
        if corrupted is not None and corrupted.strip() != draw.answer.strip():
            item = replace(draw.prompt.item, candidates=(Candidate(draw.answer), Candidate(corrupted)))
            yield PreferencePair(item, LABELS.get(kind, LABEL), SOURCE)


def _asked(prompt: str) -> str:
    return prompt.rsplit("USER: ", 1)[-1]


def _statements(answer: str) -> list[str]:
    """Return the sentences of an answer that can stand alone."""
    sentences = (segment.strip() for segment in split_segments(answer))
    return [
        text
        for text in sentences
        if len(text) in SENTENCE_LENGTHS and text.endswith((".", "。")) and not NO_STATEMENT.search(text)
    ]


def _near(draw: _Drawn) -> str | None:
    return draw.collection.near(draw.text, draw.rng) or None


def _foreign(draw: _Drawn) -> str | None:
    return draw.collection.any(draw.rng)


def _cut(draw: _Drawn) -> str | None:
    cut = draw.answer[: int(len(draw.answer) * draw.rng.uniform(0.2, 0.8))]
    return cut if cut.strip() else None


def _of_segments(change: Callable[[list[str], random.Random], list[str]]) -> Callable[[_Drawn], str | None]:
    """Return the maker that changes the segments of answers of two segments and more."""

    def make(draw: _Drawn) -> str | None:
        segments = _movable(split_segments(draw.answer))
        return None if len(segments) < 2 else "".join(change(segments, draw.rng)).strip() or None

    return make


def _shortened(segments: list[str], rng: random.Random) -> list[str]:
    return segments[: max(1, int(len(segments) * rng.uniform(0.3, 0.9)))]


def _looped(segments: list[str], rng: random.Random) -> list[str]:
    start = rng.randrange(len(segments))
    return [*segments[:start], *[segments[start]] * rng.randint(1, 4), *segments[start:]]


def _shuffled(segments: list[str], rng: random.Random) -> list[str]:
    rng.shuffle(segments)
    return segments


def _movable(segments: Sequence[str]) -> list[str]:
    """Give the first segment the leading white space of the others: its lack must not reveal where it was."""
    spaced = len(segments) > 1 and segments[1][0].isspace()
    return [f" {segments[0]}", *segments[1:]] if spaced else list(segments)


def _irrelevant(draw: _Drawn) -> str | None:
    if not draw.needs_an_answer:
        return None
    about = _beside_the_point(draw) if draw.rng.random() < 0.7 else []
    if not about:
        own, reference = draw.answer.lower(), (draw.short_reference or "\n").lower()
        near = (text for text in draw.collection.sentences_near(draw.text) if text.lower() not in own)
        about = list(islice((text for text in near if reference not in text.lower()), N_SENTENCES))
    return " ".join(draw.rng.sample(about, min(len(about), draw.rng.choice((1, 1, 2, 3))))) or None


def _beside_the_point(draw: _Drawn) -> list[str]:
    """Return what the good answers say beside a short reference: it is on the topic, true, and does not answer."""
    if draw.short_reference is None:
        return []
    point = set(re.findall(r"\w{3,}|\d+", draw.short_reference.lower()))
    found = [text for answer in good_answers(draw.prompt) for text in _statements(answer)]
    return [text for text in found if point and not point & set(re.findall(r"\w+", text.lower()))]


def _numbers(draw: _Drawn) -> str | None:
    reference, key = draw.prompt.reference, None
    if draw.short_reference is not None or (reference is not None and reference != draw.answer):
        key = next(iter(NUMBER.findall(reference or "")[::-1]), None)
        if key is None:  # the point is no number
            return None
    elif len(draw.answer) > TEXT_OF_A_NUMBER * len(NUMBER.findall(draw.answer)):
        return None
    return other_numbers(draw.answer, key, draw.rng)


def _names(draw: _Drawn) -> str | None:
    asked, point = draw.text.lower(), draw.short_reference
    spans = [] if CODE.search(draw.answer) else names_in(draw.answer, draw.collection.common_words)
    spans = [(start, end) for start, end in spans if draw.answer[start:end].lower() not in asked]
    named = " ".join(draw.answer[start:end] for start, end in spans).lower()
    if point is None:
        to_the_point = draw.says_something and len(draw.answer) <= TEXT_OF_A_NAME * len(spans)
    else:
        to_the_point = bool(set(point.lower().split()) & set(named.split()))
    if not to_the_point:
        return None
    return other_names(draw.answer, spans, draw.collection.names_near(draw.text, draw.rng), draw.rng)


def _echo(draw: _Drawn) -> str | None:
    asked = _asked(draw.text).strip()
    # A "Thanks!" may be answered by another.
    if len(asked) > LONGEST_ECHO or (not asked.endswith(("?", "？")) and len(asked) < 40):
        return None
    return draw.rng.choice(ECHOES).replace("{}", asked)


def _empty(draw: _Drawn) -> str | None:
    return empty(draw.rng)


def _gibberish(draw: _Drawn) -> str | None:
    return gibberish(draw.answer, draw.rng)


def _language(draw: _Drawn) -> str | None:
    own = draw.prompt.lang
    if own == UNKNOWN or ASKS_FOR_LANGUAGE.search(draw.text):
        return None
    pools = [answers for lang, answers in draw.by_lang.items() if lang not in (own, UNKNOWN)]
    if pools and draw.rng.random() < 0.5:
        return draw.rng.choice(draw.rng.choice(pools))
    sentences = SENTENCES[draw.rng.choice([lang for lang in SENTENCES if lang != own])]
    return " ".join(draw.rng.sample(sentences, draw.rng.randint(1, len(sentences))))


def _refusal(draw: _Drawn) -> str | None:
    if not draw.needs_an_answer:
        return None
    return phrase(REFUSALS, draw.prompt.lang, draw.rng)


def _rude(draw: _Drawn) -> str | None:
    insult = phrase(RUDE, draw.prompt.lang, draw.rng)
    return draw.rng.choice((insult, f"{insult} {draw.answer}", f"{draw.answer} {insult}", insult))


def _non_answer(draw: _Drawn) -> str | None:
    return None if not draw.needs_an_answer else phrase(NON_ANSWERS, draw.prompt.lang, draw.rng)


def _roles(draw: _Drawn) -> str | None:
    user, assistant = draw.rng.choice(ROLES)
    other = draw.rng.randrange(len(draw.collection.prompts))
    asked, reply = _asked(draw.collection.prompts[other]).strip(), split_segments(draw.collection.answers[other])[0]
    if len(asked) > LONGEST_ECHO:
        return None
    turn = f"{user}{asked}"
    return draw.rng.choice(
        (turn, f"{turn}\n{assistant}{reply}", f"{draw.answer}\n{turn}\n{assistant}{reply}", f"{draw.answer}\n\n{turn}")
    )


# What makes a corrupted answer of each kind; None where it can't.
MAKERS: Mapping[str, Callable[[_Drawn], str | None]] = {
    "near": _near,
    "foreign": _foreign,
    "cut": _cut,
    "shortened": _of_segments(_shortened),
    "loop": _of_segments(_looped),
    "shuffled": _of_segments(_shuffled),
    "irrelevant": _irrelevant,
    "numbers": _numbers,
    "names": _names,
    "echo": _echo,
    "empty": _empty,
    "gibberish": _gibberish,
    "language": _language,
    "refusal": _refusal,
    "rude": _rude,
    "nonanswer": _non_answer,
    "roles": _roles,
}
