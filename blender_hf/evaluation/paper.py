"""The paper's two tables on MixInstruct: whose answers are best, and whose ranks are nearest to GPT-Rank."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from statistics import fmean
from typing import Any

from blender_hf.blender import DEFAULT_WINDOW, Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.errors import InputError
from blender_hf.export.cards import markdown_table
from blender_hf.inputs import Candidate
from blender_hf.logs import counted

from .bootstrap import Figure, Ratios, figures
from .gpt_rank import (
    BY_MODEL,
    BY_PROMPT,
    CORRELATIONS,
    FOOTRULE,
    RankAccumulator,
    at_least_as_good,
    check_rule,
    gpt_ranks,
    is_fully_judged,
)
from .metrics import Metric
from .predictors import Predictor, Query, Scores, random_baseline
from .rankings import chosen_of, require_scipy

# The two models of the paper that all others are compared with, as MixInstruct writes them.
PAPER_BASES = {"Vicuna": "vicuna-13b-1.1", "OpenAssistant": "oasst-sft-4-pythia-12b-epoch-3.5"}
MODELS, ORACLES, RANKERS, BLENDS = KINDS = ("single model", "oracle", "ranker", "blend")
RANDOM, BLEND = "Random", "Blend"
GPT_RANK, TOP_3 = "GPT-Rank", "top 3 (%)"
TOP = 3
# Distance from 0.5 up to which a judge's probability is a tie.
TIE_THRESHOLD = 0.05
AGREEMENT = (
    '"By model" is as in the paper: for each model the correlation of its ranks over the prompts, mean over models; '
    '"by prompt" is the mean over prompts of the correlation of the ranks of their candidates. The footrule is the sum '
    "of the distances of the ranks of a prompt; lower is better for it alone."
)


@dataclass(frozen=True)
class TableSettings:
    """What the main table measures.

    Args:
        metrics: Names of the scores that have a column.
        bases: Names of the models that everything is compared with, by the title of their column.
        rule: Name of a rule of `gpt_rank.RULES`: what counts as at least as good.
    """

    metrics: tuple[str, ...]
    bases: Mapping[str, str]
    rule: str = "paper"

    def column(self, base: str) -> str:
        """Return the title of the column of a base."""
        return f">= {base} (%)"


@dataclass(frozen=True)
class PaperRow:
    """A row of the main table."""

    kind: str  # "single model", "oracle", "ranker" or "blend"
    name: str  # who chooses, or writes
    figures: Mapping[str, Figure]  # by the title of a column


@dataclass(frozen=True)
class PaperTables:
    """The main table and the correlation table."""

    rows: tuple[PaperRow, ...]  # the main table
    # by ranker its correlations with GPT-Rank, see `gpt_rank.RankAccumulator.correlations`
    correlations: Mapping[str, Mapping[str, float]]
    settings: TableSettings  # what was measured
    n_prompts: int  # number of prompts
    n_left_out: int  # number of further prompts, which lacked a verdict on some pair
    n_fused: int  # how many answers of the blend are new texts
    judged_by: str | None  # name of the ranker that judged these; None if they were not judged


def paper_tables(
    prompts: Iterable[LabelledPrompt],
    rankers: Mapping[str, Predictor],
    settings: TableSettings,
    *,
    blenders: Mapping[str, Blender] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    judge: tuple[str, Predictor] | None = None,
    generation: Mapping[str, Any] | None = None,
    window: int = DEFAULT_WINDOW,
    seed: int = 0,
    on_prompt: Callable[[], object] = lambda: None,
) -> PaperTables:
    """Make the tables of the paper (section 5) from prompts whose every pair of candidates was judged.

    Args:
        prompts: The prompts, such as the test part of MixInstruct, with scores, see `metric_cache.fill_scores`. Those
            that lack a verdict are left out, and counted.
        rankers: The rankers by name.
        settings: The columns of the main table, and the rule for what is at least as good.
        blenders: Whole blends by the name of their ranker, which also gets a row as a ranker.
        metrics: Computes the scores of fused texts.
        judge: Name and ranker that compares fused texts with the candidates, since GPT gave no verdicts on them.
        generation: Options of `generate` for the fuser.
        window: Number of prompts processed together.
        seed: Random seed of "Random" and of the bootstrap.
        on_prompt: Called after each prompt, for progress.

    Returns:
        The tables.

    Raises:
        InputError: If the rule is unknown, or no prompt was fully judged.
        BlenderError: If a package of the extra `evaluate` is not installed.
    """
    require_scipy()
    check_rule(settings.rule)
    found = _Accumulator(settings)
    rankers, blenders = {RANDOM: random_baseline(seed), **rankers}, blenders or {}
    for batch in found.windows(prompts, window):
        scores = {name: _scores(ranker, batch) for name, ranker in rankers.items()}
        for name, blender in blenders.items():
            blends = list(blender.iter_blend((p.item for p in batch), generation=generation, window=window))
            scores[name] = [blend.ranking.scores for blend in blends]
            row = BLEND if len(blenders) == 1 else f"{BLEND}, {name}"
            for prompt, blend in zip(batch, blends, strict=True):
                found.add_blend(row, prompt, blend.output, metrics or {}, judge and judge[1])
        for n, prompt in enumerate(batch):
            found.add(prompt, {name: rows[n] for name, rows in scores.items()})
            on_prompt()
    if not found.n_prompts:
        raise InputError(f"no prompt has a verdict on every pair of its candidates; {found.n_left_out} lack some")
    return PaperTables(
        rows=found.rows(seed),
        correlations={name: ranks.correlations() for name, ranks in found.ranks.items()},
        settings=settings,
        n_prompts=found.n_prompts,
        n_left_out=found.n_left_out,
        n_fused=found.n_fused,
        judged_by=judge[0] if judge else None,
    )


@dataclass
class _Accumulator:
    """What the prompts contribute to both tables."""

    settings: TableSettings
    ratios: dict[tuple[str, str], list[Ratios]] = field(default_factory=lambda: defaultdict(list))
    ranks: dict[str, RankAccumulator] = field(default_factory=lambda: defaultdict(RankAccumulator))
    n_prompts: int = 0
    n_left_out: int = 0
    n_fused: int = 0

    def windows(self, prompts: Iterable[LabelledPrompt], window: int) -> Iterator[list[LabelledPrompt]]:
        """Yield windows of the fully judged prompts, and count all."""

        def judged() -> Iterator[LabelledPrompt]:
            for prompt in prompts:
                if is_fully_judged(prompt):
                    self.n_prompts += 1
                    yield prompt
                else:
                    self.n_left_out += 1

        source = judged()
        while batch := list(islice(source, window)):
            yield batch

    def add(self, prompt: LabelledPrompt, scores: Mapping[str, Scores | None]) -> None:
        """Add what each model, oracle and ranker would choose for a prompt."""
        gold, models = gpt_ranks(prompt), prompt.models
        by_metric = {metric: prompt.complete_scores(metric) for metric in self.settings.metrics}
        choices = {(MODELS, model): [index] for index, model in enumerate(models) if model is not None}
        choices |= {(ORACLES, metric): chosen_of(own) for metric, own in by_metric.items() if own is not None}
        choices[ORACLES, GPT_RANK] = chosen_of([-rank for rank in gold])
        # The expectation of a random choice is known exactly; one random ranking has ranks to correlate.
        choices |= {
            (RANKERS, name): list(range(len(gold))) if name == RANDOM else chosen_of(own)
            for name, own in scores.items()
            if own is not None
        }
        for key, chosen in choices.items():
            self.ratios[key].append(choice_ratios(prompt, chosen, self.settings))
        for name, own in [*scores.items(), *by_metric.items()]:
            if own is not None:
                self.ranks[name].add(models, own, gold)

    def add_blend(
        self, name: str, prompt: LabelledPrompt, text: str, metrics: Mapping[str, Metric], judge: Predictor | None
    ) -> None:
        self.ratios[BLENDS, name].append(blend_ratios(prompt, text, self.settings, metrics, judge))
        self.n_fused += text not in prompt.item.texts

    def rows(self, seed: int) -> tuple[PaperRow, ...]:
        keys = sorted(self.ratios, key=lambda key: KINDS.index(key[0]))
        return tuple(PaperRow(*key, self._figures(key, seed)) for key in keys)

    def _figures(self, key: tuple[str, str], seed: int) -> dict[str, Figure]:
        found = figures(self.ratios[key], seed=seed)
        # A figure of a blend that covers only some of its answers is misleading.
        return {name: figure for name, figure in found.items() if key[0] != BLENDS or figure.n == self.n_prompts}


def _scores(ranker: Predictor, prompts: Sequence[LabelledPrompt]) -> list[Scores | None]:
    queries = [Query.about(prompt, complete=True) for prompt in prompts]
    predictions = ranker.predict(queries, ranker.prepare(queries))
    return [None if prediction is None else prediction.scores for prediction in predictions]


def choice_ratios(
    prompt: LabelledPrompt, chosen: Sequence[int], settings: TableSettings
) -> dict[str, tuple[float, float]]:
    """Return what a choice contributes to each figure; the mean if it is shared by several candidates."""
    by_metric = {metric: prompt.complete_scores(metric) for metric in settings.metrics}
    known = {metric: scores for metric, scores in by_metric.items() if scores is not None}
    added = {metric: (fmean(scores[index] for index in chosen), 1.0) for metric, scores in known.items()}
    return added | _judged_ratios(prompt, chosen, settings)


def blend_ratios(
    prompt: LabelledPrompt, text: str, settings: TableSettings, metrics: Mapping[str, Metric], judge: Predictor | None
) -> dict[str, tuple[float, float]]:
    """Return what an answer contributes to each figure.

    An answer that is one of the candidates has their scores and verdicts. A new one has the scores of the metrics that
    can be computed, and the verdicts of the judge, if there is one: it then stands among the others as one more.
    """
    if text in prompt.item.texts:
        return choice_ratios(prompt, [prompt.item.texts.index(text)], settings)
    added = {
        name: (metrics[name]([text], [prompt.reference])[0], 1.0)
        for name in settings.metrics
        if name in metrics and prompt.reference is not None
    }
    if judge is None:
        return added
    return added | _judged_ratios(with_answer(prompt, text, judge), [len(prompt.item.candidates)], settings)


def with_answer(prompt: LabelledPrompt, text: str, judge: Predictor) -> LabelledPrompt:
    """Return the prompt with one more candidate, which a judge compared with each other one."""
    item = replace(prompt.item, candidates=(*prompt.item.candidates, Candidate(text)))
    new, grown = len(prompt.item.candidates), replace(prompt, item=item, scores={})
    query = Query(grown, tuple((index, new) for index in range(new)), complete=False)
    [prediction] = judge.predict([query], judge.prepare([query]))
    comparisons = prediction.comparisons if prediction is not None else {}
    leanings = {pair: comparison.probability - 0.5 for pair, comparison in comparisons.items()}
    verdicts = {pair: 0.5 if abs(p) <= TIE_THRESHOLD else float(p > 0) for pair, p in leanings.items()}
    pairs = tuple(JudgedPair(*pair, verdict) for pair, verdict in verdicts.items())
    return replace(grown, pairs=(*prompt.pairs, *pairs))


def _judged_ratios(
    prompt: LabelledPrompt, chosen: Sequence[int], settings: TableSettings
) -> dict[str, tuple[float, float]]:
    ranks = gpt_ranks(prompt)
    added = {GPT_RANK: (fmean(ranks[index] for index in chosen), 1.0)}
    for title, model in settings.bases.items():
        credits = [at_least_as_good(prompt, index, model, settings.rule) for index in chosen]
        known = [100 * credit for credit in credits if credit is not None]
        if known:
            added[settings.column(title)] = (fmean(known), 1.0)
    added[TOP_3] = (fmean(100.0 * (ranks[index] <= TOP) for index in chosen), 1.0)
    return added


def to_json(tables: PaperTables) -> dict[str, Any]:
    """Return the tables as plain dictionaries, lists and numbers."""
    return asdict(tables)


def to_markdown(tables: PaperTables) -> str:
    """Return both tables and their explanation in Markdown."""
    settings = tables.settings
    columns = [*settings.metrics, GPT_RANK, *map(settings.column, settings.bases), TOP_3]
    shown = [name for name in columns if any(name in row.figures for row in tables.rows)]
    main = markdown_table(
        ["answers of", "kind", *shown],
        [[row.name, row.kind, *(_cell(row.figures.get(name), name) for name in shown)] for row in tables.rows],
    )
    correlations = tables.correlations.items()
    names = [f"{name}, {BY_MODEL}" for name in ("Pearson", "Spearman")]
    names += [FOOTRULE, *(f"{name}, {BY_PROMPT}" for name in CORRELATIONS)]
    agreement = markdown_table(
        ["ranks by", *names],
        [[name, *(f"{row[key]:z.3f}" if key in row else "" for key in names)] for name, row in correlations],
    )
    parts = ["## Main table", main, _explanation(tables), "## Correlation with GPT-Rank", agreement, AGREEMENT]
    return "\n\n".join(parts) + "\n"


def _explanation(tables: PaperTables) -> str:
    text = (
        f"{counted(tables.n_prompts, 'prompt')}; {tables.n_left_out} more lack a verdict. GPT-Rank: mean rank by the "
        "verdicts, lower is better; higher is better for all others. "
        f'At least as good by the rule "{tables.settings.rule}". '
        "Random in this table is the mean over all candidates."
    )
    if not tables.n_fused:
        return text
    judged = f"judged by {tables.judged_by}" if tables.judged_by else "not judged, so their rank is unknown"
    return f"{text} {tables.n_fused} answers of the blend are new texts, {judged}."


def _cell(figure: Figure | None, column: str) -> str:
    if figure is None:
        return ""
    return f"{figure.value:z.2f}" if column == GPT_RANK or column.endswith("(%)") else f"{figure.value:z.3f}"
