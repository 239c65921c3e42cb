"""Predictors: what is evaluated. Rankers and baselines answer the same queries about labelled prompts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from blender_hf.blender import Blender
from blender_hf.data.labelled import UNKNOWN, LabelledPrompt, Pair, check_metric, win_shares
from blender_hf.engine.aggregation import max_logits
from blender_hf.engine.pointwise import OWN_SCORES, Pointwise, PointwiseRanker
from blender_hf.engine.rankers import Ranker
from blender_hf.engine.results import Comparison, Truncation
from blender_hf.engine.schedules import Schedule
from blender_hf.inputs import Item
from blender_hf.loading.baselines import LengthRanker, RandomRanker

Scores = tuple[float, ...]
# Share of wins that is assumed of a model without other prompts.
UNKNOWN_STRENGTH = 0.5


@dataclass(frozen=True)
class Query:
    """A labelled prompt, and the pairs i < j of its candidates to compare."""

    prompt: LabelledPrompt
    pairs: tuple[Pair, ...]
    complete: bool  # whether these are all pairs, so that the candidates can be ranked

    @classmethod
    def about(cls, prompt: LabelledPrompt, *, complete: bool) -> "Query":
        """Ask for all pairs, or for the judged ones, each once."""
        n = len(prompt.item.candidates)
        judged = {(min(pair.a, pair.b), max(pair.a, pair.b)) for pair in prompt.pairs}
        return cls(prompt, tuple(combinations(range(n), 2)) if complete else tuple(sorted(judged)), complete)


@dataclass(frozen=True)
class Prediction:
    """The answer to a query."""

    comparisons: Mapping[Pair, Comparison]  # the comparison of each pair i < j of the query; i is its a
    scores: Scores | None  # one number a candidate, higher is better; None if the query is not complete


@dataclass(frozen=True)
class Capabilities:
    """Which figures beside the accuracy make sense for a predictor."""

    # the sigmoid of its logit is a probability, so it has a calibration and a tie threshold
    probabilities: bool = False
    both_orders: bool = False  # it reads a pair in both presentation orders, so it can flip and have cycles
    ties: bool = True  # equal scores predict a tie, rather than nothing


class Predictor(Protocol):
    """Anything that can be evaluated."""

    @property
    def capabilities(self) -> Capabilities:
        """Which figures can be measured."""
        ...

    def prepare(self, queries: Sequence[Query]) -> Any:
        """Do what needs no model, in a thread of its own; the result goes to `predict`."""

    def predict(self, queries: Sequence[Query], prepared: Any = None) -> list[Prediction | None]:
        """Answer every query; None where there is no basis for an answer."""
        ...


class PairwisePredictor:
    """A ranker that compares pairs in both presentation orders; their aggregation gives the scores."""

    capabilities = Capabilities(probabilities=True, both_orders=True)

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    def prepare(self, queries: Sequence[Query]) -> Any:
        """Tokenise the texts."""
        return self._ranker.prepare(_duels(queries))

    def predict(self, queries: Sequence[Query], prepared: Any = None) -> list[Prediction | None]:
        """Compare the pairs of all queries together."""
        found = iter(self._ranker.compare(_duels(queries), prepared=prepared))
        comparisons = [{pair: next(found) for pair in query.pairs} for query in queries]
        return [self._prediction(*both) for both in zip(queries, comparisons, strict=True)]

    def _prediction(self, query: Query, comparisons: Mapping[Pair, Comparison]) -> Prediction:
        n = len(query.prompt.item.candidates)
        return Prediction(comparisons, max_logits(matrix_of(comparisons, n)) if query.complete else None)


class ScorePredictor:
    """Scores the candidates of prompts one by one, None if it can't; their differences are the comparisons."""

    def __init__(
        self,
        scores: Callable[[Sequence[LabelledPrompt]], Sequence[Sequence[float] | None]],
        capabilities: Capabilities = Capabilities(),
    ) -> None:
        self._scores = scores
        self.capabilities = capabilities

    def prepare(self, queries: Sequence[Query]) -> None:
        """Do nothing ahead."""

    def predict(self, queries: Sequence[Query], prepared: None = None) -> list[Prediction | None]:
        """Score the candidates of all queries."""
        found = self._scores([query.prompt for query in queries])
        return [
            None if scores is None else _prediction_of_scores(query, scores)
            for query, scores in zip(queries, found, strict=True)
        ]


def _prediction_of_scores(query: Query, scores: Sequence[float]) -> Prediction:
    uncut = Truncation(0, (0, 0))
    gaps = {(i, j): float(scores[i] - scores[j]) for i, j in query.pairs}
    comparisons = {pair: Comparison(gap, -gap, uncut) for pair, gap in gaps.items()}
    # Rankings are measured on the same prompts for everyone, so an incomplete query gets no scores.
    return Prediction(comparisons, tuple(map(float, scores)) if query.complete else None)


def matrix_of(comparisons: Mapping[Pair, Comparison], n: int) -> list[list[float]]:
    """Return the logits as a matrix, (n, n), NaN where not compared, as in `Ranking.comparisons`."""
    matrix = [[float("nan")] * n for _ in range(n)]
    for (i, j), comparison in comparisons.items():
        # Adding 0.0 turns -0.0 into 0.0.
        matrix[i][j], matrix[j][i] = comparison.logit, -comparison.logit + 0.0
    return matrix


def predictor_of(ranker: Blender | Ranker, *, probabilities: bool = True) -> Predictor:
    """Return the predictor of a blender's ranker, or of a ranker of the engine, pairwise or `Pointwise`.

    `probabilities` says whether the difference of two scores of a pointwise ranker is the logit of a probability.
    """
    chosen = ranker.ranker if isinstance(ranker, Blender) else ranker
    if not isinstance(chosen, Pointwise):
        return PairwisePredictor(chosen)

    def scores(prompts: Sequence[LabelledPrompt]) -> list[Scores]:
        return [found.scores for found in chosen.rank([prompt.item for prompt in prompts], Schedule(), OWN_SCORES)]

    return ScorePredictor(scores, Capabilities(probabilities=probabilities))


def length_baseline() -> ScorePredictor:
    """Return the rule that the longer answer is better."""
    return _baseline(LengthRanker())


def random_baseline(seed: int = 0) -> ScorePredictor:
    """Return random scores from a seeded hash."""
    return _baseline(RandomRanker(seed))


def _baseline(ranker: PointwiseRanker) -> ScorePredictor:
    return ScorePredictor(lambda prompts: ranker.scores([prompt.item for prompt in prompts]))


def constant_baseline() -> ScorePredictor:
    """Return a constant baseline; its figures equal the expectation of random guessing."""
    return ScorePredictor(lambda prompts: [(0.0,) * len(p.item.candidates) for p in prompts], Capabilities(ties=False))


def oracle(metric: str, prompts: Iterable[LabelledPrompt]) -> ScorePredictor:
    """Return a predictor that reads the labelled scores of a metric, which some prompt must have."""
    check_metric(prompts, metric)
    return ScorePredictor(lambda queried: [prompt.complete_scores(metric) for prompt in queried])


def best_model_baseline(prompts: Sequence[LabelledPrompt]) -> ScorePredictor:
    """Return the rule that the answer of the model that wins more often on the other prompts is better.

    The prompts are those that will be queried; their texts are not needed.
    """
    shares = _shares_of_models(prompts)
    totals = {model: (sum(found), len(found)) for model, found in shares.items()}

    def scores(prompt: LabelledPrompt) -> Scores | None:
        own = _shares_of_models([prompt])
        return tuple(_strength(totals, own, model) for model in _names(prompt)) if any(_names(prompt)) else None

    return ScorePredictor(lambda queried: [scores(prompt) for prompt in queried])


def _shares_of_models(prompts: Iterable[LabelledPrompt]) -> dict[str, list[float]]:
    """Return the shares of won pairs of each named model, one for each judged candidate."""
    found: dict[str, list[float]] = defaultdict(list)
    for prompt in prompts:
        for model, share in zip(_names(prompt), win_shares(prompt), strict=True):
            if model is not None and share is not None:
                found[model].append(share)
    return found


def _strength(totals: Mapping[str, tuple[float, int]], own: Mapping[str, list[float]], model: str | None) -> float:
    """Return a model's mean share of won pairs on the prompts other than its own."""
    if model is None or model not in totals:
        return UNKNOWN_STRENGTH
    (won, n), without = totals[model], own.get(model, [])
    return round((won - sum(without)) / (n - len(without)), 12) if n > len(without) else UNKNOWN_STRENGTH


def _names(prompt: LabelledPrompt) -> list[str | None]:
    return [None if model == UNKNOWN else model for model in prompt.models]


def _duels(queries: Sequence[Query]) -> list[Item]:
    """Return an item of two candidates for each pair of the queries."""
    return [
        replace(item, candidates=(item.candidates[i], item.candidates[j]))
        for query in queries
        for item in [query.prompt.item]
        for i, j in query.pairs
    ]
