"""The work of `evaluate`: labelled data in, a report out."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from tqdm import tqdm

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt, check_metric
from blender_hf.data.labelled_formats import LabelledFile, read_labelled
from blender_hf.data.sources import STDIN
from blender_hf.errors import InputError
from blender_hf.evaluation import paper, report
from blender_hf.evaluation.baselines import is_named, load_predictor
from blender_hf.evaluation.evaluate import LENGTH, evaluate
from blender_hf.evaluation.metric_cache import CachedMetric, fill_scores
from blender_hf.evaluation.metrics import Metric, load_metric
from blender_hf.evaluation.paper import PAPER_BASES, TableSettings, paper_tables
from blender_hf.evaluation.plots import save_plots
from blender_hf.evaluation.predictors import Predictor
from blender_hf.loading.checkpoints import HubOptions
from blender_hf.logs import quieten_libraries

from .options import ranker_arguments

Prompts = list[LabelledPrompt] | LabelledFile
CACHE = Path(HF_HOME) / "blender-hf" / "scores.sqlite"
# The columns of the paper, where records have such scores.
PAPER_METRICS = ("bertscore", "bartscore", "bleurt")


def run(options: argparse.Namespace) -> None:
    """Evaluate as the command line says.

    Raises:
        BlenderError: If the data, an option or a checkpoint can't be used.
    """
    if options.local_files_only and options.data != STDIN and not Path(options.data).exists():
        raise InputError(
            f"{options.data} is no file or folder here, and --local-files-only forbids to ask the Hub for it"
        )
    if options.split is not None and Path(options.data).is_file():
        raise InputError(f"{options.data} is a file, and has no splits: leave out --split")
    folder = _folder(options.output)
    quieten_libraries()
    prompts = _prompts(options)
    metrics = dict(_metric(spec, options) for spec in options.metric)
    if metrics:
        with _bar(options, len(prompts), "scoring") as bar:
            prompts = list(fill_scores(prompts, metrics, on_scored=bar.update))
    if options.table:
        _make_tables(options, prompts, metrics, folder)
    else:
        _measure(options, prompts, folder)


def _prompts(options: argparse.Namespace) -> Prompts:
    """Return the prompts: from a file of any size if it can be read twice and a report alone is made of it."""
    given = {"split": options.split, "limit": options.limit}
    path = Path(options.data)
    if options.metric or options.table or not (path.is_file() or path.is_dir()):
        return list(read_labelled(options.data, **given))
    return LabelledFile(path, **given)


def _measure(options: argparse.Namespace, prompts: Prompts, folder: Path | None) -> None:
    if options.gold:
        check_metric(prompts, options.gold)
    predictors = _predictors(options, prompts, [options.ranker, *options.baseline])
    # Part of every report.
    predictors.pop("length", None)
    with _bar(options, len(prompts), "judging") as bar:
        found = evaluate(
            prompts,
            predictors,
            gold=options.gold,
            rankings=not options.pairs_only,
            tie_threshold=options.tie_threshold,
            seed=options.seed,
            window=options.batch_size,
            on_prompt=bar.update,
        )
    _write(options, report.to_json(found), report.to_markdown(found), folder)
    if folder is not None:
        save_plots(found, folder)
    shown = found.rankers.get(options.ranker) or found.rankers[LENGTH]
    accuracy = shown.figures.get("accuracy")
    said = f"accuracy {accuracy.value:.3f} on {accuracy.n:.0f} decided pairs" if accuracy else "no pair was decided"
    _say(f"{options.ranker}: {said}, {found.n_prompts} prompts", folder)


def _make_tables(
    options: argparse.Namespace, prompts: list[LabelledPrompt], metrics: dict[str, Metric], folder: Path | None
) -> None:
    names = [options.ranker, *options.baseline]
    # A baseline has no fuser.
    blend = options.blend and not is_named(options.ranker)
    blenders = {options.ranker: _blender(options.ranker, options, options.fuser)} if blend else {}
    known = {name for prompt in prompts for name in prompt.scores}
    settings = TableSettings(
        metrics=tuple(dict.fromkeys([name for name in PAPER_METRICS if name in known] + list(metrics))),
        bases={name: name for name in options.base} if options.base else PAPER_BASES,
        rule=options.rule,
    )
    judge = (options.judge, _predictors(options, prompts, [options.judge])[options.judge]) if options.judge else None
    given = {"max_new_tokens": options.max_new_tokens, "num_beams": options.num_beams}
    with _bar(options, len(prompts), "ranking") as bar:
        found = paper_tables(
            prompts,
            _predictors(options, prompts, [name for name in names if name not in blenders]),
            settings,
            blenders=blenders,
            metrics=metrics,
            judge=judge,
            generation={name: value for name, value in given.items() if value is not None},
            window=options.batch_size,
            seed=options.seed,
            on_prompt=bar.update,
        )
    _write(options, paper.to_json(found), paper.to_markdown(found), folder)
    _say(f"{len(found.rows)} rows on {found.n_prompts} prompts, {found.n_left_out} lacked a verdict", folder)


def _predictors(options: argparse.Namespace, prompts: Prompts, names: list[str]) -> dict[str, Predictor]:
    loading = {"hub": _hub(options), "device": options.device, "dtype": options.dtype}
    return {name: load_predictor(name, prompts, lambda name: _blender(name, options, None), loading) for name in names}


def _blender(name: str, options: argparse.Namespace, fuser: str | None) -> Blender:
    arguments = ranker_arguments(options)
    if name != options.ranker:
        # What the command line says of the ranker's repository and its files is not said of others.
        arguments |= {"revision": None, "file_name": None}
    return Blender.from_pretrained(
        **{**arguments, "ranker": name}, fuser=fuser, fuser_revision=options.fuser_revision if fuser else None
    )


def _metric(spec: str, options: argparse.Namespace) -> tuple[str, Metric]:
    name, metric = load_metric(spec, {"hub": _hub(options), "device": options.device, "dtype": options.dtype})
    return name, CachedMetric(metric, options.cache or CACHE)


def _hub(options: argparse.Namespace) -> HubOptions:
    return HubOptions(local_files_only=options.local_files_only, trust_remote_code=options.trust_remote_code)


def _bar(options: argparse.Namespace, total: int, what: str) -> Any:
    return tqdm(total=total, unit="prompt", desc=what, disable=options.quiet)


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"can't write into {folder}: it is a file; --output names a folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"can't write into {folder}: the folder that it would be in does not exist")
    folder.mkdir(exist_ok=True)
    return folder


def _write(options: argparse.Namespace, found: dict[str, Any], text: str, folder: Path | None) -> None:
    document = json.dumps(found, ensure_ascii=False)
    sys.stdout.write(f"{document}\n" if options.json else text)
    if folder is not None:
        (folder / "report.json").write_text(f"{document}\n", encoding="utf-8")
        (folder / "report.md").write_text(text, encoding="utf-8")


def _say(summary: str, folder: Path | None) -> None:
    sys.stderr.write(f"blender-hf: {summary}{f'; wrote {folder}' if folder else ''}\n")
