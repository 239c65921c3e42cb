"""The trainer of fusers: what a step is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from blender_hf import InputError
from blender_hf.training.fuser_trainer import (
    CausalFusionCollator,
    FusionCollator,
    FusionDataset,
    GenFuserTrainer,
    collator_for,
    token_loss,
)
from blender_hf.training.fusion_data import FusionExample
from tests.conftest import build_fuser
from tests.generation.tiny_models import build_causal_fuser

# Targets of very different lengths: a mean of the means of batches is not the mean over their tokens.
EXAMPLES = [FusionExample("p", ("a b c d", "e f g"), "word " * n) for n in (1, 2, 3, 20, 1, 2, 3, 25)]


SILENT = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
BUILDERS = {"t5": lambda: build_fuser(dropout_rate=0.0), "causal": build_causal_fuser}


def trainer_of(folder: Path, kind: str, **settings: Any) -> GenFuserTrainer:
    model, processor = BUILDERS[kind]()
    arguments = {"optim": "sgd", "learning_rate": 0.1, "save_strategy": "no", **SILENT, **settings}
    return GenFuserTrainer(
        model=model.train(),
        args=Seq2SeqTrainingArguments(str(folder), **arguments),
        train_dataset=FusionDataset(EXAMPLES, processor),
        data_collator=collator_for(processor, model),
    )


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_batches_are_one_step(smoothing: float, kind: str, tmp_path: Path) -> None:
    """Transformers 5 added the gradients of the batches up, and 4 took the mean of their means."""

    def stepped(size: int, accumulated: int) -> tuple[list[torch.Tensor], float]:
        trainer = trainer_of(
            tmp_path,
            kind,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            max_grad_norm=0.0,
            label_smoothing_factor=smoothing,
            logging_steps=1,
        )
        trainer.train()
        return [weight.detach() for weight in trainer.model.parameters()], trainer.state.log_history[0]["loss"]

    (at_once, loss), (in_parts, same_loss) = stepped(8, 1), stepped(2, 4)
    assert loss == pytest.approx(same_loss, rel=1e-3)
    for one, other in zip(at_once, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    untouched, _ = BUILDERS[kind]()
    assert not all(torch.equal(a, b) for a, b in zip(at_once, untouched.parameters(), strict=True))


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_resumed_run_ends_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2}
    straight = trainer_of(tmp_path / "straight", kind, **settings)
    straight.train()
    saving = {**settings, "save_strategy": "steps", "save_steps": 3}
    first = trainer_of(tmp_path / "run", kind, **saving)
    first.add_callback(Stop())
    first.train()
    second = trainer_of(tmp_path / "run", kind, **saving)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"template": None}])
def test_the_loss_of_a_causal_fuser_is_that_of_its_answers(options: dict[str, Any]) -> None:
    """The language model's own loss, with the prompt masked; logits are computed of the answers alone."""
    model, processor = build_causal_fuser(**options)
    dataset = FusionDataset(EXAMPLES[:4], processor)
    rows = [dataset[n] for n in range(4)]
    batch = collator_for(processor, model)(rows)
    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    assert outputs.logits.shape[1] == batch["labels"].shape[1] == batch["logits_to_keep"]
    assert batch["logits_to_keep"] < 60 < batch["input_ids"].shape[1]
    masked = [[*[-100] * len(row["input_ids"]), *row["labels"]] for row in rows]
    width = batch["input_ids"].shape[1]
    labels = torch.tensor([[*row, *[-100] * (width - len(row))] for row in masked])
    expected = model(batch["input_ids"], batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(token_loss(outputs, batch["labels"], label_smoothing=0.0), expected)
    answer = [token for token in batch["labels"][3].tolist() if token != -100]
    assert processor.decode_text(answer[:-1]) == EXAMPLES[3].target.strip()
    assert answer[-1] == processor.end_id


def test_a_model_without_a_choice_of_logits_is_trained_on_all() -> None:
    model, processor = build_causal_fuser()
    batch = CausalFusionCollator(0, nn.Linear(1, 1))([FusionDataset(EXAMPLES[:1], processor)[0]])
    outputs = model(batch["input_ids"], batch["attention_mask"])
    assert outputs.logits.shape[:2] == batch["labels"].shape
    kept = collator_for(processor, model)([FusionDataset(EXAMPLES[:1], processor)[0]])
    labels = kept.pop("labels")
    expected = token_loss(model(**kept), labels, label_smoothing=0.0)
    torch.testing.assert_close(token_loss(outputs, batch["labels"], label_smoothing=0.0), expected)


def test_generation_while_a_causal_fuser_is_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="predict_with_generate is for encoder-decoders"):
        trainer_of(tmp_path, "causal", predict_with_generate=True)


def test_the_loss_is_that_of_the_model_on_a_whole_batch() -> None:
    model, processor = build_fuser(dropout_rate=0.0)
    dataset = FusionDataset(EXAMPLES[:3], processor)
    batch = FusionCollator(processor, model)([dataset[n] for n in range(3)])
    outputs = model.eval()(**batch)
    torch.testing.assert_close(token_loss(outputs, batch["labels"], label_smoothing=0.0), outputs.loss)
    n_tokens = batch["labels"].ne(-100).sum()
    half = token_loss(outputs, batch["labels"], 2 * n_tokens, label_smoothing=0.0)
    torch.testing.assert_close(half, outputs.loss / 2)


def test_answers_are_as_long_as_the_trainer_is_told(tmp_path: Path) -> None:
    """A fuser's own settings have a length too, which won over it."""
    model, processor = build_fuser()
    lengths = {"predict_with_generate": True, "generation_max_length": 5}
    trainer = GenFuserTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(str(tmp_path), **lengths, **SILENT),
        data_collator=FusionCollator(processor, model),
    )
    dataset = FusionDataset(EXAMPLES[:2], processor)
    filled = (processor.tokenizer.pad_token_id, -100)
    for given, length in (({}, 5), ({"max_new_tokens": 3}, 3)):
        written = ~np.isin(trainer.predict(dataset, **given).predictions[:, 1:], filled)  # the first starts a decoder
        assert written.sum(axis=1).max() == length
