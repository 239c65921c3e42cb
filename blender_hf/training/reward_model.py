"""Training of a pointwise reward model on the same data, with TRL's `RewardTrainer`: the baseline of a pair ranker."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Trainer, TrainingArguments

from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.model_state import n_token_types, reads_end
from blender_hf.engine.pointwise import Pointwise
from blender_hf.engine.reward_model import RewardInputs, RewardModelScorer, check_end, reading_length
from blender_hf.errors import InputError, require
from blender_hf.loading.checkpoints import pick_attention
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenization import pad_right
from blender_hf.modeling.tokenizer_files import load_tokenizer

from .cards import ranker_card
from .fine_tuning import add_line_break_token, initialise_new_tokens
from .length_grouped import LengthGroupedTrainer
from .pair_ranker import evaluation_data, training_data
from .ranker_metrics import metrics_record, pair_metrics
from .settings import RewardModelSettings
from .training_run import TrainingRun, check_evaluation


class RewardModelRun(TrainingRun[RewardModelSettings, PreferencePair]):
    """The training run of a reward model with one label.

    It learns from the decided pairs; TRL's loss is that of Bradley and Terry, -log sigmoid(chosen - rejected).
    """

    settings_class = RewardModelSettings

    @staticmethod
    def arguments_class() -> type[TrainingArguments]:
        """Return TRL's `RewardConfig`; raises `BlenderError` if TRL is not installed."""
        config: type[TrainingArguments] = require("trl", "train,trl", "training a reward model").RewardConfig
        return config

    def _check_settings(self) -> None:
        if not self.settings.model:
            raise InputError("the setting model is missing: name an encoder, or a reward model to go on from")
        if self.settings.metrics:
            raise InputError("metrics are for a pair ranker, which learns several at once; a reward model learns one")

    def _training_examples(self) -> list[PreferencePair]:
        pairs = _decided(training_data(self.settings, self.data.prompts))
        if not pairs:
            raise InputError(
                "the data has no pairs to train on: all are ties, from which a reward model learns nothing"
            )
        return pairs

    def _eval_examples(self) -> list[PreferencePair]:
        return evaluation_data(self.settings, self.eval_data.prompts)

    def _check_examples(self) -> None:
        check_evaluation(self.arguments, _decided(self.eval_examples))

    def _starting_point(self) -> tuple[PreTrainedModel, Any]:
        settings = self.settings
        tokenizer = load_tokenizer(settings.model, revision=settings.revision)
        if settings.max_input_length is not None:
            tokenizer.model_max_length = settings.max_input_length
        model = AutoModelForSequenceClassification.from_pretrained(
            settings.model,
            config=load_config(settings.model, num_labels=1, revision=settings.revision),
            revision=settings.revision,
            dtype=torch.float32,
            **pick_attention(settings.attn_implementation),
        )
        model.config.pad_token_id = tokenizer.pad_token_id
        if settings.line_breaks:
            _add_line_breaks(model, tokenizer)
        _ignore_use_cache(model)
        return model, tokenizer

    def _trainer(self, model: PreTrainedModel, arguments: Any, examples: list[PreferencePair]) -> Trainer:
        arguments.max_length = None  # long inputs are cut here, as the model will read them when it is used
        decided = _decided(self.eval_examples)
        return _trainer_class()(
            model=model,
            args=arguments,
            train_dataset=_dataset(examples, self.processor, model),
            eval_dataset=_dataset(decided, self.processor, model) if decided else None,
            processing_class=self.processor,
            data_collator=_collator(model.config.pad_token_id),
            callbacks=self.callbacks,
        )

    def _evaluate(self, trainer: Trainer, model: PreTrainedModel) -> dict[str, Any]:
        ranker = Pointwise(RewardModelScorer(model, self.processor))
        logits = [comparison.logit for comparison in ranker.compare([pair.item for pair in self.eval_examples])]
        both_orders = (logits, [-logit for logit in logits])
        found = {f"eval_{name}": value for name, value in pair_metrics(self.eval_examples, *both_orders).items()}
        return metrics_record(self.eval_examples, *both_orders, found)

    def _save(self, trainer: Trainer, model: PreTrainedModel) -> None:
        trainer.save_model(str(self.folder.path))

    def _counts(self, trainer: Trainer, examples: list[PreferencePair]) -> dict[str, Any]:
        return {"training pairs": len(examples)}

    def _card(self, metrics: Mapping[str, Any], examples: list[PreferencePair]) -> str:
        return ranker_card(self.folder, self.settings, examples, metrics)


def _add_line_breaks(model: PreTrainedModel, tokenizer: Any) -> None:
    n_tokens = len(tokenizer)
    add_line_break_token(tokenizer)
    if len(tokenizer) > n_tokens:
        model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size))
        initialise_new_tokens(model.get_input_embeddings(), tokenizer, n_tokens)


def _decided(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    return [pair for pair in pairs if pair.label != 0.5]


def _ignore_use_cache(model: PreTrainedModel) -> None:
    """Drop `use_cache`, which TRL gives to every model, where an encoder of transformers 4 does not take it."""
    known = signature(model.forward).parameters.values()
    if not any(p.name == "use_cache" or p.kind is Parameter.VAR_KEYWORD for p in known):
        model.register_forward_pre_hook(_without_cache, with_kwargs=True)


def _without_cache(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {name: value for name, value in kwargs.items() if name != "use_cache"}


def _dataset(pairs: Sequence[PreferencePair], tokenizer: Any, model: PreTrainedModel) -> Any:
    """Return a `datasets.Dataset` of tokenised pairs for TRL, cut as the model will read them when it is used."""
    from datasets import Dataset

    inputs = RewardInputs(tokenizer, reading_length(tokenizer, model.config), n_token_types(model))
    if reads_end(model):
        check_end(model.config, inputs)
    rows: list[dict[str, list[int]]] = []
    for pair, (a, b) in zip(pairs, inputs.encode([pair.item for pair in pairs]), strict=True):
        chosen, rejected = (a, b) if pair.label > 0.5 else (b, a)
        sides = {"chosen": chosen, "rejected": rejected}
        ids = {f"{side}_ids": list(row.input_ids) for side, row in sides.items()}
        rows.append({**ids, **{f"{side}_types": list(row.token_type_ids) for side, row in sides.items()}})
    return Dataset.from_list(rows)


def _trainer_class() -> Any:
    from trl import RewardTrainer

    class LengthGroupedRewardTrainer(LengthGroupedTrainer, RewardTrainer):
        def lengths_of(self, dataset: Any) -> list[int]:
            return [max(map(len, sides)) for sides in zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)]

    return LengthGroupedRewardTrainer


def _collator(pad_token_id: int) -> Any:
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class WithTokenTypes(DataCollatorForPreference):
        """TRL's collator, with the token types that the model will get when it is used.

        `input_ids`, `attention_mask` and, for a tokenizer that has them, `token_type_ids`: (2 * batch, length), the
        chosen answers and then the rejected ones.
        """

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            batch = super().torch_call(examples)
            types = [example[f"{side}_types"] for side in ("chosen", "rejected") for example in examples]
            if any(types):
                batch["token_type_ids"] = pad_right(types, 0)["input_ids"]
            return batch

    return WithTokenTypes(pad_token_id)
