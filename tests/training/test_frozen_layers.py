"""Frozen layers: what a training from their states on disk computes, and what is kept on the disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import set_seed

from blender_hf import InputError, PairRanker, PairRankerConfig, PairRankerProcessor
from blender_hf.errors import CheckpointError
from blender_hf.training.fine_tuning import set_dropouts
from blender_hf.training.frozen_layers import WHOLE, FrozenLayers
from blender_hf.training.prompt_data import PromptCollator, PromptDataset, mean_over_pairs
from blender_hf.training.prompt_rows import whole_rows
from blender_hf.training.ranker_trainer import PairRankerTrainer, PairRankerTrainingArguments
from tests.conftest import LENGTHS, build_ranker, ranker_processor
from tests.generation.tiny_models import build_chat_ranker
from tests.stacks.families import config_of

from .test_separate_ranker import PAIRS, SEPARATE
from .test_training import same_weights, train


def separate(kind: str) -> tuple[PairRanker, PairRankerProcessor]:
    if kind == "chat":
        return build_chat_ranker(preference_dim=4, head_dropout=0.0)
    if kind != "llama":
        return build_ranker(kind, **SEPARATE)
    set_seed(0)
    processor = ranker_processor()
    config = config_of(kind, len(processor.tokenizer))
    form = {**SEPARATE, **processor.special_token_ids(), **LENGTHS, "pooling": "last"}
    return PairRanker(PairRankerConfig(backbone_config=config, **form)), processor


def gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    inputs = dict(batch)
    loss = mean_over_pairs(model(**inputs), inputs.pop("labels"), None)
    loss.backward()
    return loss.detach(), {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("n_layers", [1, WHOLE])
@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert", "llama", "chat"])
def test_states_from_the_disk_give_the_gradients_of_layers_that_are_run(
    kind: str, n_layers: int, tmp_path: Path
) -> None:
    """The frozen layers have dropout, which would be seen."""
    (model, processor), (other, _) = separate(kind), separate(kind)
    dataset = PromptDataset(PAIRS, processor)
    examples = [dataset[n] for n in range(len(dataset))]
    frozen = FrozenLayers(model, n_layers)
    for name, weight in other.named_parameters():
        weight.requires_grad = model.get_parameter(name).requires_grad
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert len(trained) < len(list(model.parameters()))
    assert frozen.compute(dataset.rows, processor, tmp_path, bf16=False) is None
    for part in (model, other):
        set_dropouts(part.backbone, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
        part.head.requires_grad_(False).dense.weight.mul_(0.1)  # as large as that of a new head
        part.head.requires_grad_(True)
        part.train()
    for layer in model.backbone.modules():
        below = layer in frozen._layers or n_layers == WHOLE
        for dropout in layer.modules() if below else ():
            if isinstance(dropout, nn.Dropout):
                dropout.p = 0.5
    batch = PromptCollator(processor, frozen.arrangement, frozen=frozen)(examples)
    assert batch["states"].dtype == torch.float16
    frozen.states = batch.pop("states")
    expected_loss, expected = gradients(other, dict(batch))
    loss, found = gradients(model, dict(batch))
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-4)
    assert found.keys() == expected.keys() == trained
    for name in trained:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    frozen.restore()
    model.eval()
    other.eval()
    whole = PromptCollator(processor, whole_rows)(examples)
    assert torch.equal(model(**whole).logits, other(**whole).logits), "its own layers run again"


def test_what_a_kill_left_is_completed_and_another_encoder_refused(tmp_path: Path) -> None:
    model, processor = separate("bert")
    rows = PromptDataset(PAIRS, processor).rows
    frozen = FrozenLayers(model, 1)
    frozen.compute(rows[:3], processor, tmp_path, bf16=False)
    before = (tmp_path / "states.bin").read_bytes()
    (tmp_path / "states.bin").write_bytes(before + b"torn")
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"rows": {"0a')
    again = FrozenLayers(separate("bert")[0], 1)
    again.compute(rows, processor, tmp_path, bf16=False)
    assert (tmp_path / "states.bin").read_bytes()[: len(before)] == before
    straight = FrozenLayers(separate("bert")[0], 1)
    straight.compute(rows, processor, tmp_path / "straight", bf16=False)
    for row in rows:
        torch.testing.assert_close(again.states_of([[row]]), straight.states_of([[row]]), rtol=1e-2, atol=1e-3)
    longer = ranker_processor(max_candidate_length=9)
    cut = PromptDataset(PAIRS, longer).rows
    assert {row.input_ids for row in cut} - {row.input_ids for row in rows}, "some rows are cut"
    again.compute(cut, longer, tmp_path, bf16=False)
    assert len(again.states_of([cut])) == len(cut)
    other, _ = build_ranker("bert", seed=1, **SEPARATE)
    for changed in (FrozenLayers(other, 1), FrozenLayers(separate("bert")[0], 2)):
        with pytest.raises(CheckpointError, match="another revision of the encoder than the cache was made with"):
            changed.compute(rows, processor, tmp_path, bf16=False)


def test_a_trainer_reads_states_and_evaluates_with_the_layers(tmp_path: Path) -> None:
    model, processor = separate("bert")
    frozen = FrozenLayers(model, 1)
    frozen.compute(PromptDataset(PAIRS, processor).rows, processor, tmp_path / "states", bf16=False)
    silent = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    given = PairRankerTrainingArguments(
        str(tmp_path), eval_strategy="steps", eval_steps=1, max_steps=2, learning_rate=1e-2, **silent
    )
    below = model.backbone.encoder.layer[0].attention.self.query.weight
    above = model.backbone.encoder.layer[1].attention.self.query.weight
    before = below.detach().clone(), above.detach().clone()
    others = [pair.swapped() for pair in PAIRS]
    PairRankerTrainer(model.train(), given, PAIRS, others, processor, frozen=frozen).train()
    assert torch.equal(below, before[0])
    assert not torch.equal(above, before[1])


@pytest.mark.parametrize(
    ("n_layers", "said"),
    [(9, "frozen_layers=9, and the bert has 2 layers; use -1 for all")],
)
def test_what_can_not_be_frozen_is_said(n_layers: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        FrozenLayers(separate("bert")[0], n_layers)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["1", "-1"])
def test_a_run_with_frozen_layers_goes_on_and_leaves_no_states(
    frozen: str, ranker_config: Path, tmp_path: Path
) -> None:
    settings = ("candidate_encoding=separate", "pooling=mean", f"frozen_layers={frozen}", "num_train_epochs=2")
    chosen = (*settings, "per_device_train_batch_size=8", "save_steps=3")
    assert train(ranker_config, *chosen) == 0
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert not (run / "trainer" / "states").exists()
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["eval"]["eval_loss"] > 0
    shutil.copytree(run, straight)
    for path in [
        run / "README.md",
        *sorted((run / "trainer" / "all").iterdir(), key=lambda path: path.stat().st_mtime)[1:],
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert train(ranker_config, *chosen, resume=True) == 0
    same_weights(straight, run)


def test_frozen_layers_are_for_separate_encodings(ranker_config: Path, capsys: Any) -> None:
    assert train(ranker_config, "frozen_layers=1") == 2
    assert "frozen_layers is for candidate_encoding=separate" in capsys.readouterr().err
    assert train(ranker_config, "frozen_layers=-1", "lora_rank=4") == 2
    assert "leaves lora_rank nothing to adapt" in capsys.readouterr().err
