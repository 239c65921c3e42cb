"""`WinRateCallback`: how often a model in training beats what it was before, or given answers."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from transformers import GenerationConfig, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from blender_hf.blender import Blender
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import DEFAULT_RANKER

from .generating import generate
from .rankers import LazyBlender, RankerInput
from .texts import completion_text

WIN_RATE, WIN_PROBABILITY = "eval_win_rate", "eval_win_probability"


class WinRateCallback(TrainerCallback):
    """Generates answers to some prompts at every evaluation and at the end, and compares them with references.

    It logs `eval_win_rate`, the share of prompts where the model's answer is the better one, ties counting one half,
    and `eval_win_probability`, the mean probability of it; 0.5 is as good as the references. Both are among the metrics
    of the evaluation, so `metric_for_best_model="eval_win_rate"` works. Prompts are shared among the processes.

        trainer.add_callback(WinRateCallback(trainer, num_prompts=64))

    Args:
        trainer: The trainer that it is added to.
        ranker: A `Blender`, or the name, folder or Hub id of a ranker or a reward model.
        prompts: Texts or lists of messages; None takes the column "prompt" of the trainer's evaluation data.
        references: Answers to beat, one a prompt; None generates them when training begins, with the trainer's
            reference model if it has one, with the adapters switched off if it trains any, else with the model as it is
            then.
        num_prompts: Only so many of the prompts, the first; None takes all.
        generation_config: How answers are generated; None is as the trainer does it, if it generates, else the model's
            own.
        **options: Options of `Blender.from_pretrained` for a ranker that is a name.

    Raises:
        InputError: If there are no prompts, or not a reference for each.
    """

    def __init__(
        self,
        trainer: Any,
        ranker: RankerInput = DEFAULT_RANKER,
        *,
        prompts: Sequence[Any] | None = None,
        references: Sequence[Any] | None = None,
        num_prompts: int | None = None,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> None:
        self._trainer = trainer
        self._blender = LazyBlender(ranker, **options)
        self._prompts = list(_prompts_of(trainer) if prompts is None else prompts)[:num_prompts]
        if not self._prompts:
            raise InputError("there are no prompts to answer")
        self._references = None if references is None else [completion_text(r, "references") for r in references]
        if self._references is not None:
            self._references = self._references[:num_prompts]
            if len(self._references) != len(self._prompts):
                raise InputError(f"{len(self._references)} references for {len(self._prompts)} prompts")
        self._generation_config = generation_config
        self._measured_at = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the reference model answer."""
        if self._references is None:
            self._references = self._reference_answers(args, kwargs["processing_class"])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure, and add the result to the metrics of the evaluation."""
        if self._references is None:  # evaluated without having trained: there is nothing to beat
            return
        found = self._measure(args, state, kwargs["processing_class"])
        if metrics is not None:
            metrics.update(found)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the final model, unless an evaluation just did."""
        if self._measured_at != state.global_step:
            self._measure(args, state, kwargs["processing_class"])

    def _reference_answers(self, args: TrainingArguments, processing_class: Any) -> list[str]:
        reference = getattr(self._trainer, "ref_model", None)
        model = self._trainer.model_wrapped if reference is None else reference
        without = self._trainer.accelerator.unwrap_model(model)
        # Adapters begin as nothing, unless the training was resumed.
        adapters = without.disable_adapter() if hasattr(without, "disable_adapter") else nullcontext()
        with adapters:
            return self._answers(model, args, processing_class)

    def _answers(self, model: Any, args: TrainingArguments, processing_class: Any) -> list[str]:
        return generate(
            model,
            self._trainer.accelerator,
            processing_class,
            self._prompts,
            self._generation_config or getattr(self._trainer, "generation_config", None),
            args.per_device_eval_batch_size,
            args.seed,
        )

    def _measure(self, args: TrainingArguments, state: TrainerState, processing_class: Any) -> dict[str, float]:
        answers = self._answers(self._trainer.model_wrapped, args, processing_class)
        found = win_rates(self._blender.get(), self._prompts, answers, self._references or [])
        self._measured_at = state.global_step
        self._trainer.log(dict(found))
        return found


def win_rates(
    blender: Blender, prompts: Sequence[Any], answers: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """Return how often answers beat references, and the mean probability that they do, both 0 to 1."""
    comparisons = blender.compare(list(prompts), list(answers), list(references))
    wins = sum({"a": 1.0, "tie": 0.5, "b": 0.0}[comparison.preferred] for comparison in comparisons)
    probability = sum(comparison.probability for comparison in comparisons)
    return {WIN_RATE: wins / len(comparisons), WIN_PROBABILITY: probability / len(comparisons)}


def _prompts_of(trainer: Any) -> Sequence[Any]:
    data = trainer.eval_dataset
    if data is None or "prompt" not in (getattr(data, "column_names", None) or ()):
        raise InputError('give prompts=, or the trainer an evaluation data set with a column "prompt"')
    return data["prompt"]
