"""The evaluation of rankers on labelled prompts: the ranker in question beside simple rules."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blender_hf.blender import DEFAULT_WINDOW
from blender_hf.data.labelled import LabelledPrompt, gold_scores
from blender_hf.engine.windows import windowed
from blender_hf.errors import InputError
from blender_hf.inputs import Candidate

from .best_model import best_model_judge
from .bootstrap import Figure, Shares, figures, mean_of_figures
from .calibration import Calibration, calibration_of
from .extras import require_extras
from .judges import Judge, Opinion, Question, chance_judge, length_judge
from .measuring import measure, probabilities_of
from .pairwise import by_source

# The rules that stand beside every ranker; a rule must not have the name of a checkpoint.
LENGTH, BEST_MODEL, CHANCE = "longer is better", "best single model", "chance"
MEAN = "mean over sources"
DEFAULT_TIE_THRESHOLD = 0.05


@dataclass(frozen=True)
class RankerEvaluation:
    """How good one ranker is.

    Args:
        figures: By name, over all prompts; see `measuring.FIGURES`.
        by_source: The same for each source, and their mean under "mean over sources".
        by_language: The same for each language.
        calibration: Whether its probabilities come true; None for a ranker without probabilities.
    """

    figures: Mapping[str, Figure]
    by_source: Mapping[str, Mapping[str, Figure]]
    by_language: Mapping[str, Mapping[str, Figure]]
    calibration: Calibration | None


@dataclass(frozen=True)
class Evaluation:
    """How good rankers are on the same prompts.

    Args:
        rankers: By name, the rankers in question first, then the rules.
        n_prompts: Number of prompts that anything is known of.
        n_pairs: Number of judged pairs.
        n_ties: How many of them the annotator calls a tie.
        n_ranked: Number of prompts of which the worth of every candidate is known.
        tie_threshold: How far from 0.5 a probability is a tie.
        gold: Name of the scores that say what candidates are worth; None for the default.
    """

    rankers: Mapping[str, RankerEvaluation]
    n_prompts: int
    n_pairs: int
    n_ties: int
    n_ranked: int
    tie_threshold: float
    gold: str | None


@dataclass(frozen=True)
class _Settings:
    """What is measured of a prompt; the fields are arguments of `evaluate`."""

    gold: str | None
    rankings: bool
    tie_threshold: float

    def is_labelled(self, prompt: LabelledPrompt) -> bool:
        return bool(prompt.pairs) or gold_scores(prompt, self.gold) is not None

    def question(self, prompt: LabelledPrompt) -> Question:
        return Question.about(prompt, everything=self.rankings and gold_scores(prompt, self.gold) is not None)


@dataclass
class _Notes:
    """What was noted of one ranker, prompt by prompt."""

    rows: list[Shares] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)


def evaluate(
    prompts: Iterable[LabelledPrompt],
    judges: Mapping[str, Judge],
    *,
    gold: str | None = None,
    rankings: bool = True,
    tie_threshold: float = DEFAULT_TIE_THRESHOLD,
    seed: int = 0,
    window: int = DEFAULT_WINDOW,
    on_prompt: Callable[[], Any] = lambda: None,
) -> Evaluation:
    """Measure rankers on labelled prompts, beside the rules "longer is better", "best single model" and "chance".

    A ranker is asked once about each pair that is needed: those that were judged, and all pairs of a prompt of whose
    candidates it is known what they are worth.

    Args:
        prompts: The prompts, from any iterable; texts are not kept. Those of which nothing is known are passed over.
        judges: The rankers by name; see `judges` and `baselines.named.load_judge`.
        gold: Name of the scores that say what candidates are worth; None as in `labelled.gold_scores`.
        rankings: Whether whole rankings are measured; False asks about judged pairs alone.
        tie_threshold: How far from 0.5, 0 to 0.5, a probability may be and still be a tie.
        seed: Of the bootstrap.
        window: How many prompts are worked on together.
        on_prompt: Called after each prompt, for progress.

    Returns:
        The evaluation.

    Raises:
        InputError: If nothing is known of any prompt, or an option is out of range.
        BlenderError: If a package of the extra `evaluate` is not installed.
    """
    require_extras()
    if not 0 <= tie_threshold <= 0.5:
        raise InputError(f"tie_threshold={tie_threshold}; it is a distance from probability 0.5, from 0 to 0.5")
    if clash := {LENGTH, BEST_MODEL, CHANCE} & set(judges):
        raise InputError(f"{', '.join(sorted(clash))} is always measured; give your rankers other names")
    settings = _Settings(gold, rankings, tie_threshold)
    notes, seen = _ask(prompts, {**judges, LENGTH: length_judge(), CHANCE: chance_judge()}, settings, window, on_prompt)
    if not seen:
        raise InputError("nothing to measure: no prompt has a judged pair, or scores of all its candidates")
    # Known only at the end: how strong a model is on the other prompts.
    notes |= _ask(seen, {BEST_MODEL: best_model_judge(seen)}, settings, window)[0]
    order = [*judges, LENGTH, BEST_MODEL, CHANCE]
    return Evaluation(
        rankers={name: _summary(notes[name], seed) for name in order if notes[name].rows},
        n_prompts=len(seen),
        n_pairs=sum(len(prompt.pairs) for prompt in seen),
        n_ties=sum(pair.label == 0.5 for prompt in seen for pair in prompt.pairs),
        n_ranked=sum(gold_scores(prompt, gold) is not None for prompt in seen) if rankings else 0,
        tie_threshold=tie_threshold,
        gold=gold,
    )


def _ask(
    prompts: Iterable[LabelledPrompt],
    judges: Mapping[str, Judge],
    settings: _Settings,
    window: int,
    on_prompt: Callable[[], Any] = lambda: None,
) -> tuple[dict[str, _Notes], list[LabelledPrompt]]:
    """Ask rankers about prompts; return what was noted of each, and the prompts without their texts."""
    notes = {name: _Notes() for name in judges}
    seen = []
    questions = (settings.question(prompt) for prompt in prompts if settings.is_labelled(prompt))
    for question, opinions in _answers(questions, list(judges.values()), window):
        for (name, judge), opinion in zip(judges.items(), opinions, strict=True):
            if opinion is not None:
                _note(notes[name], question.prompt, opinion, judge, settings)
        seen.append(_without_texts(question.prompt))
        on_prompt()
    return notes, seen


def _answers(
    questions: Iterable[Question], judges: Sequence[Judge], window: int
) -> Iterator[tuple[Question, tuple[Opinion | None, ...]]]:
    """Yield each question with the answer of every judge."""

    def prepare(batch: Sequence[Question]) -> list[Any]:
        return [judge.prepare(batch) for judge in judges]

    def answer(batch: Sequence[Question], prepared: Sequence[Any]) -> list[Any]:
        columns = [judge.answer(batch, found) for judge, found in zip(judges, prepared, strict=True)]
        return list(zip(batch, zip(*columns, strict=True), strict=True))

    return windowed(questions, prepare, answer, window)


def _note(notes: _Notes, prompt: LabelledPrompt, opinion: Opinion, judge: Judge, settings: _Settings) -> None:
    added = measure(prompt, opinion, judge, gold=settings.gold, tie_threshold=settings.tie_threshold)
    notes.rows.append(added)
    notes.sources.append(prompt.source)
    notes.languages.append(prompt.lang)
    if judge.probabilistic:
        said, labels = probabilities_of(prompt, opinion)
        notes.said += said
        notes.labels += labels


def _without_texts(prompt: LabelledPrompt) -> LabelledPrompt:
    """Return a prompt that takes little memory: the names of its models and its labels are left."""
    bare = tuple(Candidate("", model) for model in prompt.models)
    return replace(prompt, item=replace(prompt.item, prompt="", instruction=None, candidates=bare), reference=None)


def _summary(notes: _Notes, seed: int) -> RankerEvaluation:
    sources, languages = by_source(notes.sources, notes.rows), by_source(notes.languages, notes.rows)
    for_sources = {name: figures(rows, seed=seed) for name, rows in sources.items()}
    if len(sources) > 1:
        for_sources[MEAN] = mean_of_figures(list(sources.values()), seed=seed)
    return RankerEvaluation(
        figures=figures(notes.rows, seed=seed),
        by_source=for_sources,
        by_language={name: figures(rows, seed=seed) for name, rows in languages.items()},
        calibration=calibration_of(notes.said, notes.labels),
    )
