"""The command `evaluate`: metrics of a ranker on labelled data, or the tables of the paper."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blender_hf.errors import InputError, require
from blender_hf.logs import quieten_libraries

from .command import (
    COLUMNS,
    FUSER_OPTIONS,
    LIMIT,
    QUIET,
    RANKER_OPTIONS,
    Command,
    Options,
    fusion_generation,
    grouped,
    option,
    ranker_arguments,
    whole,
)
from .output import allows_progress, checked_folder, log

if TYPE_CHECKING:
    from tqdm import tqdm

    from blender_hf.blender import Blender
    from blender_hf.data.labelled import LabelledPrompt
    from blender_hf.data.labelled_formats import LabelledFile
    from blender_hf.evaluation.metrics import Metric
    from blender_hf.evaluation.predictors import Prediction, Predictor

    Prompts = list[LabelledPrompt] | LabelledFile

# The paper's columns, shown if the records have these scores.
PAPER_METRICS = ("bertscore", "bartscore", "bleurt")


def run(options: Options) -> None:
    """Evaluate a ranker, or make the tables of the paper."""
    _check(options)
    require("scipy", "evaluate", "evaluation")
    if options.output:
        require("matplotlib", "evaluate", "a plot")
    folder = checked_folder(options.output) if options.output else None
    from blender_hf.evaluation.metric_cache import fill_scores

    if folder is not None:
        folder.mkdir(exist_ok=True)
    quieten_libraries()
    prompts = _prompts(options)
    metrics = dict(_metric(spec, options) for spec in options.metric)
    if metrics:
        with _bar(options, len(prompts), "scoring") as bar:
            prompts = list(fill_scores(prompts, metrics, on_scored=bar.update))
    if options.table:
        _make_tables(options, list(prompts), metrics, folder)
    else:
        _measure(options, prompts, folder)


def _check(options: Options) -> None:
    """Reject options that would change nothing, and data that can't be found."""
    from blender_hf.data.files import check_source

    unused = [
        option.name for option in (METRIC_OPTIONS if options.table else TABLE_OPTIONS) if option.is_given(options)
    ]
    if unused:
        why = "has no meaning for --table" if options.table else "is for --table mixinstruct"
        raise InputError(f"{unused[0]} {why}; remove it")
    check_source(options.data)
    is_local = options.data == "-" or Path(options.data).exists()
    if options.local_files_only and not is_local:
        raise InputError(
            f"{options.data} is not a local file or folder, and --local-files-only forbids downloading it from the Hub"
        )
    if options.split is not None and Path(options.data).is_file():
        raise InputError(f"{options.data} is a file, and has no splits: remove --split")


def _prompts(options: Options) -> "Prompts":
    """Return the prompts: streamed from a file of any size if a report, which reads it twice, needs nothing else."""
    from blender_hf.data.labelled_formats import LabelledFile, read_labelled

    given = {"split": options.split, "limit": options.limit, "columns": options.columns}
    path = Path(options.data)
    if options.metric or options.table or not (path.is_file() or path.is_dir()):
        return list(read_labelled(options.data, **given))
    return LabelledFile(path, **given)


def _measure(options: Options, prompts: "Prompts", folder: Path | None) -> None:
    from blender_hf.data.labelled import check_metric
    from blender_hf.evaluation import report
    from blender_hf.evaluation.evaluate import LENGTH, evaluate
    from blender_hf.evaluation.judged_pairs import pair_rows
    from blender_hf.evaluation.plots import save_plots

    if options.gold:
        check_metric(prompts, options.gold)
    predictors = _predictors(options, prompts, [options.ranker, *options.baseline])
    predictors.pop("length", None)  # part of every report
    with ExitStack() as stack:
        bar = stack.enter_context(_bar(options, len(prompts), "judging"))
        pairs = stack.enter_context((folder / "pairs.jsonl").open("w", encoding="utf-8")) if folder else None

        def count(prompt: "LabelledPrompt", predictions: "Mapping[str, Prediction | None]") -> None:
            bar.update()
            if pairs is not None:
                pairs.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in pair_rows(prompt, predictions))

        found = evaluate(
            prompts,
            predictors,
            gold=options.gold,
            rankings=not options.pairs_only,
            tie_threshold=options.tie_threshold,
            seed=options.seed,
            window=options.batch_size,
            on_prompt=count,
        )
    _write(options, report.to_json(found), report.to_markdown(found), folder)
    if folder is not None:
        save_plots(found, folder)
    named = {name: name if name in found.rankers else LENGTH for name in (options.ranker, *options.baseline)}
    _log(report.summary_of(found, named), folder)
    if few := report.warning_of(found):
        log(f"warning: {few}")


def _make_tables(
    options: Options, prompts: "list[LabelledPrompt]", metrics: "dict[str, Metric]", folder: Path | None
) -> None:
    from blender_hf.evaluation import paper
    from blender_hf.evaluation.loading import has_no_fuser
    from blender_hf.evaluation.paper import PAPER_BASES, TableSettings, paper_tables

    names = [options.ranker, *options.baseline]
    blend = options.blend and not has_no_fuser(options.ranker)
    blenders = {options.ranker: _blender(options.ranker, options, options.fuser)} if blend else {}
    known = {name for prompt in prompts for name in prompt.scores}
    settings = TableSettings(
        metrics=tuple(dict.fromkeys([name for name in PAPER_METRICS if name in known] + list(metrics))),
        bases={name: name for name in options.base} if options.base else PAPER_BASES,
        rule=options.rule,
    )
    judge = (options.judge, _predictors(options, prompts, [options.judge])[options.judge]) if options.judge else None
    with _bar(options, len(prompts), "ranking") as bar:
        found = paper_tables(
            prompts,
            _predictors(options, prompts, [name for name in names if name not in blenders]),
            settings,
            blenders=blenders,
            metrics=metrics,
            judge=judge,
            generation=fusion_generation(options),
            window=options.batch_size,
            seed=options.seed,
            on_prompt=bar.update,
        )
    _write(options, paper.to_json(found), paper.to_markdown(found), folder)
    _log(f"{len(found.rows)} rows on {found.n_prompts} prompts, {found.n_left_out} lacked a verdict", folder)


def _predictors(options: Options, prompts: "Prompts", names: list[str]) -> "dict[str, Predictor]":
    from blender_hf.evaluation.loading import load_predictor

    return {name: load_predictor(name, prompts, lambda name: _blender(name, options, None)) for name in names}


def _blender(name: str, options: Options, fuser: str | None) -> "Blender":
    from blender_hf.blender import Blender

    arguments = ranker_arguments(options)
    if name != options.ranker:
        # These are about --ranker alone.
        arguments |= {"revision": None, "file_name": None, "length_neutral": False, "positive_label": None}
    return Blender.from_pretrained(
        **{**arguments, "ranker": name}, fuser=fuser, fuser_revision=options.fuser_revision if fuser else None
    )


def _metric(spec: str, options: Options) -> "tuple[str, Metric]":
    from huggingface_hub.constants import HF_HOME

    from blender_hf.evaluation.metric_cache import CachedMetric
    from blender_hf.evaluation.metrics import load_metric

    name, metric = load_metric(spec, _loading(options))
    return name, CachedMetric(metric, options.cache or Path(HF_HOME) / "blender-hf" / "scores.sqlite")


def _loading(options: Options) -> dict[str, Any]:
    from blender_hf.loading.checkpoints import HubOptions

    hub = HubOptions(local_files_only=options.local_files_only, trust_remote_code=options.trust_remote_code)
    running = {name: getattr(options, name) for name in ("device", "dtype", "attn_implementation")}
    return {"hub": hub, **running}


def _bar(options: Options, total: int, what: str) -> "tqdm[Any]":
    from tqdm import tqdm

    return tqdm(total=total, unit="prompt", desc=what, disable=not allows_progress(options))


def _write(options: Options, found: dict[str, Any], text: str, folder: Path | None) -> None:
    document = json.dumps(found, ensure_ascii=False)
    sys.stdout.write(f"{document}\n" if options.json else text)
    if folder is not None:
        (folder / "report.json").write_text(f"{document}\n", encoding="utf-8")
        (folder / "report.md").write_text(text, encoding="utf-8")


def _log(summary: str, folder: Path | None) -> None:
    log(f"{summary}{f'; wrote {folder}' if folder else ''}")


METRIC_OPTIONS = grouped(
    "metrics of a ranker",
    option("--gold METRIC", "gold scores of answers (default: score, else the verdicts)"),
    option("--pairs-only", "score the labelled pairs only, without rankings"),
    option("--tie-threshold P", "probabilities within P of 0.5 are ties", type=float, default=0.05),
)
TABLE_OPTIONS = grouped(
    "tables of the paper",
    option(
        "--base MODEL",
        "model that all are compared with; repeatable (default: the paper's Vicuna and OpenAssistant)",
        action="append",
    ),
    option(
        "--rule",
        '"at least as good": any tie counts as one, or a tie of good answers as one half',
        choices=("paper", "win-rate"),
        default="paper",
    ),
    option("--no-blend", "do not fuse", dest="blend", action="store_false", default=True),
    option("--judge RANKER", "ranker that compares fused answers with the candidates"),
    *FUSER_OPTIONS,
)
COMMAND = Command(
    name="evaluate",
    help="Measure a ranker on labelled data",
    about="""Measure a ranker on labelled data, next to three baselines: the longer answer, the best single model, and
    chance; or make the paper's tables on MixInstruct.""",
    options=(
        option("data", "labelled data: a file, a folder, or a dataset on the Hub", metavar="DATA"),
        option("--split SPLIT", "split of a dataset (default: the only one)"),
        COLUMNS,
        LIMIT,
        option("--output DIR", "write report.json, report.md, pairs.jsonl and plots to this folder"),
        option("--json", "print JSON instead of Markdown"),
        QUIET,
        option("--baseline RANKER", "another ranker to compare; repeatable", action="append", default=[]),
        option("--metric METRIC", "scores to compute where missing; repeatable", action="append", default=[]),
        option("--cache FILE", "cache of computed scores (default: in HF_HOME)"),
        option("--seed N", "random seed of the bootstrap (default: 0)", type=whole(0), default=0),
        option("--table", "make the two tables of the paper instead", choices=("mixinstruct",)),
        *RANKER_OPTIONS,
        *METRIC_OPTIONS,
        *TABLE_OPTIONS,
    ),
    run=run,
    epilog="""\
Data is a JSON Lines, JSON, CSV, Parquet or Arrow file, plain or compressed with gzip, a folder of `datasets`, or the id
of a dataset on the Hub. Its records have pairs, as ours; verdicts and scores, as MixInstruct; chosen and rejected, as
RewardBench and TRL's preference datasets; or another of the shapes in docs/data.md.

A ranker is the Hub id or folder of a pair ranker or a reward model; or one of
  length          the longer answer wins
  random          random guessing
  mlm:ID          pseudo-likelihood of the answer under a masked language model
  simcls:ID       similarity of answer and prompt under an encoder
  reward:ADDRESS  a reward model or a reranker on a server
  oracle:METRIC   the records' own scores; in `evaluate` alone

A metric is rouge1, rouge2, rougeL, chrf, bleu, bertscore, bartscore or bleurt; the last three take a model, as in
bertscore=org/encoder@9, where 9 is the layer. Scores that the records already have are not computed again.

Example: blender-hf evaluate dev.jsonl.gz --ranker org/pair-ranker --baseline length --output report
""",
)
