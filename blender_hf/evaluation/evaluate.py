"""Evaluates rankers on labelled prompts, beside simple baselines."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from blender_hf.blender import DEFAULT_WINDOW
from blender_hf.data.benchmarks import REWARD_BENCH_2
from blender_hf.data.labelled import LabelledPrompt, gold_scores
from blender_hf.engine.streaming import windowed
from blender_hf.errors import InputError
from blender_hf.inputs import Candidate

from .bootstrap import Figure, Ratios, figures, mean_of_figures, paired_differences
from .calibration import Calibration, calibration_of
from .measuring import measure, probabilities_of
from .official import Judged, judged_of, official_scores
from .pairwise import by_source
from .predictors import (
    Capabilities,
    Prediction,
    Predictor,
    Query,
    best_model_baseline,
    constant_baseline,
    length_baseline,
)
from .rankings import require_scipy

# Baselines of every report; no ranker may have their names.
LENGTH, BEST_MODEL, CHANCE = "longer is better", "best single model", "chance"
MEAN = "mean over sources"
DEFAULT_TIE_THRESHOLD = 0.05


@dataclass(frozen=True)
class RankerEvaluation:
    """The figures of one ranker."""

    figures: Mapping[str, Figure]  # by name, over all prompts; see `measuring.FIGURES`
    by_source: Mapping[str, Mapping[str, Figure]]  # the same for each source, and their mean under "mean over sources"
    by_language: Mapping[str, Mapping[str, Figure]]  # the same for each language
    calibration: Calibration | None  # the calibration of its probabilities; None for a ranker without them
    # by benchmark, the scores that its authors define, by their names; see `official`
    official: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The figures of several rankers on the same prompts.

    Args:
        rankers: By name, the given rankers first, then the baselines.
        n_prompts: Number of labelled prompts.
        n_pairs: Number of judged pairs.
        n_ties: How many of them are ties.
        n_ranked: Number of prompts with gold scores of every candidate.
        tie_threshold: Distance from 0.5 up to which a probability is a tie.
        gold: Name of the gold scores; None for the default.
        differences: By how much the figures of the first ranker are larger than those of each other one, by its name,
            over the prompts of both; but for chance, whose figures are known.
    """

    rankers: Mapping[str, RankerEvaluation]
    n_prompts: int
    n_pairs: int
    n_ties: int
    n_ranked: int
    tie_threshold: float
    gold: str | None
    differences: Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class _Row:
    """What a predictor contributed with one prompt; probabilities and labels of its judged pairs, if it has them."""

    number: int  # of the prompt
    source: str
    lang: str
    ratios: Ratios
    probabilities: Sequence[float]
    labels: Sequence[float]
    judged: tuple[str, Judged] | None  # of a prompt of a benchmark, with its name


def evaluate(
    prompts: Iterable[LabelledPrompt],
    predictors: Mapping[str, Predictor],
    *,
    gold: str | None = None,
    rankings: bool = True,
    tie_threshold: float = DEFAULT_TIE_THRESHOLD,
    seed: int = 0,
    window: int = DEFAULT_WINDOW,
    on_prompt: Callable[[LabelledPrompt, Mapping[str, Prediction | None]], Any] = lambda prompt, predictions: None,
) -> Evaluation:
    """Measure rankers on labelled prompts, beside the baselines "longer is better", "best single model" and "chance".

    A ranker compares each pair that is needed once: the judged pairs, and all pairs of a prompt with gold scores.

    Args:
        prompts: The prompts, from any iterable; their texts are not kept. Unlabelled ones are skipped.
        predictors: The rankers by name; see `predictors.predictor_of` and `baselines.load_predictor`.
        gold: Name of the gold scores; None as in `labelled.gold_scores`.
        rankings: Whether whole rankings are measured; False compares the judged pairs only.
        tie_threshold: Distance from 0.5, 0 to 0.5, up to which a probability is a tie.
        seed: Random seed of the bootstrap.
        window: Number of prompts processed together.
        on_prompt: Called after each prompt with what the rankers and "longer is better" say of it.

    Returns:
        The evaluation.

    Raises:
        InputError: If no prompt is labelled, or an option is out of range.
        BlenderError: If a package of the extra `evaluate` is not installed.
    """
    require_scipy()
    if not 0 <= tie_threshold <= 0.5:
        raise InputError(f"tie_threshold={tie_threshold}; it is a distance from probability 0.5, from 0 to 0.5")
    if clash := {LENGTH, BEST_MODEL, CHANCE} & set(predictors):
        raise InputError(f"{', '.join(sorted(clash))} is always measured; give your rankers other names")
    measured = partial(measure, gold=gold, tie_threshold=tie_threshold)
    queried = partial(_queries, gold=gold, rankings=rankings)
    baselines = {LENGTH: length_baseline(), CHANCE: constant_baseline()}
    rows, seen = _rows(queried(prompts), {**predictors, **baselines}, measured, window, on_prompt)
    if not seen:
        raise InputError("nothing to measure: no prompt has a judged pair, or scores of all its candidates")
    # How strong a model is on the other prompts is known only at the end.
    rows |= _rows(queried(seen), {BEST_MODEL: best_model_baseline(seen)}, measured, window)[0]
    order = [name for name in (*predictors, LENGTH, BEST_MODEL, CHANCE) if rows[name]]
    return Evaluation(
        rankers={name: _summary(rows[name], seed) for name in order},
        n_prompts=len(seen),
        n_pairs=sum(len(prompt.pairs) for prompt in seen),
        n_ties=sum(pair.label == 0.5 for prompt in seen for pair in prompt.pairs),
        n_ranked=sum(gold_scores(prompt, gold) is not None for prompt in seen) if rankings else 0,
        tie_threshold=tie_threshold,
        gold=gold,
        differences={name: _differences(rows[order[0]], rows[name], seed) for name in order[1:] if name != CHANCE},
    )


def _differences(first: Sequence[_Row], second: Sequence[_Row], seed: int) -> dict[str, Figure]:
    """Compare two predictors on the prompts of which both said something."""
    ratios = [{row.number: row.ratios for row in rows} for rows in (first, second)]
    shared = [number for number in ratios[0] if number in ratios[1]]
    return paired_differences(*([one[number] for number in shared] for one in ratios), seed=seed)


def _queries(prompts: Iterable[LabelledPrompt], *, gold: str | None, rankings: bool) -> Iterator[Query]:
    """Yield a query about each labelled prompt."""
    for prompt in prompts:
        has_gold = gold_scores(prompt, gold) is not None
        if prompt.pairs or has_gold:
            # RewardBench 2 scores all answers, though it has too few verdicts on them to make gold scores.
            yield Query.about(prompt, complete=rankings and (has_gold or prompt.benchmark == REWARD_BENCH_2))


def _rows(
    queries: Iterable[Query],
    predictors: Mapping[str, Predictor],
    measured: Callable[[LabelledPrompt, Prediction, Capabilities], Ratios],
    window: int,
    on_prompt: Callable[[LabelledPrompt, Mapping[str, Prediction | None]], Any] = lambda prompt, predictions: None,
) -> tuple[dict[str, list[_Row]], list[LabelledPrompt]]:
    """Return what every predictor contributed, and the prompts without their texts."""
    rows: dict[str, list[_Row]] = {name: [] for name in predictors}
    seen: list[LabelledPrompt] = []
    for query, predictions in _predictions(queries, list(predictors.values()), window):
        prompt = query.prompt
        on_prompt(prompt, {name: found for name, found in zip(predictors, predictions, strict=True) if name != CHANCE})
        for (name, predictor), prediction in zip(predictors.items(), predictions, strict=True):
            if prediction is not None:
                able = predictor.capabilities
                probabilities, labels = probabilities_of(prompt, prediction) if able.probabilities else ((), ())
                judged = None if prompt.benchmark is None else (prompt.benchmark, judged_of(prompt, prediction))
                ratios = measured(prompt, prediction, able)
                rows[name].append(_Row(len(seen), prompt.source, prompt.lang, ratios, probabilities, labels, judged))
        seen.append(_without_texts(prompt))
    return rows, seen


def _predictions(
    queries: Iterable[Query], predictors: Sequence[Predictor], window: int
) -> Iterator[tuple[Query, tuple[Prediction | None, ...]]]:
    """Yield each query with the prediction of every predictor."""

    def prepare(batch: Sequence[Query]) -> list[Any]:
        return [predictor.prepare(batch) for predictor in predictors]

    def predict(batch: Sequence[Query], prepared: Sequence[Any]) -> list[tuple[Query, tuple[Prediction | None, ...]]]:
        columns = [predictor.predict(batch, own) for predictor, own in zip(predictors, prepared, strict=True)]
        return list(zip(batch, zip(*columns, strict=True), strict=True))

    return windowed(queries, prepare, predict, window)


def _without_texts(prompt: LabelledPrompt) -> LabelledPrompt:
    """Return the prompt with the names of its models and its labels only, which takes little memory."""
    bare = tuple(Candidate("", model) for model in prompt.models)
    return replace(prompt, item=replace(prompt.item, prompt="", instruction=None, candidates=bare), reference=None)


def _summary(rows: Sequence[_Row], seed: int) -> RankerEvaluation:
    ratios = [row.ratios for row in rows]
    sources, languages = by_source([row.source for row in rows], ratios), by_source([row.lang for row in rows], ratios)
    for_sources = {name: figures(own, seed=seed) for name, own in sources.items()}
    if len(sources) > 1:
        for_sources[MEAN] = mean_of_figures(list(sources.values()), seed=seed)
    return RankerEvaluation(
        figures=figures(ratios, seed=seed),
        by_source=for_sources,
        by_language={name: figures(own, seed=seed) for name, own in languages.items()},
        calibration=calibration_of(
            [probability for row in rows for probability in row.probabilities],
            [label for row in rows for label in row.labels],
        ),
        official=_official(rows),
    )


def _official(rows: Sequence[_Row]) -> dict[str, dict[str, float]]:
    benchmarks: dict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        if row.judged is not None:
            benchmarks[row.judged[0]].append(row.judged[1])
    return {name: found for name, own in benchmarks.items() if (found := official_scores(name, own))}
