"""Rankers under evaluation: each says of a prompt what it thinks of the pairs in question, and of all candidates."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt, Pair, check_metric
from blender_hf.engine.aggregation import get_aggregation
from blender_hf.engine.pointwise import OWN_SCORES, Pointwise
from blender_hf.engine.rankers import Ranker, as_ranker
from blender_hf.engine.results import Comparison, Truncation
from blender_hf.engine.schedules import Schedule
from blender_hf.inputs import Item

Scores = tuple[float, ...]


@dataclass(frozen=True)
class Opinion:
    """What a ranker says of a prompt.

    Args:
        comparisons: The comparison of each two candidates i < j that were asked about; i is its a.
        scores: One number a candidate, higher is better; None if not all pairs were asked about.
    """

    comparisons: Mapping[Pair, Comparison]
    scores: Scores | None


@dataclass(frozen=True)
class Question:
    """A prompt, and the pairs i < j of its candidates that a ranker is asked about.

    Args:
        prompt: The prompt.
        pairs: The pairs.
        everything: Whether these are all, so that the candidates can be ranked.
    """

    prompt: LabelledPrompt
    pairs: tuple[Pair, ...]
    everything: bool

    @classmethod
    def about(cls, prompt: LabelledPrompt, everything: bool) -> "Question":
        """Ask about all pairs, or about those that were judged; each is asked about once."""
        n = len(prompt.item.candidates)
        judged = {(min(pair.a, pair.b), max(pair.a, pair.b)) for pair in prompt.pairs}
        pairs = tuple(combinations(range(n), 2)) if everything else tuple(sorted(judged))
        return cls(prompt, pairs, everything)


class Judge(Protocol):
    """A ranker under evaluation.

    Its `probabilistic` says whether the probability of a comparison is one, `pairwise` whether the order of
    presentation can matter, and `opinionated` whether a tie of its is a verdict.
    """

    probabilistic: bool
    pairwise: bool
    opinionated: bool

    def prepare(self, questions: Sequence[Question]) -> Any:
        """Do what can be done ahead of the model, in a thread of its own."""

    def answer(self, questions: Sequence[Question], prepared: Any = None) -> list[Opinion | None]:
        """Answer every question; None where it can't say anything."""


class PairwiseJudge:
    """Asks a ranker that compares pairs, in both orders of presentation.

    Args:
        ranker: The ranker.
        aggregation: How comparisons become scores.
    """

    probabilistic = pairwise = opinionated = True

    def __init__(self, ranker: Ranker, aggregation: str = "max_logits") -> None:
        self._ranker = ranker
        self._aggregate = get_aggregation(aggregation)

    def prepare(self, questions: Sequence[Question]) -> Any:
        """Tokenise the texts."""
        return self._ranker.prepare(_duels(questions))

    def answer(self, questions: Sequence[Question], prepared: Any = None) -> list[Opinion | None]:
        """Compare the pairs of all questions together."""
        found = iter(self._ranker.compare(_duels(questions), prepared=prepared))
        answers = [{pair: next(found) for pair in question.pairs} for question in questions]
        return [self._opinion(*both) for both in zip(questions, answers, strict=True)]

    def _opinion(self, question: Question, comparisons: Mapping[Pair, Comparison]) -> Opinion:
        if not question.everything:
            return Opinion(comparisons, None)
        return Opinion(comparisons, self._aggregate(matrix_of(comparisons, len(question.prompt.item.candidates))))


class ScoresJudge:
    """Asks for a score of each candidate; their differences are the comparisons.

    Args:
        scores: Scores the candidates of prompts; None for a prompt of which it can't say anything.
        probabilistic: Whether the sigmoid of a difference is a probability, as of a reward model.
        opinionated: Whether equal scores mean a tie, and not only that it does not know.
    """

    pairwise = False

    def __init__(
        self,
        scores: Callable[[Sequence[LabelledPrompt]], Sequence[Sequence[float] | None]],
        *,
        probabilistic: bool = False,
        opinionated: bool = True,
    ) -> None:
        self._scores = scores
        self.probabilistic = probabilistic
        self.opinionated = opinionated

    def prepare(self, questions: Sequence[Question]) -> None:
        """Do nothing ahead."""

    def answer(self, questions: Sequence[Question], prepared: None = None) -> list[Opinion | None]:
        """Score the candidates of all questions."""
        found = self._scores([question.prompt for question in questions])
        return [
            None if scores is None else _opinion_of_scores(scores, question)
            for question, scores in zip(questions, found, strict=True)
        ]


def _opinion_of_scores(scores: Sequence[float], question: Question) -> Opinion:
    uncut = Truncation(0, (0, 0))
    gaps = {(i, j): float(scores[i] - scores[j]) for i, j in question.pairs}
    comparisons = {pair: Comparison(gap, -gap, uncut) for pair, gap in gaps.items()}
    # Without all pairs no ranker is asked for a ranking, so that all are measured on the same prompts.
    return Opinion(comparisons, tuple(map(float, scores)) if question.everything else None)


def matrix_of(comparisons: Mapping[Pair, Comparison], n: int) -> list[list[float]]:
    """Return the logits as a matrix, (n, n), NaN where not compared, as in `Ranking.comparisons`."""
    matrix = [[float("nan")] * n for _ in range(n)]
    for (i, j), comparison in comparisons.items():
        # Adding 0.0 turns -0.0 into 0.0.
        matrix[i][j], matrix[j][i] = comparison.logit, -comparison.logit + 0.0
    return matrix


def judge_of(blender: Blender) -> Judge:
    """Return the judge of a blender's ranker, whether it compares pairs or scores single candidates."""
    return judge_of_ranker(as_ranker(blender.scorer))


def judge_of_ranker(ranker: Ranker, probabilistic: bool = True) -> Judge:
    """Return the judge of a ranker.

    Args:
        ranker: One that compares pairs, or a `Pointwise` one.
        probabilistic: Whether the difference of two scores of a pointwise one is the logit of a probability.
    """
    if not isinstance(ranker, Pointwise):
        return PairwiseJudge(ranker)
    return ScoresJudge(lambda prompts: _own_scores(ranker, prompts), probabilistic=probabilistic)


def length_judge() -> ScoresJudge:
    """Return the rule that the longer answer is better."""
    return ScoresJudge(lambda prompts: [tuple(float(len(text)) for text in p.item.texts) for p in prompts])


def random_judge(seed: int = 0) -> ScoresJudge:
    """Return a judge that throws dice, the same for the same candidates."""

    def scores(prompt: LabelledPrompt) -> Scores:
        # Identical texts are one answer, and get one throw.
        return tuple(random.Random(f"{seed}\n{prompt.item.source}\n{text}").random() for text in prompt.item.texts)

    return ScoresJudge(lambda prompts: [scores(prompt) for prompt in prompts])


def chance_judge() -> ScoresJudge:
    """Return a judge without an opinion: its figures are what is to be expected of throwing dice."""
    return ScoresJudge(lambda prompts: [(0.0,) * len(p.item.candidates) for p in prompts], opinionated=False)


def oracle_judge(metric: str, prompts: Iterable[LabelledPrompt]) -> ScoresJudge:
    """Return a judge that knows the scores of a metric.

    Args:
        metric: Name of the scores.
        prompts: The prompts that will be asked about.

    Raises:
        InputError: If no prompt has such scores; the message lists those that there are.
    """
    check_metric(prompts, metric)
    return ScoresJudge(lambda asked: [prompt.complete_scores(metric) for prompt in asked])


def _own_scores(ranker: Pointwise, prompts: Sequence[LabelledPrompt]) -> list[Scores]:
    rankings = ranker.rank([prompt.item for prompt in prompts], Schedule(), OWN_SCORES)
    return [ranking.scores for ranking in rankings]


def _duels(questions: Sequence[Question]) -> list[Item]:
    """Return an item of two candidates for each pair that is asked about."""
    return [
        replace(item, candidates=(item.candidates[i], item.candidates[j]))
        for question in questions
        for item in [question.prompt.item]
        for i, j in question.pairs
    ]
