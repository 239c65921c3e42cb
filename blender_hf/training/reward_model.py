"""Training of a pointwise reward model on the same data, with TRL's `RewardTrainer`: the baseline of a pair ranker."""

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, set_seed

from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.pointwise import Pointwise
from blender_hf.engine.reward_inputs import RewardInputs, reading_length
from blender_hf.engine.reward_models import RewardModelScorer
from blender_hf.errors import BlenderError, InputError
from blender_hf.inputs import Item, make_item
from blender_hf.modeling.tokenization import load_tokenizer, pad_right

from .cards import ranker_card
from .loading import check_evaluation, explaining_arguments, load_eval_data, load_training_data, started
from .new_tokens import keep_line_breaks, start_from_words
from .pair_ranker import evaluation_data, pair_facts, training_data
from .ranker_metrics import pair_metrics, source_table
from .runs import Run
from .sampling import EpochLengthSampler, order_seed
from .settings import RewardModelSettings


def reward_config() -> type:
    """Return TRL's `RewardConfig`, the arguments of the trainer.

    Raises:
        BlenderError: If TRL is not installed.
    """
    try:
        from trl import RewardConfig
    except ImportError:
        raise BlenderError("training a reward model needs TRL: pip install 'blender-hf[train,trl]'") from None
    return RewardConfig


def train_reward_model(settings: RewardModelSettings, arguments: Any, run: Run) -> Any:
    """Train a reward model of one label and save it with its figures and its card.

    It learns from the decided pairs; TRL's loss is that of Bradley and Terry, -log sigmoid(chosen - rejected).

    Args:
        settings: What it is made of.
        arguments: A `trl.RewardConfig`.
        run: Where everything goes.

    Returns:
        The trained model.

    Raises:
        InputError: If a setting or the data can't be used.
    """
    if not settings.model:
        raise InputError("the setting model is missing: name an encoder, or a reward model to go on from")
    if settings.metrics:
        raise InputError("metrics are for a pair ranker, which learns several at once; a reward model learns one")
    data, eval_data = load_training_data(settings), load_eval_data(settings)
    pairs = _decided(training_data(settings, data.prompts))
    eval_pairs = evaluation_data(settings, eval_data.prompts)
    if not pairs:
        raise InputError("the data has no pairs to train on: all are ties, from which a reward model learns nothing")
    check_evaluation(arguments, _decided(eval_pairs))
    set_seed(arguments.seed)
    model, tokenizer = started(lambda: _starting_point(settings), settings.model)
    arguments.output_dir, arguments.max_length = str(run.checkpoints), None  # what is too long is cut by us, fairly
    arguments.remove_unused_columns = False
    with explaining_arguments():
        trainer = _trainer_class()(
            model=model,
            args=arguments,
            train_dataset=_dataset(pairs, tokenizer, model),
            eval_dataset=_dataset(_decided(eval_pairs), tokenizer, model) if _decided(eval_pairs) else None,
            processing_class=tokenizer,
            data_collator=_collator(model.config.pad_token_id),
        )
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    metrics = _measured(model, tokenizer, eval_pairs)
    if trainer.is_world_process_zero():
        trainer.save_model(str(run.folder))
        metrics |= pair_facts(data, eval_data, pairs, eval_pairs)
        run.write_metrics({"training pairs": len(pairs), **metrics})
        run.write_card(ranker_card(run, settings, pairs, metrics))
    return model


def _starting_point(settings: RewardModelSettings) -> tuple[Any, Any]:
    tokenizer = load_tokenizer(settings.model, revision=settings.revision)
    if settings.max_input_length is not None:
        tokenizer.model_max_length = settings.max_input_length
    model = AutoModelForSequenceClassification.from_pretrained(
        settings.model, num_labels=1, revision=settings.revision, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    if settings.line_breaks:
        _add_line_breaks(model, tokenizer)
    _let_alone_caches(model)
    return model, tokenizer


def _add_line_breaks(model: Any, tokenizer: Any) -> None:
    n_tokens = len(tokenizer)
    keep_line_breaks(tokenizer)
    if len(tokenizer) > n_tokens:
        model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size))
        start_from_words(model.get_input_embeddings().weight, tokenizer, n_tokens)


def _decided(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    return [pair for pair in pairs if pair.label != 0.5]


def _let_alone_caches(model: torch.nn.Module) -> None:
    """Drop TRL's `use_cache`, which it gives to every model, before an encoder of transformers 4, which knows none."""
    known = signature(model.forward).parameters.values()
    if not any(p.name == "use_cache" or p.kind is Parameter.VAR_KEYWORD for p in known):
        model.register_forward_pre_hook(_without_cache, with_kwargs=True)


def _without_cache(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {name: value for name, value in kwargs.items() if name != "use_cache"}


def _dataset(pairs: Sequence[PreferencePair], tokenizer: Any, model: Any) -> Any:
    """Return the pairs as TRL takes them when they are tokenised, cut as the model will read them when it is used."""
    from datasets import Dataset

    inputs = RewardInputs(tokenizer, reading_length(tokenizer, model.config))
    encoded = inputs.encode([_item(pair) for pair in pairs])
    rows = []
    for pair, (a, b) in zip(pairs, encoded, strict=True):
        chosen, rejected = (a, b) if pair.label > 0.5 else (b, a)
        sides = {"chosen": chosen, "rejected": rejected}
        ids = {f"{side}_ids": list(row.input_ids) for side, row in sides.items()}
        rows.append({**ids, **{f"{side}_types": list(row.token_type_ids) for side, row in sides.items()}})
    return Dataset.from_list(rows)


def _trainer_class() -> Any:
    from trl import RewardTrainer

    class GroupedByLength(RewardTrainer):
        """TRL's trainer, whose batches hold pairs of similar length, as those of a ranker's training do."""

        def _get_train_sampler(self, train_dataset: Any = None) -> EpochLengthSampler:
            rows = self.train_dataset if train_dataset is None else train_dataset
            lengths = [max(map(len, pair)) for pair in zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)]
            return EpochLengthSampler(self.args.train_batch_size, lengths, order_seed(self.args))

    return GroupedByLength


def _collator(pad_token_id: int) -> Any:
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class WithTokenTypes(DataCollatorForPreference):
        """TRL's collator, with the token types that the model will get when it is used."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            """Return a batch of the chosen and then the rejected."""
            batch = super().torch_call(examples)
            types = [example[f"{side}_types"] for side in ("chosen", "rejected") for example in examples]
            if any(types):
                batch["token_type_ids"] = pad_right(types, 0)["input_ids"]
            return batch

    return WithTokenTypes(pad_token_id)


def _item(pair: PreferencePair) -> Item:
    return make_item(pair.prompt, [pair.candidate_a, pair.candidate_b])


def _measured(model: Any, tokenizer: Any, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    if not pairs:
        return {}
    scorer = RewardModelScorer(model.eval(), tokenizer)
    found = [comparison.logit for comparison in Pointwise(scorer).compare([_item(pair) for pair in pairs])]
    both = (found, [-logit for logit in found])
    metrics = {f"eval_{name}": value for name, value in pair_metrics(pairs, *both).items()}
    return {"eval": metrics, "sources": source_table(pairs, *both), "eval pairs": len(pairs)}
