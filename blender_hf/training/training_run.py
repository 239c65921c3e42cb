"""The skeleton of a training run: every kind of model walks the same steps, and says how each is done."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from blender_hf.errors import BlenderError, CheckpointError, InputError, first_line
from blender_hf.loading.checkpoints import save_portable

from .fine_tuning import merged, with_lora
from .loading import data_facts, load_eval_data, load_training_data
from .run_folder import RunFolder
from .settings import LoraSettings

# Imported when they are asked for: that of a reward model needs TRL.
KINDS = {
    "ranker": "pair_ranker.RankerRun",
    "fuser": "gen_fuser.FuserRun",
    "reward-model": "reward_model.RewardModelRun",
}
# What transformers' trainers measure of any model.
TRAINER_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second")

SomeSettings = TypeVar("SomeSettings", bound=Any)
Example = TypeVar("Example", bound=Any)  # has the text of its `prompt`


class TrainingRun(ABC, Generic[SomeSettings, Example]):
    """A training run of one kind of model.

    Args:
        settings: The data, the model and what it learns; an instance of `settings_class`.
        arguments: How it is trained; an instance of `arguments_class()`.
        folder: Where everything is written.
        callbacks: Watch the training.
    """

    settings_class: ClassVar[type]

    @staticmethod
    @abstractmethod
    def arguments_class() -> type[TrainingArguments]:
        """Return the class of the trainer's arguments; raises `BlenderError` if an extra is missing."""

    def __init__(
        self, settings: SomeSettings, arguments: Any, folder: RunFolder, callbacks: Sequence[TrainerCallback] = ()
    ) -> None:
        self.settings = settings
        self.arguments = arguments
        self.folder = folder
        self.callbacks = list(callbacks)
        self.eval_examples: list[Example] = []
        self.processor: Any = None

    def train(self) -> PreTrainedModel:
        """Train a model, evaluate it, and save it with its metrics and its card; an interrupted run is resumed."""
        settings = self.settings
        self._check_settings()
        self.data, self.eval_data = load_training_data(settings), load_eval_data(settings)
        examples, self.eval_examples = self._training_examples(), self._eval_examples()
        self._check_examples()
        examples = self._teach(examples)
        set_seed(self.arguments.seed)
        with explaining_model_errors(settings.model):
            model, self.processor = self._starting_point()
        examples = self._fitting(examples, model)
        trained = self._with_adapters(model)
        for phase, chosen, changes in self._phases(examples):
            changes = {"output_dir": str(self.folder.checkpoints / phase), **changes}
            with explaining_argument_errors():
                trainer = self._trainer(trained, replace(self.arguments, **changes), chosen)
            trainer.train(resume_from_checkpoint=self.folder.last_checkpoint(phase))
        model = self._finished(merged(trained))
        metrics = self._evaluate(trainer, model) if self.eval_examples else {}
        if trainer.is_world_process_zero():
            self._save(trainer, model)
            prompts = ([example.prompt for example in found] for found in (examples, self.eval_examples))
            metrics = {**self._counts(trainer, examples), **data_facts(self.data, self.eval_data, *prompts), **metrics}
            self.folder.write_metrics(metrics)
            self.folder.write_card(self._card(metrics, examples))
        return model

    @abstractmethod
    def _training_examples(self) -> list[Example]:
        """Return what the loaded data gives to train on; raises `InputError` if that is nothing."""

    @abstractmethod
    def _eval_examples(self) -> list[Example]:
        """Return what the loaded data gives to evaluate on."""

    @abstractmethod
    def _starting_point(self) -> tuple[PreTrainedModel, Any]:
        """Load or make the model that training starts from, in training mode, and its processor."""

    @abstractmethod
    def _trainer(self, model: PreTrainedModel, arguments: Any, examples: list[Example]) -> Trainer:
        """Return the trainer of one phase."""

    @abstractmethod
    def _evaluate(self, trainer: Trainer, model: PreTrainedModel) -> dict[str, Any]:
        """Return the metrics of the finished model; called only if there is something to evaluate on."""

    @abstractmethod
    def _counts(self, trainer: Trainer, examples: list[Example]) -> dict[str, Any]:
        """Return how much the model was trained on, for `metrics.json`."""

    @abstractmethod
    def _card(self, metrics: Mapping[str, Any], examples: list[Example]) -> str:
        """Return the text of the model's card."""

    def _check_settings(self) -> None:
        """Check what the settings' own class can't, before any data is read."""

    @abstractmethod
    def _check_examples(self) -> None:
        """Check that the arguments fit what there is to evaluate on; see `check_evaluation`."""

    def _teach(self, examples: list[Example]) -> list[Example]:
        """Change examples in a way that takes long, after everything was checked."""
        return examples

    def _fitting(self, examples: list[Example], model: PreTrainedModel) -> list[Example]:
        """Return the examples that this model can be trained on."""
        return examples

    def _phases(self, examples: list[Example]) -> Iterator[tuple[str, list[Example], dict[str, Any]]]:
        """Yield each phase: its name, its examples, and the arguments that it changes."""
        yield "", examples, {}

    def _finished(self, model: PreTrainedModel) -> PreTrainedModel:
        """Change the trained model, without its adapters, before it is evaluated."""
        return model

    def _save(self, trainer: Trainer, model: PreTrainedModel) -> None:
        """Write the checkpoint."""
        save_checkpoint(model, self.processor, self.folder.path)

    def _with_adapters(self, model: PreTrainedModel) -> PreTrainedModel:
        if not isinstance(self.settings, LoraSettings):
            return model
        with explaining_argument_errors():
            return with_lora(model, self.settings)


def kind_of(name: str) -> type[TrainingRun]:
    """Return the training run of one of `KINDS`."""
    module, _, kind = KINDS[name].partition(".")
    return getattr(import_module(f".{module}", __package__), kind)


def save_checkpoint(model: PreTrainedModel, processor: Any, output: str | Path) -> None:
    """Save weights in float16 as safetensors, and everything that is needed to load them on either transformers."""
    save_portable(model.eval().to(torch.float16), processor, output)


def check_evaluation(arguments: Any, eval_examples: Sequence[Any], metrics: Collection[str] | None = None) -> None:
    """Reject an `eval_strategy` without eval data, or a `metric_for_best_model` that is never computed.

    `metrics` names what is computed besides the loss; None if only the trainer knows.
    """
    strategy = getattr(arguments.eval_strategy, "value", arguments.eval_strategy)
    if strategy == "no":
        return
    if not eval_examples:
        raise InputError(
            f"eval_strategy is {strategy}, and there is nothing to evaluate on: name data in eval_data that suits this "
            "kind of model, or remove eval_strategy"
        )
    wanted = (arguments.metric_for_best_model or "loss").removeprefix("eval_")
    if metrics is not None and wanted not in (*TRAINER_METRICS, *metrics):
        raise InputError(
            f"metric_for_best_model is {wanted!r}, which is never computed; use one of {', '.join(['loss', *metrics])}"
        )


@contextmanager
def explaining_model_errors(name: str | None) -> Iterator[None]:
    """Turn errors of libraries while the model that the settings name is loaded, or made, into one line."""
    try:
        yield
    except BlenderError:
        raise
    except ValueError as error:
        raise InputError(f"can't train from {name or 'scratch'} with these settings: {first_line(error)}") from error
    except OSError as error:
        raise CheckpointError(
            f"can't load the model {name!r}: {first_line(error)} (give a folder, or a Hub id that can be reached)"
        ) from error


@contextmanager
def explaining_argument_errors() -> Iterator[None]:
    """Turn what a trainer of transformers finds wrong with its arguments, while it is made, into one line."""
    try:
        yield
    except BlenderError:
        raise
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"can't train with these settings: {first_line(error)}") from error
