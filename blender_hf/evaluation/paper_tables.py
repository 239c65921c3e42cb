"""The two tables of the paper on MixInstruct: who gives the best answers, and whose ranks are nearest to GPT-Rank."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from blender_hf.blender import DEFAULT_WINDOW, Blender
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.engine.results import Blend
from blender_hf.errors import InputError

from .bootstrap import Figure, Shares, figures
from .correlations import RankNotes, correlations
from .extras import require_extras
from .gpt_rank import RULES, gpt_ranks, is_fully_judged
from .judges import Judge, Question, Scores, random_judge
from .metrics.named import Metric
from .paper_rows import TableSettings, blend_shares, choice_shares, oracles, single_models
from .rankings import chosen_of

# The two models of the paper that all others are compared with, as MixInstruct writes them.
PAPER_BASES = {"Vicuna": "vicuna-13b-1.1", "OpenAssistant": "oasst-sft-4-pythia-12b-epoch-3.5"}
MODELS, ORACLES, RANKERS, BLENDS = "single model", "oracle", "ranker", "blend"
RANDOM, BLEND = "Random", "Blend"


@dataclass(frozen=True)
class PaperRow:
    """A row of the main table.

    Args:
        kind: "single model", "oracle", "ranker" or "blend".
        name: Who chooses, or writes.
        figures: By the title of a column.
    """

    kind: str
    name: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class PaperTables:
    """The main table and the correlation table.

    Args:
        rows: The main table.
        correlations: By ranker its correlations with GPT-Rank, see `correlations.correlations`.
        settings: What was measured.
        n_prompts: Number of prompts.
        n_left_out: How many more lacked a verdict on some pair.
        n_fused: How many answers of the blend are new texts.
        judged_by: Name of the ranker that judged these; None if nobody did.
    """

    rows: tuple[PaperRow, ...]
    correlations: Mapping[str, Mapping[str, float]]
    settings: TableSettings
    n_prompts: int
    n_left_out: int
    n_fused: int
    judged_by: str | None


@dataclass
class _Notes:
    """What was noted, prompt by prompt."""

    settings: TableSettings
    shares: dict[tuple[str, str], list[Shares]] = field(default_factory=lambda: defaultdict(list))
    ranks: dict[str, RankNotes] = field(default_factory=lambda: defaultdict(RankNotes))
    n_prompts: int = 0
    n_left_out: int = 0
    n_fused: int = 0


def paper_tables(
    prompts: Iterable[LabelledPrompt],
    rankers: Mapping[str, Judge],
    settings: TableSettings,
    *,
    blenders: Mapping[str, Blender] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    judge: tuple[str, Judge] | None = None,
    generation: Mapping[str, Any] | None = None,
    window: int = DEFAULT_WINDOW,
    seed: int = 0,
    on_prompt: Callable[[], object] = lambda: None,
) -> PaperTables:
    """Make the tables of the paper (section 5) from prompts every two of whose candidates were judged.

    Args:
        prompts: The prompts, such as the test part of MixInstruct, with scores, see `filling.fill_scores`. Those that
            lack a verdict are left out, and counted.
        rankers: The rankers by name.
        settings: The columns of the main table, and the rule for what is at least as good.
        blenders: Whole blends by the name of their ranker, which ranks as one of the rankers and then fuses.
        metrics: What computes the scores of fused texts.
        judge: Name and ranker that compares fused texts with the candidates, for there are no verdicts of GPT on them.
        generation: Options of `generate` for the fuser.
        window: How many prompts are worked on together.
        seed: Of the dice of "Random" and of the bootstrap.
        on_prompt: Called after each prompt, for progress.

    Returns:
        The tables.

    Raises:
        InputError: If there is no such rule, or no prompt that was fully judged.
        BlenderError: If a package of the extra `evaluate` is not installed.
    """
    require_extras()
    if settings.rule not in RULES:
        raise InputError(f"there is no rule {settings.rule!r}; use one of {', '.join(RULES)}")
    notes = _Notes(settings)
    rankers = {RANDOM: random_judge(seed), **rankers}
    for batch in _windows(prompts, notes, window):
        scores = {name: _scores(ranker, batch) for name, ranker in rankers.items()}
        for name, blender in (blenders or {}).items():
            blends = list(blender.iter_blend((p.item for p in batch), generation=generation, window=window))
            scores[name] = [blend.ranking.scores for blend in blends]
            _note_blends(notes, _blend_name(name, blenders or {}), batch, blends, metrics or {}, judge and judge[1])
        for n, prompt in enumerate(batch):
            _note(notes, prompt, {name: found[n] for name, found in scores.items()})
            on_prompt()
    if not notes.n_prompts:
        raise InputError(f"no prompt has a verdict on every pair of its candidates; {notes.n_left_out} lack some")
    return PaperTables(
        rows=tuple(PaperRow(*key, _figures(notes, key, seed)) for key in sorted(notes.shares, key=_place)),
        correlations={name: correlations(found) for name, found in notes.ranks.items()},
        settings=settings,
        n_prompts=notes.n_prompts,
        n_left_out=notes.n_left_out,
        n_fused=notes.n_fused,
        judged_by=judge[0] if judge else None,
    )


def _windows(prompts: Iterable[LabelledPrompt], notes: _Notes, window: int) -> Iterator[list[LabelledPrompt]]:
    """Yield windows of the prompts that were fully judged, and count all."""

    def judged() -> Iterator[LabelledPrompt]:
        for prompt in prompts:
            if is_fully_judged(prompt):
                notes.n_prompts += 1
                yield prompt
            else:
                notes.n_left_out += 1

    source = judged()
    while batch := list(islice(source, window)):
        yield batch


def _scores(ranker: Judge, prompts: Sequence[LabelledPrompt]) -> list[Scores | None]:
    questions = [Question.about(prompt, everything=True) for prompt in prompts]
    opinions = ranker.answer(questions, ranker.prepare(questions))
    return [None if opinion is None else opinion.scores for opinion in opinions]


def _note(notes: _Notes, prompt: LabelledPrompt, scores: Mapping[str, Scores | None]) -> None:
    gold, n = gpt_ranks(prompt), len(prompt.item.candidates)
    choices = {(MODELS, model): chosen for model, chosen in single_models(prompt).items()}
    choices |= {(ORACLES, metric): chosen for metric, chosen in oracles(prompt, notes.settings.metrics).items()}
    for name, found in scores.items():
        if found is not None:
            # What is to be expected of dice is known exactly; one throw of them has ranks to correlate.
            choices[RANKERS, name] = list(range(n)) if name == RANDOM else chosen_of(found)
            notes.ranks[name].add(prompt.models, found, gold)
    for metric in notes.settings.metrics:
        own = prompt.complete_scores(metric)
        if own is not None:
            notes.ranks[metric].add(prompt.models, own, gold)
    for key, chosen in choices.items():
        notes.shares[key].append(choice_shares(prompt, chosen, notes.settings))


def _note_blends(
    notes: _Notes,
    name: str,
    prompts: Sequence[LabelledPrompt],
    blends: Sequence[Blend],
    metrics: Mapping[str, Metric],
    judge: Judge | None,
) -> None:
    for prompt, blend in zip(prompts, blends, strict=True):
        shares = blend_shares(prompt, blend.output, notes.settings, metrics, judge)
        notes.shares[BLENDS, name].append(shares)
        notes.n_fused += blend.output not in prompt.item.texts


def _figures(notes: _Notes, key: tuple[str, str], seed: int) -> dict[str, Figure]:
    found = figures(notes.shares[key], seed=seed)
    # What is known of some answers of a blend alone says nothing of the blend.
    complete = key[0] != BLENDS
    return {name: figure for name, figure in found.items() if complete or figure.n == notes.n_prompts}


def _blend_name(ranker: str, blenders: Mapping[str, Blender]) -> str:
    return BLEND if len(blenders) == 1 else f"{BLEND}, {ranker}"


def _place(key: tuple[str, str]) -> int:
    return (MODELS, ORACLES, RANKERS, BLENDS).index(key[0])
