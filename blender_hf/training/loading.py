"""Reads training data once for all models: labelled prompts of any format, with what was skipped and why."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.errors import BlenderError, CheckpointError, InputError
from blender_hf.loading.checkpoints import first_line

from .bags import Bag
from .settings import DataSettings

logger = logging.getLogger(__name__)
MOST_REASONS = 5
TRAINERS_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second")

Loaded = TypeVar("Loaded")


@dataclass
class LoadedData:
    """Prompts, and the records that could not be used.

    Args:
        prompts: The labelled prompts.
        skipped: Reasons why records were skipped, one a record.
    """

    prompts: list[LabelledPrompt] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def load_training_data(settings: DataSettings) -> LoadedData:
    """Read what a model is trained on.

    Args:
        settings: The settings.

    Returns:
        The prompts that the settings leave in.

    Raises:
        InputError: If there is no data, or with `strict` at the first record that can't be used.
    """
    loaded = _load(settings.data, settings.split, settings)
    bag = Bag(settings.bag_share, settings.bag_seed)
    wanted = [
        prompt
        for prompt in loaded.prompts
        if prompt.source not in settings.leave_out
        and (not settings.languages or prompt.lang in settings.languages)
        and prompt.item.source in bag
    ]
    if not wanted:
        raise InputError("no record is left to train on; see data, leave_out, languages and bag_share in the settings")
    return LoadedData(wanted, loaded.skipped)


def load_eval_data(settings: DataSettings) -> LoadedData:
    """Read what a model is measured on; nothing if the settings name nothing."""
    return _load(settings.eval_data, settings.eval_split, settings)


def check_evaluation(arguments: Any, measured: Sequence[Any], metrics: Collection[str] | None = None) -> None:
    """Refuse to begin a training that is to be measured on the way, on nothing or by what is not measured.

    Args:
        arguments: The trainer's.
        measured: What there is to measure on.
        metrics: What is measured besides the loss; None if only the trainer knows.

    Raises:
        InputError: If there is nothing, or no such metric as `metric_for_best_model` names.
    """
    strategy = getattr(arguments.eval_strategy, "value", arguments.eval_strategy)
    if strategy == "no":
        return
    if not measured:
        raise InputError(
            f"eval_strategy is {strategy}, and there is nothing to measure on: name data in eval_data that this model "
            "can be measured on, or leave out eval_strategy"
        )
    wanted = (arguments.metric_for_best_model or "loss").removeprefix("eval_")
    if metrics is not None and wanted not in (*TRAINERS_METRICS, *metrics):
        raise InputError(
            f"metric_for_best_model is {wanted!r}, and nothing of that name is measured; use one of "
            f"{', '.join(['loss', *metrics])}"
        )


def started(load: Callable[[], Loaded], name: str | None) -> Loaded:
    """Call what loads or makes the model that a training starts from, and turn errors of libraries into one line.

    Args:
        load: The call.
        name: The setting `model`, for the message.

    Returns:
        What the call returns.

    Raises:
        InputError: If a setting does not go with the model.
        CheckpointError: If the model can't be found or read.
    """
    try:
        return load()
    except BlenderError:
        raise
    except ValueError as error:
        raise InputError(f"can't train from {name or 'nothing'} with these settings: {first_line(error)}") from error
    except OSError as error:
        raise CheckpointError(
            f"can't load the model {name!r}: {first_line(error)} (give a folder, or a Hub id that can be reached)"
        ) from error


@contextmanager
def explaining_arguments() -> Iterator[None]:
    """Turn what a trainer of transformers says of its arguments while it is made into one line.

    Raises:
        InputError: If an argument can't be used, or names a package that is not installed.
    """
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:
        if isinstance(error, BlenderError):
            raise
        raise InputError(f"can't train with these settings: {first_line(error)}") from error


def _load(sources: Sequence[str], split: str | None, settings: DataSettings) -> LoadedData:
    loaded = LoadedData()
    skipped = None if settings.strict else loaded.skipped
    for source in sources:
        for prompt in read_labelled(source, split=split, limit=settings.limit, skipped=skipped):
            if (reason := _nothing_to_tell(prompt)) is None:
                loaded.prompts.append(prompt)
            elif skipped is None:
                raise InputError(f"{reason}; strict=false skips such records")
            else:
                skipped.append(reason)
    if loaded.skipped:
        shown = "; ".join(loaded.skipped[:MOST_REASONS])
        logger.warning("skipped %d records that can't be used: %s", len(loaded.skipped), shown)
    return loaded


def _nothing_to_tell(prompt: LabelledPrompt) -> str | None:
    """Return what is wrong with a record in which a text is said to be better than itself, and nothing else is."""
    texts, decided = prompt.item.texts, [pair for pair in prompt.pairs if pair.label != 0.5]
    if not decided or any(texts[pair.a] != texts[pair.b] for pair in decided):
        return None
    return f"{prompt.item.where}: the better and the worse answer are the same text"
