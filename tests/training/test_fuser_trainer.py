"""The trainer of fusers: what a step is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainingArguments

from blender_hf.training.fuser_trainer import FusionCollator, FusionDataset, GenFuserTrainer, token_loss
from blender_hf.training.fusion_data import FusionExample
from tests.conftest import build_fuser

# Targets of very different lengths: a mean of the means of batches is not the mean over their tokens.
EXAMPLES = [FusionExample("p", ("a b c d", "e f g"), "word " * n) for n in (1, 2, 3, 20, 1, 2, 3, 25)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_batches_are_one_step(smoothing: float, tmp_path: Path) -> None:
    """Transformers 5 added the gradients of the batches up, and 4 took the mean of their means."""

    def stepped(size: int, accumulated: int) -> tuple[list[torch.Tensor], float]:
        model, processor = build_fuser(dropout_rate=0.0)
        arguments = Seq2SeqTrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            label_smoothing_factor=smoothing,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GenFuserTrainer(
            model=model.train(),
            args=arguments,
            train_dataset=FusionDataset(EXAMPLES, processor),
            data_collator=FusionCollator(processor, model),
        )
        trainer.train()
        return [weight.detach() for weight in model.parameters()], trainer.state.log_history[0]["loss"]

    (at_once, loss), (in_parts, same_loss) = stepped(8, 1), stepped(2, 4)
    assert loss == pytest.approx(same_loss, rel=1e-3)
    for one, other in zip(at_once, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    untouched, _ = build_fuser(dropout_rate=0.0)
    assert not all(torch.equal(a, b) for a, b in zip(at_once, untouched.parameters(), strict=True))


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
    silent = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    trainer = GenFuserTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(str(tmp_path), **lengths, **silent),
        data_collator=FusionCollator(processor, model),
    )
    dataset = FusionDataset(EXAMPLES[:2], processor)
    filled = (processor.tokenizer.pad_token_id, -100)
    for given, length in (({}, 5), ({"max_new_tokens": 3}, 3)):
        written = ~np.isin(trainer.predict(dataset, **given).predictions[:, 1:], filled)  # the first starts a decoder
        assert written.sum(axis=1).max() == length
