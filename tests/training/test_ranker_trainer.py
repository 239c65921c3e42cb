"""The trainer of rankers: which candidate is presented first, what it takes as pairs, and what a step is."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import TrainerCallback

from blender_hf import Blender, InputError
from blender_hf.data.preferences import PreferencePair
from blender_hf.errors import InputTypeError
from blender_hf.training.fine_tuning import set_dropouts
from blender_hf.training.ranker_trainer import (
    BetterFirstSampler,
    PairCollator,
    PairDataset,
    PairRankerTrainer,
    PairRankerTrainingArguments,
)
from tests.conftest import build_ranker, ranker_processor

# Every other pair has the better candidate as a.
PAIRS = [
    PreferencePair.of(f"prompt {n}", *(("good", "bad") if n % 2 else ("bad", "good")), float(n % 2), "s")
    for n in range(12)
]
ROWS = [{"prompt": f"prompt {n}", "chosen": "good", "rejected": "bad"} for n in range(6)]


def trainer_of(
    folder: Path, pairs: Any = PAIRS, eval_pairs: Any = None, compute_metrics: Any = None, **arguments: Any
) -> PairRankerTrainer:
    model, processor = build_ranker(head_dropout=0.0)
    set_dropouts(model.backbone, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    silent = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    given = PairRankerTrainingArguments(str(folder), **{"save_strategy": "no", **silent, **arguments})
    return PairRankerTrainer(model.train(), given, pairs, eval_pairs, processor, compute_metrics=compute_metrics)


class Seen(PairCollator):
    """Notes of each batch that is trained on which pair of labels it has."""

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        self.batches: list[tuple[tuple[int, ...], ...]] = []
        self.first_is_better: list[list[bool]] = []

    def __call__(self, examples: Any) -> dict[str, torch.Tensor]:
        self.batches.append(tuple(tuple(example["input_ids"]) for example in examples))
        self.first_is_better.append([example["labels"][0] == 1 for example in examples])
        return super().__call__(examples)


def test_of_several_processes_one_writes_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wrote the files of the processor too, one while another read them."""
    trainer = trainer_of(tmp_path / "run")
    monkeypatch.setattr(PairRankerTrainingArguments, "should_save", False)
    trainer.save_model(str(tmp_path / "other"))
    assert not list(tmp_path.rglob("*.json"))
    monkeypatch.setattr(PairRankerTrainingArguments, "should_save", True)
    trainer.save_model(str(tmp_path / "other"))
    assert (tmp_path / "other" / "processor_config.json").is_file()


def test_a_place_chooses_which_candidate_is_presented_first() -> None:
    dataset = PairDataset(PAIRS[:2], ranker_processor())
    for row in (0, 1):
        assert dataset[row, True]["labels"] == [1.0]
        assert dataset[row, False]["labels"] == [0.0]
        assert dataset[row, True]["input_ids"] != dataset[row, False]["input_ids"]
        assert dataset[row] == dataset[row, bool(row)]
    soft = PairDataset([PreferencePair.of("p", "a", "b", 0.25, "s")], ranker_processor())
    assert (soft[0, True]["labels"], soft[0, False]["labels"]) == ([0.75], [0.25])


@pytest.mark.parametrize(("batch_size", "accumulated"), [(1, 1), (1, 4), (3, 1), (3, 2), (4, 1)])
def test_the_better_candidate_is_first_in_half_of_the_pairs(tmp_path: Path, batch_size: int, accumulated: int) -> None:
    """It was first in every pair of a batch of one, so that a ranker could learn to like the place."""
    sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulated}
    trainer = trainer_of(tmp_path, num_train_epochs=2, **sizes)
    seen = trainer.data_collator = Seen(trainer.processor)
    trainer.train()
    places = [first for batch in seen.first_is_better for first in batch]
    for epoch in (places[:12], places[12:]):
        assert sum(epoch) == 6
    size = batch_size * accumulated
    steps = [places[n : n + size] for n in range(0, len(places), size)]
    assert max(abs(2 * sum(step) - len(step)) for step in steps) <= 1


def test_a_row_is_presented_in_both_ways_over_the_epochs() -> None:
    sampler = BetterFirstSampler(1, [5] * 4, seed=3)
    ways: dict[int, Counter[bool]] = {row: Counter() for row in range(4)}
    for epoch in range(40):
        sampler.set_epoch(epoch)
        for row, better_first in sampler:
            ways[row][better_first] += 1
    assert all(8 < count[True] < 32 for count in ways.values())
    sampler.set_epoch(7)
    again = BetterFirstSampler(1, [5] * 4, seed=3)
    again.set_epoch(7)
    assert list(sampler) == list(again), "a run that is resumed would see other pairs"


def test_a_resumed_run_goes_on_with_the_presentations_that_are_left(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    settings = {"per_device_train_batch_size": 1, "num_train_epochs": 2, "learning_rate": 1e-3}
    saving = {**settings, "save_strategy": "steps", "save_steps": 17}
    straight = trainer_of(tmp_path / "straight", **settings)
    straight.data_collator = Seen(straight.processor)
    straight.train()
    first = trainer_of(tmp_path / "run", **saving)
    first.add_callback(Stop())
    first.train()
    second = trainer_of(tmp_path / "run", **saving)
    second.data_collator = Seen(second.processor)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-17"))
    assert second.data_collator.batches[-7:] == straight.data_collator.batches[17:]
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    def stepped(size: int, accumulated: int) -> list[torch.Tensor]:
        step = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 1}
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        trainer = trainer_of(tmp_path, PAIRS[:8], **step, **sizes)
        trainer.train()
        return [weight.detach() for weight in trainer.model.parameters()]

    for one, other in zip(stepped(8, 1), stepped(2, 4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def generated() -> Iterator[PreferencePair]:
    yield from PAIRS


@pytest.mark.parametrize(
    "data",
    [ROWS, datasets.Dataset.from_list(ROWS), iter(ROWS), generated()],
    ids=["list", "dataset", "iterator", "generator"],
)
def test_any_records_and_any_iterable_are_pairs(data: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, data, max_steps=1)
    assert {frozenset((pair.candidate_a, pair.candidate_b)) for pair in trainer.train_dataset.pairs} == {
        frozenset(("good", "bad"))
    }
    trainer.train()


def test_what_is_no_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputTypeError, match="not str; a file is read with"):
        trainer_of(tmp_path, "pairs.jsonl")
    with pytest.raises(InputError, match=r"record 0: .*nothing to compare it with"):
        trainer_of(tmp_path, [{"text": "a"}])
    with pytest.raises(InputError, match="nothing to evaluate on"):
        trainer_of(tmp_path).evaluate()


def test_several_sets_are_evaluated_by_their_names(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path, eval_pairs={"one": PAIRS[:4], "two": ROWS}, eval_strategy="steps", eval_steps=1, max_steps=1
    )
    trainer.train()
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert {"eval_one_accuracy", "eval_two_accuracy"} <= logged
    found = trainer.evaluate()
    assert {"eval_one_flip_rate", "eval_two_flip_rate"} <= set(found)


def test_predictions_and_evaluations_go_in_any_order(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, eval_pairs=PAIRS[:5])
    before = trainer.predict(PAIRS)
    measured = trainer.evaluate()
    after = trainer.predict(PAIRS)
    assert before.predictions.shape == (24,)
    assert before.metrics["test_accuracy"] == after.metrics["test_accuracy"]
    assert (before.predictions == after.predictions).all()
    assert trainer.evaluate()["eval_accuracy"] == measured["eval_accuracy"]


def test_what_a_trainer_saves_is_a_whole_ranker(tmp_path: Path) -> None:
    class Given(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.processor = kwargs["processing_class"]

    trainer = trainer_of(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    watcher = Given()
    trainer.add_callback(watcher)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("saved", "checkpoint-1"):
        assert Blender.from_pretrained(tmp_path / folder, None).rank("prompt", ["good", "bad"])
    assert watcher.processor is trainer.processor


def test_metrics_of_ones_own_are_reported_too(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, eval_pairs=PAIRS[:3], compute_metrics=lambda said: {"mine": len(said.predictions)})
    for found in (trainer.evaluate(), trainer.predict(PAIRS[:3], metric_key_prefix="eval").metrics):
        assert found["eval_mine"] == 6, "both orders of three pairs"
        assert "eval_accuracy" in found
    with pytest.raises(InputError, match="batch_eval_metrics"):
        trainer_of(tmp_path, batch_eval_metrics=True)


def test_label_smoothing_draws_labels_towards_a_half(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, label_smoothing_factor=0.2)
    dataset = PairDataset(PAIRS[:4], trainer.processor)
    batch = trainer.data_collator([dataset[n] for n in range(4)])
    smooth = {**batch, "labels": batch["labels"] * 0.8 + 0.1}
    model = trainer.model.train()
    torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), model(**smooth).loss)
    model.eval()
    torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), model(**batch).loss)
    trainer.args.max_steps = 1
    trainer.train()


def test_the_order_of_the_data_has_a_seed_of_its_own(tmp_path: Path) -> None:
    orders = [
        list(trainer_of(tmp_path, **seeds)._get_train_sampler())
        for seeds in ({"seed": 1}, {"seed": 1, "data_seed": 2}, {"seed": 2})
    ]
    assert orders[0] != orders[1] == orders[2]
