"""Training of a `PairRanker` from any encoder, or on from a ranker."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, TrainerCallback, set_seed

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import locate
from blender_hf.modeling import PairRanker, PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import format_of
from blender_hf.modeling.tokenization import load_tokenizer

from .cards import ranker_card
from .damaged_data import DAMAGES, damaged_pairs
from .damaged_data import SOURCE as DAMAGED
from .distillation import distilled
from .generalisation import dropouts_of, interpolate, set_dropouts, weights_of
from .loading import (
    LoadedData,
    check_evaluation,
    explaining_arguments,
    load_eval_data,
    load_training_data,
    started,
)
from .lora import merged, with_lora
from .new_tokens import keep_line_breaks, start_from_words
from .pair_data import balance_lengths, balance_sources, training_pairs
from .provenance import data_facts
from .ranker_metrics import metric_names, source_table
from .ranker_trainer import PairRankerTrainer, PairRankerTrainingArguments
from .runs import Run
from .saving import save_checkpoint
from .settings import PairSettings, RankerSettings

logger = logging.getLogger(__name__)
LENGTHS = ("max_pair_length", "max_source_length", "max_candidate_length", "source_truncation_side")
# What else of `PairRankerConfig` the settings may change, in a new ranker and in one that a run goes on from.
FORM = ("pooling", "symmetric", "distinct_token_weight")


def train_ranker(
    settings: RankerSettings,
    arguments: PairRankerTrainingArguments,
    run: Run,
    callbacks: Sequence[TrainerCallback] = (),
) -> PairRanker:
    """Train a ranker, fit its temperature on the data to measure on, and save it with its figures and its card.

    First, if the settings say so, one pass over the shortest pairs at a constant rate: they are many for the same work,
    and a new head learns from them what to look at. Then all pairs. A run that was interrupted goes on where it was.

    Args:
        settings: What it is made of.
        arguments: How it is trained; `run` says where it is written.
        run: Where everything goes.
        callbacks: Watch the training.

    Returns:
        The trained ranker.

    Raises:
        InputError: If a setting or the data can't be used.
    """
    if not settings.model:
        raise InputError("the setting model is missing: name an encoder, or a ranker to go on from")
    data, eval_data = load_training_data(settings), load_eval_data(settings)
    pairs, eval_pairs = training_data(settings, data.prompts), evaluation_data(settings, eval_data.prompts)
    check_evaluation(arguments, eval_pairs, metric_names(eval_pairs))
    if arguments.prediction_loss_only and eval_pairs:
        raise InputError("prediction_loss_only leaves out what a ranker is measured by; leave out it, or eval_data")
    with arguments.main_process_first(desc="verdicts of the teachers"):
        pairs = _taught(pairs, settings, run)
    set_seed(arguments.seed)
    model, processor = started(lambda: starting_point(settings), settings.model)
    start = weights_of(model) if settings.interpolation < 1 else {}
    with explaining_arguments():
        trained = with_lora(model, settings)
    short = sorted(pairs, key=PreferencePair.n_characters)[: settings.short_pairs]
    schedule = {"num_train_epochs": 1.0, "max_steps": -1, "lr_scheduler_type": "constant_with_warmup"}
    for phase, chosen, changes in (("short", short, schedule), ("all", pairs, {})):
        if not chosen:
            continue
        with explaining_arguments():
            trainer = PairRankerTrainer(
                model=trained,
                args=replace(arguments, output_dir=str(run.checkpoints / phase), **changes),
                train_dataset=chosen,
                eval_dataset=eval_pairs or None,
                processing_class=processor,
                callbacks=list(callbacks),
            )
        say_what_is_cut(trainer.train_dataset.n_truncated, len(chosen))
        trainer.train(resume_from_checkpoint=run.last_checkpoint(phase))
    model = merged(trained)
    interpolate(model, start, settings.interpolation)
    if settings.final_distinct_token_weight is not None:
        model.config.distinct_token_weight = settings.final_distinct_token_weight
    metrics = _measured(trainer, eval_pairs, model)
    if trainer.is_world_process_zero():
        save_checkpoint(model, processor, run.folder)
        metrics |= pair_facts(data, eval_data, pairs, eval_pairs)
        run.write_metrics(
            {"training pairs": len(pairs), "truncated pairs": trainer.train_dataset.n_truncated, **metrics}
        )
        run.write_card(ranker_card(run, settings, pairs, metrics))
    return model


def training_data(settings: PairSettings, prompts: Sequence[LabelledPrompt]) -> list[PreferencePair]:
    """Return the pairs that a ranker is trained on.

    Raises:
        InputError: If there are none, or a setting can't be used.
    """
    found = training_pairs(
        prompts,
        metrics=settings.metrics,
        sampling=settings.sampling,
        pairs_per_prompt=settings.pairs_per_prompt,
        seed=settings.sampling_seed,
    )
    if settings.balance_lengths:
        found = balance_lengths(list(found), seed=settings.sampling_seed)
    pairs = balance_sources(
        found, most=settings.max_pairs_per_source, least=settings.min_pairs_per_source, seed=settings.sampling_seed
    )
    if not pairs:
        raise InputError("the data has no pairs to train on: no judged pairs, or none with the scores named by metrics")
    kinds = settings.damage_kinds or tuple(DAMAGES)
    return [*pairs, *damaged_pairs(prompts, settings.damaged_pairs, settings.sampling_seed, kinds)]


def _taught(pairs: list[PreferencePair], settings: RankerSettings, run: Run) -> list[PreferencePair]:
    """Mix in what the teachers say of judged pairs; what damage was made is known better than they know."""
    if not settings.teachers:
        return pairs
    judged = [pair for pair in pairs if pair.source != DAMAGED]
    saved = run.checkpoints / "teachers.jsonl"
    mixed = distilled(judged, settings.teachers, settings.teacher_share, saved)
    return [*mixed, *(pair for pair in pairs if pair.source == DAMAGED)]


def evaluation_data(settings: PairSettings, prompts: Sequence[LabelledPrompt]) -> list[PreferencePair]:
    """Return the pairs that a ranker is measured on."""
    pairs = training_pairs(prompts, metrics=settings.metrics)
    return balance_sources(pairs, most=settings.max_eval_pairs_per_source)


def pair_facts(
    data: LoadedData, eval_data: LoadedData, pairs: Sequence[PreferencePair], eval_pairs: Sequence[PreferencePair]
) -> dict[str, Any]:
    """Return `provenance.data_facts` of a run on pairs."""
    used, measured = ([pair.prompt for pair in found] for found in (pairs, eval_pairs))
    return data_facts(data.prompts, used, measured, {"data": data.skipped, "eval_data": eval_data.skipped})


def say_what_is_cut(n_truncated: int, n_pairs: int) -> None:
    """Log how many pairs are longer than what is read."""
    if n_truncated:
        logger.warning("%d of %d pairs are cut: they are longer than what the model reads", n_truncated, n_pairs)


def starting_point(settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    """Load the ranker that training goes on from, or put a new head on an encoder.

    Args:
        settings: What it is made of.

    Returns:
        The ranker in training mode, float32, and its processor.
    """
    where, hub = locate(settings.model), {"revision": settings.revision}
    config, _ = PretrainedConfig.get_config_dict(where, **hub)
    own = format_of(config) is not None
    if settings.interpolation < 1 and not own:
        raise InputError(
            "interpolation is for going on from a ranker: a new head on an encoder has nothing to go back to"
        )
    if settings.line_breaks and own:
        raise InputError(
            "line_breaks is for training from an encoder: a ranker keeps the tokens that it was trained with"
        )
    return _from_ranker(where, hub, settings) if own else _from_encoder(where, hub, settings)


def _from_ranker(where: str, hub: dict[str, Any], settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    lengths = _given(settings, LENGTHS)
    changes = _given(settings, FORM)
    model = PairRanker.from_pretrained(where, dtype=torch.float32, **lengths, **changes, **hub)
    _check_tasks(model.config.n_tasks, settings)
    model.config.logit_temperature = 1.0  # that of the old weights
    set_dropouts(model.backbone, dropouts_of(settings, model.backbone.config))
    return model.train(), PairRankerProcessor.from_pretrained(where, **lengths, **hub)


def _check_tasks(n_tasks: int, settings: RankerSettings) -> None:
    asked = max(1, len(settings.metrics))
    if n_tasks != asked:
        labels = f"metrics names {len(settings.metrics)}" if settings.metrics else "without metrics there is one"
        raise InputError(
            f"{settings.model} has n_tasks={n_tasks}, a logit for each of so many labels, and {labels}: name {n_tasks} "
            "metrics, or train from an encoder, which gets a new head"
        )


def _from_encoder(where: str, hub: dict[str, Any], settings: RankerSettings) -> tuple[PairRanker, PairRankerProcessor]:
    tokenizer = load_tokenizer(where, **hub)
    n_tokens = len(tokenizer)
    if settings.line_breaks:
        keep_line_breaks(tokenizer)
    lengths = _given(settings, LENGTHS)
    processor = PairRankerProcessor.for_training(tokenizer, **{**_lengths_of(where, hub), **lengths})
    dropouts = dropouts_of(settings, AutoConfig.from_pretrained(where, **hub))
    model = PairRanker.from_backbone(
        where,
        n_added_tokens=len(tokenizer) - n_tokens,
        n_positions=processor.max_pair_length,
        n_tasks=max(1, len(settings.metrics)),
        backbone_options={**dropouts, **hub},
        **_given(settings, FORM),
        **processor.special_token_ids(),
        **{name: getattr(processor, name) for name in LENGTHS},
    )
    start_from_words(model.get_input_embeddings().weight, tokenizer, n_tokens)
    return model, processor


def _lengths_of(where: str, hub: dict[str, Any]) -> dict[str, int]:
    """Return lengths for an encoder: those of PairRM, or all that its table of positions reaches."""
    positions = getattr(AutoConfig.from_pretrained(where, **hub), "max_position_embeddings", 0)
    relative = PretrainedConfig.get_config_dict(where, **hub)[0].get("model_type") == "deberta-v2"
    if relative or positions >= 2048:
        return {}
    # A little less: RoBERTa's table has rows that are no positions.
    length = positions - 2
    return {"max_pair_length": length, "max_source_length": length // 2, "max_candidate_length": length // 2}


def _given(settings: RankerSettings, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}


def _measured(trainer: PairRankerTrainer, eval_pairs: list[PreferencePair], model: PairRanker) -> dict[str, Any]:
    """Measure in both orders, and store the fitted temperature in the configuration."""
    if not eval_pairs:
        return {}
    found = trainer.evaluate()
    model.config.logit_temperature = round(found["eval_temperature"], 4)
    return {"eval": found, "sources": source_table(eval_pairs, *trainer.last_logits), "eval pairs": len(eval_pairs)}
