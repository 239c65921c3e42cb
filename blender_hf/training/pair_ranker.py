"""Training of a `PairRanker` from any encoder, or on from a ranker."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, Trainer, TrainingArguments

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputError
from blender_hf.modeling import PairRanker, PairRankerProcessor

from .cards import ranker_card
from .distillation import distilled
from .fine_tuning import copied_weights, interpolate
from .frozen_layers import FrozenLayers
from .pair_data import balance_lengths, balance_sources, training_pairs, unjudged_pairs
from .prompt_data import PromptDataset
from .ranker_metrics import metric_names, metrics_record
from .ranker_trainer import READINGS, PairRankerTrainer, PairRankerTrainingArguments
from .settings import PairSettings, RankerSettings
from .starting_point import starting_point
from .synthetic_negatives import CORRUPTIONS, SOURCE, synthetic_negatives
from .training_run import TrainingRun, check_evaluation

logger = logging.getLogger(__name__)


class RankerRun(TrainingRun[RankerSettings, PreferencePair]):
    """The training run of a ranker; its temperature is fitted on the eval data.

    First, if the settings say so, one pass over the shortest pairs at a constant rate: they are many for the same work,
    and a new head learns from them what to look at. Then all pairs.
    """

    settings_class = RankerSettings
    _frozen: FrozenLayers | None = None

    @staticmethod
    def arguments_class() -> type[TrainingArguments]:
        """Return the class of the trainer's arguments."""
        return PairRankerTrainingArguments

    def _check_settings(self) -> None:
        if not self.settings.model:
            raise InputError("the setting model is missing: name an encoder, or a ranker to go on from")

    def _training_examples(self) -> list[PreferencePair]:
        return training_data(self.settings, self.data.prompts)

    def _eval_examples(self) -> list[PreferencePair]:
        return evaluation_data(self.settings, self.eval_data.prompts)

    def _check_examples(self) -> None:
        check_evaluation(self.arguments, self.eval_examples, metric_names(self.eval_examples))
        if self.arguments.prediction_loss_only and self.eval_examples:
            raise InputError("prediction_loss_only=True disables the ranker's metrics; unset it or remove eval_data")

    def _teach(self, examples: list[PreferencePair]) -> list[PreferencePair]:
        """Mix the teachers' probabilities into the labels of judged pairs, and ask them about unjudged ones.

        The labels of synthetic negatives are known.
        """
        settings = self.settings
        if not settings.teachers:
            return examples
        judged = [pair for pair in examples if pair.source != SOURCE]
        unjudged: list[PreferencePair] = []
        if settings.teacher_pairs == "all":
            most, seed = settings.pairs_per_prompt, settings.sampling_seed
            unjudged = unjudged_pairs(self.data.prompts, judged, most=most, seed=seed)
            logger.info("%d judged pairs, and %d that only teachers judge", len(judged), len(unjudged))
        cache = self.folder.checkpoints / "teachers.jsonl"
        with self.arguments.main_process_first(desc="teachers' probabilities"):
            mixed = distilled(judged, settings.teachers, settings.teacher_share, cache, unjudged)
        return [*mixed, *(pair for pair in examples if pair.source == SOURCE)]

    def _starting_point(self) -> tuple[PairRanker, PairRankerProcessor]:
        model, processor = starting_point(self.settings)
        self._start = copied_weights(model) if self.settings.interpolation < 1 else {}
        return model, processor

    def _fitting(self, examples: list[PreferencePair], model: PreTrainedModel) -> list[PreferencePair]:
        """Compute the states of frozen layers, which the training reads."""
        if self.settings.frozen_layers:
            self._frozen = FrozenLayers(cast(PairRanker, model), self.settings.frozen_layers)
            model.to(self.arguments.device)
            rows = PromptDataset(examples, self.processor).rows
            with self.arguments.main_process_first(desc="states of frozen layers"):
                self._frozen.compute(rows, self.processor, self._states, bf16=self.arguments.bf16)
        return examples

    def _with_adapters(self, model: PreTrainedModel) -> PreTrainedModel:
        adapted = super()._with_adapters(model)
        if self._frozen is not None:
            self._frozen.check_trained()
        return adapted

    @property
    def _states(self) -> Path:
        return self.folder.checkpoints / "states"

    def _phases(self, examples: list[PreferencePair]) -> Iterator[tuple[str, list[PreferencePair], dict[str, Any]]]:
        short = sorted(examples, key=PreferencePair.n_characters)[: self.settings.short_pairs]
        if short:
            yield (
                "short",
                short,
                {"num_train_epochs": 1.0, "max_steps": -1, "lr_scheduler_type": "constant_with_warmup"},
            )
        yield "all", examples, {}

    def _trainer(self, model: PreTrainedModel, arguments: Any, examples: list[PreferencePair]) -> PairRankerTrainer:
        dataset = READINGS[model.config.candidate_encoding].dataset(examples, self.processor)
        if n_cut := dataset.n_truncated:
            logger.warning("%d of %d pairs are cut: they are longer than what the model reads", n_cut, len(examples))
        return PairRankerTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=self.eval_examples or None,
            processing_class=self.processor,
            frozen=self._frozen,
            callbacks=self.callbacks,
        )

    def _finished(self, model: PreTrainedModel) -> PreTrainedModel:
        if self._frozen is not None:
            self._frozen.restore()
        interpolate(model, self._start, self.settings.interpolation)
        if self.settings.final_distinct_token_weight is not None:
            model.config.distinct_token_weight = self.settings.final_distinct_token_weight
        return model

    def _evaluate(self, trainer: Trainer, model: PreTrainedModel) -> dict[str, Any]:
        """Evaluate in both orders, and store the fitted temperature in the configuration."""
        found = trainer.evaluate()
        model.config.logit_temperature = round(found["eval_temperature"], 4)
        return metrics_record(self.eval_examples, *cast(PairRankerTrainer, trainer).last_logits, found)

    def _counts(self, trainer: Trainer, examples: list[PreferencePair]) -> dict[str, Any]:
        n_truncated = cast(Any, trainer.train_dataset).n_truncated
        return {"training pairs": len(examples), "truncated pairs": n_truncated}

    def _save(self, trainer: Trainer, model: PreTrainedModel) -> None:
        super()._save(trainer, model)
        shutil.rmtree(self._states, ignore_errors=True)  # as large as it is, and of no use to a run that has ended

    def _card(self, metrics: Mapping[str, Any], examples: list[PreferencePair]) -> str:
        return ranker_card(self.folder, self.settings, examples, metrics)


def training_data(settings: PairSettings, prompts: Sequence[LabelledPrompt]) -> list[PreferencePair]:
    """Return the pairs that a ranker is trained on."""
    seed = settings.sampling_seed
    pairs = list(
        training_pairs(
            prompts,
            metrics=settings.metrics,
            sampling=settings.sampling,
            pairs_per_prompt=settings.pairs_per_prompt,
            seed=seed,
        )
    )
    if settings.balance_lengths:
        pairs = balance_lengths(pairs, seed=seed)
    pairs = balance_sources(pairs, most=settings.max_pairs_per_source, least=settings.min_pairs_per_source, seed=seed)
    if not pairs:
        raise InputError("the data has no pairs to train on: no judged pairs, or none with the scores named by metrics")
    kinds = settings.corruptions or tuple(CORRUPTIONS)
    return [*pairs, *synthetic_negatives(prompts, settings.synthetic_negatives, seed, kinds)]


def evaluation_data(settings: PairSettings, prompts: Sequence[LabelledPrompt]) -> list[PreferencePair]:
    """Return the pairs that a ranker is evaluated on."""
    pairs = training_pairs(prompts, metrics=settings.metrics)
    return balance_sources(pairs, most=settings.max_eval_pairs_per_source)
