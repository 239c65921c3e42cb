"""`WinRateCallback`: how often a model in training beats what it was before, or given answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import (
    BatchEncoding,
    GenerationConfig,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from blender_hf.blender import Blender
from blender_hf.errors import BlenderError, InputError, require
from blender_hf.loading.checkpoints import DEFAULT_RANKER
from blender_hf.modeling.chat_templates import ChatTemplate
from blender_hf.modeling.conversations import as_messages

from .inputs import LazyBlender, RankerInput, completion_text, gathered

WIN_RATE, WIN_PROBABILITY = "eval_win_rate", "eval_win_probability"
# What a generation configuration says of itself.
NOT_OPTIONS = ("transformers_version", "_from_model_config")


class WinRateCallback(TrainerCallback):
    """Generates answers to some prompts at every evaluation and at the end, and compares them with references.

    It logs `eval_win_rate`, the share of prompts where the model's answer is the better one, ties counting one half,
    and `eval_win_probability`, the mean probability of it; 0.5 is as good as the references. Both are among the metrics
    of the evaluation, so `metric_for_best_model="eval_win_rate"` works. Prompts are shared among the processes.

        trainer.add_callback(WinRateCallback(trainer, num_prompts=64))

    Args:
        trainer: The trainer that it is added to.
        ranker: A `Blender`, or the name, folder or Hub id of a ranker or a reward model.
        prompts: Strings or lists of messages; None takes the column "prompt" of the trainer's evaluation data.
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
        if self._references is None:  # evaluation without training: there is nothing to beat
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
        # New adapters change nothing yet, but those of a resumed run do.
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


def generate(
    model: Any,
    accelerator: Any,
    processing_class: Any,
    prompts: Sequence[Any],
    generation_config: GenerationConfig | None,
    batch_size: int,
    seed: int,
) -> list[str]:
    """Return an answer to each prompt, the same list in every process, which each answer a share.

    Args:
        model: The model, as it was wrapped for training.
        accelerator: The trainer's `Accelerator`.
        processing_class: The trainer's tokenizer, or a processor with one; left as it is.
        prompts: Strings, continued as they are, or lists of messages, for which the chat template is applied.
        generation_config: How answers are generated; None is the model's own.
        batch_size: How many prompts are answered together.
        seed: Random seed; the run's own random numbers are left as they are.

    Raises:
        BlenderError: If TRL is not installed, or the model is sharded by FSDP, which can't generate.
    """
    unwrap_model_for_generation = require("trl.models.utils", "trl", "the win rate").unwrap_model_for_generation
    if accelerator.distributed_type == "FSDP":
        raise BlenderError(
            "the win rate can't be measured under FSDP: a model that is sharded so does not generate here"
        )
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    options = _options(generation_config)
    # Every process takes part in each batch, if only with a prompt that another answers too: where weights are in
    # parts, a model generates in all processes or in none.
    rows = -(-len(prompts) // accelerator.num_processes)
    first = accelerator.process_index * rows
    share = [prompts[index % len(prompts)] for index in range(first, first + rows)]
    answers: list[str] = []
    with unwrap_model_for_generation(model, accelerator) as unwrapped, _aside(unwrapped, seed):
        for start in range(0, rows, batch_size):
            inputs = _left_padded(tokenizer, share[start : start + batch_size]).to(accelerator.device)
            written = unwrapped.generate(**inputs, **options)
            answers += tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer for _, share in gathered(answers) for answer in share][: len(prompts)]


@contextmanager
def _aside(model: Any, seed: int) -> Iterator[None]:
    """Let a model generate in the middle of its training without a side effect on it."""
    training = model.training
    devices = [model.device.index] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        model.train(training)


def _options(generation_config: GenerationConfig | None) -> dict[str, Any]:
    """Return a configuration as options of `generate`, which override the model's own.

    Passed as a configuration, settings equal to the defaults of transformers would give way to the model's, on 4.57
    (https://github.com/huggingface/transformers/issues/42762).
    """
    if generation_config is None:
        return {}
    settings = generation_config.to_dict()
    return {k: v for k, v in settings.items() if v is not None and k not in NOT_OPTIONS}


def _left_padded(tokenizer: Any, prompts: Sequence[Any]) -> BatchEncoding:
    """Tokenize prompts, so that all end at the same place."""
    template = ChatTemplate(tokenizer)
    texts = [
        prompt
        if isinstance(prompt, str)
        else template.render(template.fitted(as_messages(prompt)), add_generation_prompt=True)
        for prompt in prompts
    ]
    # A template writes the tokens at the start itself.
    special = all(isinstance(prompt, str) for prompt in prompts)
    inputs = tokenizer(
        texts, add_special_tokens=special, padding=True, padding_side="left", return_tensors="pt", verbose=False
    )
    return BatchEncoding({name: inputs[name] for name in ("input_ids", "attention_mask")})
