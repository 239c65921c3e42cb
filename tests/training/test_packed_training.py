"""Training on packed rows: it ends with the weights of one on whole rows, from layers that run or from states."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from blender_hf import InputError, PairRanker
from blender_hf.loading.checkpoints import BUNDLED_LLM, locate
from blender_hf.loading.low_bits import base_weights
from blender_hf.training.frozen_layers import FrozenLayers
from blender_hf.training.prompt_data import PromptDataset, TokenBatches
from blender_hf.training.prompt_rows import Arrangement, behind_prompts, packed_rows, whole_rows
from blender_hf.training.ranker_trainer import PairRankerTrainer, PairRankerTrainingArguments
from blender_hf.training.settings import RankerSettings
from blender_hf.training.starting_point import starting_point
from tests.conftest import ranker_processor

from .test_frozen_layers import separate
from .test_separate_ranker import PAIRS

SILENT = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}


def trainer_of(
    folder: Path, arrangement: Arrangement = packed_rows, frozen: bool = False, **changes: Any
) -> PairRankerTrainer:
    model, processor = separate("llama")
    layers = FrozenLayers(model, 1) if frozen else None
    if layers is not None:
        layers.arrangement = arrangement
        layers.compute(PromptDataset(PAIRS, processor).rows, processor, folder / "states", bf16=False)
    settings = {"save_strategy": "no", "learning_rate": 0.5, "optim": "sgd", "num_train_epochs": 2, **SILENT, **changes}
    given = PairRankerTrainingArguments(str(folder), **settings)
    trainer = PairRankerTrainer(model.train(), given, PAIRS, None, processor, frozen=layers)
    assert trainer.data_collator.arrangement is packed_rows or arrangement is not packed_rows
    trainer.data_collator.arrangement = arrangement
    return trainer


def same(one: PairRanker, other: PairRanker, tolerance: float) -> None:
    for (name, found), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("frozen", "other"), [(False, whole_rows), (False, behind_prompts), (True, whole_rows)])
def test_packed_rows_train_as_others_do(frozen: bool, other: Arrangement, tmp_path: Path) -> None:
    packed, apart = (trainer_of(tmp_path / kind.__name__, kind, frozen) for kind in (packed_rows, other))
    before = [weight.detach().clone() for weight in packed.model.parameters()]
    packed.train()
    apart.train()
    moved = max(
        float((weight.detach() - old).abs().max())
        for weight, old in zip(packed.model.parameters(), before, strict=True)
    )
    assert moved > 1e-3
    # States are kept in 16 bits, and those of whole rows are rounded after another order of the sums.
    same(packed.model, apart.model, 1e-3 if frozen else 1e-5)


@pytest.mark.once
def test_states_of_a_prompt_are_kept_once(tmp_path: Path) -> None:
    model, processor = separate("llama")
    rows = PromptDataset(PAIRS, processor).rows
    frozen = FrozenLayers(model, 1)
    frozen.compute(rows, processor, tmp_path, bf16=True)
    prompts = {row.prompt_ids for row in rows}
    n_states = sum(map(len, prompts)) + sum(
        len(row.candidate_ids) for row in {row.input_ids: row for row in rows}.values()
    )
    assert (tmp_path / "states.bin").stat().st_size == 2 * 32 * n_states
    group = [row for row in rows if row.prompt_ids == rows[0].prompt_ids]
    assert frozen.states_of([group]).dtype == torch.bfloat16
    # Any candidates of the prompt may be packed: those of its shortest pairs, for one.
    whole, part = frozen.states_of([group]), frozen.states_of([group[1:2]])
    n_prompt, first = len(group[0].prompt_ids), len(group[0].candidate_ids)
    assert torch.equal(part[0, :n_prompt], whole[0, :n_prompt])
    assert torch.equal(part[0, n_prompt:], whole[0, n_prompt + first :][: len(group[1].candidate_ids)])


@pytest.mark.once
def test_batches_have_as_many_prompts_as_fit() -> None:
    dataset = PromptDataset(PAIRS, ranker_processor())
    sizes = dataset.n_tokens(packed_rows)
    batches = TokenBatches(dataset, 2 * max(sizes), packed_rows, seed=3)
    assert sum(batches.lengths()) == sum(sizes)
    assert 1 < len(batches) < len(dataset)
    assert max(batches.lengths()) <= 2 * max(sizes)
    found = [
        pair for batch in map(batches.__getitem__, range(len(batches))) for example in batch for pair in example.pairs
    ]
    assert sorted(found) == sorted(dataset.row_pairs)
    assert len(TokenBatches(dataset, 1, packed_rows, seed=3)) == len(dataset), "a longer prompt is a batch"


@pytest.mark.once
def test_a_resumed_run_of_batches_by_tokens_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    by_tokens = {
        "learning_rate": 1e-3,
        "max_batch_tokens": 60,
        "per_device_train_batch_size": 1,
        "optim": "adamw_torch",
    }
    straight = trainer_of(tmp_path / "straight", frozen=True, **by_tokens)
    assert straight.train().global_step > 4
    saving = {**by_tokens, "save_strategy": "steps", "save_steps": 3}
    first = trainer_of(tmp_path / "run", frozen=True, **saving)
    first.add_callback(Stop())
    first.train()
    second = trainer_of(tmp_path / "run", frozen=True, **saving)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    same(straight.model, second.model, 0.0)


@pytest.mark.once
def test_what_max_batch_tokens_can_not_be_used_with_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_batch_tokens=9 with per_device_train_batch_size=8"):
        trainer_of(tmp_path, max_batch_tokens=9)


@pytest.mark.slow
@pytest.mark.once
def test_a_ranker_starts_from_the_bundled_language_model() -> None:
    """Its weights are of a few bits, which transformers would take for missing ones."""
    settings = RankerSettings(model=BUNDLED_LLM, candidate_encoding="separate", preference_dim=0)
    model, processor = starting_point(settings)
    expected = base_weights(locate(BUNDLED_LLM))
    backbone = model.backbone.state_dict()
    assert torch.equal(backbone["layers.29.mlp.down_proj.weight"], expected["model.layers.29.mlp.down_proj.weight"])
    n_known = len(expected["model.embed_tokens.weight"])
    assert torch.equal(backbone["embed_tokens.weight"][:n_known], expected["model.embed_tokens.weight"])
    assert len(backbone["embed_tokens.weight"]) == len(processor.tokenizer)
    with torch.no_grad():  # what is kept of the bundled model stays as it is
        model.backbone.layers[0].mlp.down_proj.weight.zero_()
    assert base_weights(locate(BUNDLED_LLM))["model.layers.0.mlp.down_proj.weight"].any()
    assert not hasattr(model.config.backbone_config, "low_bits")
