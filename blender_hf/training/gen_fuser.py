"""Training of a `GenFuser` from any T5-like model, on from a fuser, or from nothing."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, set_seed

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt, check_metric
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import locate
from blender_hf.modeling import GenFuser, GenFuserProcessor

from .cards import fuser_card
from .fuser_trainer import FusionCollator, FusionDataset, GenFuserTrainer, StopAfter
from .fusion_data import FusionExample, merging_examples, reference_examples, selection_examples
from .loading import check_evaluation, explaining_arguments, load_eval_data, load_training_data, started
from .lora import merged, with_lora
from .provenance import data_facts
from .runs import Run
from .saving import save_checkpoint
from .settings import FuserSettings
from .small_fuser import MAX_CANDIDATE_LENGTH, MAX_SOURCE_LENGTH, build_model, train_tokenizer

Prompts = Sequence[LabelledPrompt]
LENGTHS = ("max_source_length", "max_candidate_length")
# What a fuser can learn: the task of the paper, and two that need no reference.
TASKS: dict[str, Callable[[Prompts, FuserSettings], Iterator[FusionExample]]] = {
    "reference": lambda prompts, settings: reference_examples(
        prompts, settings.top_k, _orders(prompts, settings), metric=settings.metric
    ),
    "selection": lambda prompts, settings: selection_examples(prompts, settings.top_k, settings.sampling_seed),
    "merging": lambda prompts, settings: merging_examples(prompts, settings.top_k, settings.sampling_seed),
}


def train_fuser(settings: FuserSettings, arguments: Seq2SeqTrainingArguments, run: Run) -> GenFuser:
    """Train a fuser and save it with its figures and its card.

    Args:
        settings: What it is made of and what it learns.
        arguments: How it is trained.
        run: Where everything goes.

    Returns:
        The trained fuser.

    Raises:
        InputError: If a setting or the data can't be used.
    """
    if unknown := set(settings.tasks) - set(TASKS):
        raise InputError(f"there is no task {', '.join(sorted(unknown))}; use {', '.join(TASKS)}")
    data, eval_data = load_training_data(settings), load_eval_data(settings)
    prompts = data.prompts
    if settings.metric is not None:
        check_metric(prompts, settings.metric)
    examples = {task: _examples(task, prompts, settings) for task in settings.tasks}
    made = [example for found in examples.values() for example in found]
    if not made:
        raise InputError(_nothing_to_learn(prompts, settings))
    held_out = [example for task in settings.tasks for example in _examples(task, eval_data.prompts, settings)]
    check_evaluation(arguments, held_out, [])
    set_seed(arguments.seed)
    model, processor = started(lambda: starting_point(settings, prompts), settings.model)
    _check_top_k(processor, settings)
    dataset = _dataset(made, model, processor, settings)
    if not len(dataset):
        raise InputError(
            f"there is nothing to train on: all {len(made)} examples are longer than max_train_tokens; raise it"
        )
    arguments.output_dir = str(run.checkpoints)
    with explaining_arguments():
        trained = with_lora(model, settings)
        trainer = GenFuserTrainer(
            model=trained,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=_dataset(held_out, model, processor, settings) if held_out else None,
            data_collator=FusionCollator(processor, model),
            callbacks=[] if settings.max_minutes is None else [StopAfter(settings.max_minutes)],
        )
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    metrics = trainer.evaluate() if held_out else {}
    model = merged(trained)
    if trainer.is_world_process_zero():
        save_checkpoint(model, processor, run.folder)
        tasks = [task for task, found in examples.items() for _ in found]
        counts = {task: sum(tasks[place] == task for place in dataset.kept) for task in examples}
        used, measured = [made[place].prompt for place in dataset.kept], [example.prompt for example in held_out]
        skipped = {"data": data.skipped, "eval_data": eval_data.skipped}
        metrics = {"too long": dataset.n_left_out, **data_facts(prompts, used, measured, skipped), **metrics}
        run.write_metrics({"training examples": counts, **metrics})
        run.write_card(fuser_card(run, settings, counts, metrics))
    return model


def _check_top_k(processor: GenFuserProcessor, settings: FuserSettings) -> None:
    if settings.top_k > processor.max_candidates:
        raise InputError(
            f"top_k={settings.top_k} candidates need as many <extra_id_k> tokens, and the tokenizer of "
            f"{settings.model} has {processor.max_candidates}: lower top_k, or add such tokens to it"
        )


def _nothing_to_learn(prompts: Prompts, settings: FuserSettings) -> str:
    if "reference" not in settings.tasks or not any(prompt.reference for prompt in prompts):
        return "there is nothing to train on: the task reference needs references, and the others judged pairs"
    known = sorted({name for prompt in prompts for name in prompt.scores})
    return (
        "there is nothing to train on: there are references, but it is not known which candidates are the best; name "
        f"a ranker, or as metric scores of the data: {', '.join(known) or 'it has none'}"
    )


def starting_point(settings: FuserSettings, prompts: Prompts) -> tuple[GenFuser, GenFuserProcessor]:
    """Load the fuser or T5 that training goes on from, or make a small one.

    Args:
        settings: What it is made of.
        prompts: The training data, whose texts a new tokenizer is made for.

    Returns:
        The fuser in training mode, float32, and its processor.
    """
    lengths = {name: getattr(settings, name) for name in LENGTHS if getattr(settings, name) is not None}
    if settings.model is not None:
        where = locate(settings.model)
        model = GenFuser.from_pretrained(where, dtype=torch.float32, revision=settings.revision, **lengths)
        return model.train(), GenFuserProcessor.from_pretrained(where, revision=settings.revision, **lengths)
    tokenizer = train_tokenizer(_texts(prompts), settings.vocab_size)
    own = {"max_source_length": MAX_SOURCE_LENGTH, "max_candidate_length": MAX_CANDIDATE_LENGTH, **lengths}
    model = build_model(tokenizer, d_model=settings.d_model, layers=settings.layers)
    for name, length in own.items():
        setattr(model.config, name, length)
    return model, GenFuserProcessor(tokenizer, **own)


def _texts(prompts: Prompts) -> Iterable[str]:
    return (text for prompt in prompts for text in (prompt.item.source, *prompt.item.texts))


def _examples(task: str, prompts: Prompts, settings: FuserSettings) -> list[FusionExample]:
    shuffled = list(prompts)
    random.Random(settings.sampling_seed).shuffle(shuffled)
    return list(islice(TASKS[task](shuffled, settings), settings.max_examples))


def _orders(prompts: Prompts, settings: FuserSettings) -> Iterator[Sequence[int]] | None:
    """Return the orders of a ranker, made as they are asked for; None takes what the data says."""
    if settings.ranker is None:
        return None
    blender = Blender.from_pretrained(settings.ranker, None)
    return (ranking.order for ranking in blender.iter_rank(prompt.item for prompt in prompts))


def _dataset(
    examples: Sequence[FusionExample], model: Any, processor: GenFuserProcessor, settings: FuserSettings
) -> FusionDataset:
    return FusionDataset(examples, processor, max_tokens=settings.max_train_tokens, by_passages=model.config.faithful)
