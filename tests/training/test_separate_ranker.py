"""Training a ranker that encodes each candidate once: prompts with all of their pairs, and what it starts from."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, TrainerCallback

from blender_hf import Blender, InputError, PairRanker
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.inputs import make_item
from blender_hf.modeling import separate_encoding
from blender_hf.training.fine_tuning import set_dropouts
from blender_hf.training.pair_data import training_pairs
from blender_hf.training.prompt_data import PromptCollator, PromptDataset
from blender_hf.training.prompt_rows import behind_prompts, whole_rows
from blender_hf.training.ranker_trainer import PairRankerTrainer, PairRankerTrainingArguments
from blender_hf.training.settings import RankerSettings, renamed
from blender_hf.training.starting_point import starting_point
from blender_hf.training.training_run import save_checkpoint
from tests.conftest import build_ranker, encoder_tokenizer, ranker_processor
from tests.forking import RUN_A_COMMAND, forked
from tests.stacks.families import config_of

from .test_training import ROOT, accuracy, same_weights, train, two_steps

SEPARATE = {"candidate_encoding": "separate", "preference_dim": 4, "pooling": "mean", "head_dropout": 0.0}
# Three pairs of one prompt, given apart, and from one to two of others.
PAIRS = [
    PreferencePair.of(f"prompt {n}", *candidates, label, "s")
    for candidates, label in ((("good", "bad"), 1.0), (("a very good one", "bad"), 0.9), (("good", "no"), 0.5))
    for n in (0, *range(1, 6 if label == 1.0 else 1 + 4 * (label == 0.9)))
]
LENGTHS = {"max_pair_length": 60, "max_source_length": 20, "max_candidate_length": 20}


def trainer_of(
    folder: Path, pairs: Any = PAIRS, eval_pairs: Any = None, shared: bool = True, **arguments: Any
) -> PairRankerTrainer:
    model, processor = build_ranker(shared_prompt=shared, **SEPARATE)
    set_dropouts(model.backbone, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    silent = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    given = PairRankerTrainingArguments(str(folder), **{"save_strategy": "no", **silent, **arguments})
    return PairRankerTrainer(model.train(), given, pairs, eval_pairs, processor)


def test_a_second_training_keeps_the_optimizer_of_the_first(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_steps=1, head_learning_rate=1e-3)
    trainer.train()
    n_groups = len(trainer.create_optimizer().param_groups)
    trainer.create_optimizer()
    assert len(trainer.create_optimizer().param_groups) == n_groups == 4


def test_the_trainer_may_make_its_model(tmp_path: Path) -> None:
    """As a search for hyperparameters wants it, with a trial or without."""
    model, processor = build_ranker(shared_prompt=True, **SEPARATE)
    arguments = PairRankerTrainingArguments(
        str(tmp_path), max_steps=1, use_cpu=True, save_strategy="no", report_to="none"
    )
    for make in (lambda: model, lambda trial: model):
        trainer = PairRankerTrainer(args=arguments, train_dataset=PAIRS, processing_class=processor, model_init=make)
        assert trainer.train().global_step == 1


def test_a_candidate_is_one_row_and_a_prompt_one_example() -> None:
    dataset = PromptDataset(PAIRS, ranker_processor())
    assert len(dataset) == 6
    assert len(dataset.rows) == len({(p.prompt, text) for p in PAIRS for text in p.item.texts})
    first = dataset[0]
    assert len(first.rows) == 4
    assert first.labels == [(1.0,), (0.9,), (0.5,)]
    assert dataset.lengths()[0] == max(map(len, first.rows.values()))


@pytest.mark.parametrize(("shared", "min_tokens"), [(False, 512), (True, 512), (True, 1)])
def test_the_loss_of_a_batch_is_the_mean_over_its_pairs(
    shared: bool, min_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few tokens a group, texts of unequal length are read apart, as long ones are on a CPU."""
    monkeypatch.setattr(separate_encoding, "MIN_TOKENS", min_tokens)
    real = torch.arange(8)[None, :] < torch.tensor([2, 8, 7])[:, None]
    assert [group.tolist() for group in separate_encoding.groups_by_length(real)] == (
        [[1, 2], [0]] if min_tokens == 1 else [[1, 2, 0]]
    )
    trainer = trainer_of(tmp_path, shared=shared)
    dataset = trainer.train_dataset
    batch = trainer.data_collator([dataset[n] for n in range(len(dataset))])
    assert ("prompt_ids" in batch) is shared
    found = trainer.compute_loss(trainer.model, dict(batch))
    of_pairs = []
    for pair in PAIRS:
        inputs = trainer.processor([pair.prompt] * 2, list(pair.item.texts))
        logit = trainer.model(**inputs, pairs=torch.tensor([[0, 1]])).logits
        of_pairs.append(functional.binary_cross_entropy_with_logits(logit, torch.tensor([pair.label])))
    torch.testing.assert_close(found, torch.stack(of_pairs).mean())


def test_prompts_are_read_with_their_candidates_where_layers_are_checkpointed(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_steps=1, **renamed({"gradient_checkpointing": True}))
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert "prompt_ids" not in batch
    trainer.train()


def stepped(folder: Path, size: int, accumulated: int) -> list[torch.Tensor]:
    step = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 1}
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
    trainer = trainer_of(folder, **step, **sizes)
    trainer.train()
    return [weight.detach() for weight in trainer.model.parameters()]


def test_accumulated_batches_weigh_each_pair_alike(tmp_path: Path) -> None:
    """Prompts have unequal numbers of pairs, so the mean of the means of small batches is not the mean of all."""
    for one, other in zip(stepped(tmp_path, 6, 1), stepped(tmp_path, 1, 6), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "learning_rate": 1e-3}
    straight = trainer_of(tmp_path / "straight", **settings)
    straight.train()
    saving = {**settings, "save_strategy": "steps", "save_steps": 4}
    first = trainer_of(tmp_path / "run", **saving)
    first.add_callback(Stop())
    first.train()
    second = trainer_of(tmp_path / "run", **saving)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_evaluation_reads_each_candidate_once(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, eval_pairs=PAIRS, per_device_eval_batch_size=3)
    rows = []
    forward = trainer.model.forward
    trainer.model.forward = lambda *args, **inputs: rows.append(len(inputs["input_ids"])) or forward(*args, **inputs)
    found = trainer.evaluate()
    assert sum(rows) == len(trainer.eval_dataset.rows)
    predicted = trainer.predict(PAIRS)
    trainer.model.forward = forward
    assert found["eval_flip_rate"] == 0
    logits = [
        result.logit for result in Blender(trainer.model, trainer.processor).iter_compare(pair.item for pair in PAIRS)
    ]
    torch.testing.assert_close(torch.tensor(predicted.predictions[0::2]), torch.tensor(logits), rtol=1e-4, atol=1e-5)
    assert (predicted.predictions[1::2] == -predicted.predictions[0::2]).all()
    labels = torch.tensor([pair.label for pair in PAIRS])
    loss = functional.binary_cross_entropy_with_logits(torch.tensor(logits), labels)
    assert found["eval_loss"] == pytest.approx(float(loss), abs=1e-5)


def saved(folder: Path, **config: Any) -> str:
    model, processor = build_ranker(**{"pooling": "mean", **config})
    save_checkpoint(model, processor, folder)
    return str(folder)


def test_a_ranker_of_pairs_becomes_a_separate_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    joint = saved(tmp_path / "joint", symmetric=True, distinct_token_weight=1.5)
    settings = RankerSettings(model=joint, candidate_encoding="separate", shared_prompt=True, preference_dim=4)
    with caplog.at_level("INFO"):
        model, processor = starting_point(settings)
    assert "for pairs that are read together: symmetric=True, distinct_token_weight=1.5" in caplog.text
    before = PairRanker.from_pretrained(joint, dtype=torch.float32).state_dict()
    after = model.state_dict()
    assert {name for name in after if name not in before} == {"head.preference.weight", "head.preference.bias"}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert 0 < after["head.preference.weight"].abs().max() < 0.2
    save_checkpoint(model, processor, tmp_path / "separate")
    again, _ = starting_point(RankerSettings(model=str(tmp_path / "separate")))
    assert (again.config.is_separate, again.config.shared_prompt, again.config.preference_dim) == (True, True, 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preference_dim": 8}, "has preference_dim=4, and can't go on with 8: leave preference_dim out"),
        ({"candidate_encoding": "joint"}, "can't go on with candidate_encoding=joint: leave it out"),
        ({"final_distinct_token_weight": 1.0}, "final_distinct_token_weight is for candidate_encoding=joint"),
        ({"max_pair_length": 4000, "max_candidate_length": 4000}, "positions"),
    ],
)
def test_what_a_separate_ranker_cannot_become_is_said(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, **SEPARATE)
    with pytest.raises((InputError, ValueError), match=said):
        starting_point(RankerSettings(model=folder, **changes))


def decoder(folder: Path, **tokens: Any) -> str:
    tokenizer = encoder_tokenizer()
    tokenizer.pad_token = None
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    AutoModel.from_config(config_of("llama", len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_decoder_is_read_at_the_last_token_and_padded_with_the_end_token(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "end", eos_token="[SEP]")
    model, processor = starting_point(RankerSettings(model=folder, candidate_encoding="separate", **LENGTHS))
    assert (model.config.pooling, processor.tokenizer.pad_token) == ("last", "[SEP]")
    dataset = PromptDataset(PAIRS, processor)
    batch = PromptCollator(processor, behind_prompts)([dataset[0], dataset[1]])
    model.eval()
    apart = model(**batch)
    rows = PromptCollator(processor, whole_rows)([dataset[0], dataset[1]])
    torch.testing.assert_close(apart.logits, model(**rows).logits, rtol=1e-4, atol=1e-5)
    assert "prompt_ids" in batch
    with pytest.raises(InputError, match="neither a padding token nor an end token"):
        starting_point(RankerSettings(model=decoder(tmp_path / "none"), candidate_encoding="separate", **LENGTHS))


def test_a_chat_model_is_trained_by_its_own_template(chat_model: Path, tmp_path: Path) -> None:
    form = {"candidate_encoding": "separate", "layout": "chat"}
    model, processor = starting_point(RankerSettings(model=str(chat_model), **form, **LENGTHS))
    language = AutoModel.from_pretrained(chat_model)
    assert len(processor.tokenizer) == len(AutoTokenizer.from_pretrained(chat_model)), "no tokens are added"
    torch.testing.assert_close(model.get_input_embeddings().weight, language.get_input_embeddings().weight)
    assert (model.config.layout, model.config.pooling, model.config.markers) == ("chat", "last", (None, None, None))
    before = [weight.detach().clone() for weight in model.parameters()]
    silent = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    given = PairRankerTrainingArguments(str(tmp_path), max_steps=2, learning_rate=1e-2, **silent)
    talk = [{"role": "system", "content": "x"}, {"role": "user", "content": "prompt 0"}]
    pairs = [*PAIRS, PreferencePair(make_item(talk, ["good", "bad"]), 1.0, "s")]
    trainer = PairRankerTrainer(model, given, pairs, pairs, processor)
    assert len(trainer.train_dataset) == 7, "a system message makes another prompt"
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] >= 0
    assert not any(map(torch.equal, model.parameters(), before))
    trainer.save_model(str(tmp_path / "saved"))
    ranking = Blender.from_pretrained(tmp_path / "saved", None, device="cpu").rank(talk, ["good", "bad"])
    with torch.no_grad():
        wanted = model.eval()(**processor([talk, talk], ["good", "bad"]), pairs=torch.tensor([[0, 1]])).logits
    assert ranking.logits[0][1] == pytest.approx(wanted.item(), abs=1e-5)
    with pytest.raises(ValueError, match="layout='chat' is for candidate_encoding='separate'"):
        starting_point(RankerSettings(model=str(chat_model), layout="chat"))
    with pytest.raises(InputError, match=r"has layout=chat, and can't go on with layout=markers"):
        starting_point(RankerSettings(model=str(tmp_path / "saved"), layout="markers"))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_separate_ranker_learns_and_is_trained_on(
    data: Path, ranker_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("candidate_encoding=separate", "shared_prompt=true", "preference_dim=4", "pooling=mean", "dropout=0.0")
    killed = (*settings, "short_pairs=12", "per_device_train_batch_size=8", "save_steps=3", "head_learning_rate=5e-3")
    assert train(ranker_config, *killed, f"output_dir={tmp_path / 'straight'}") == 0
    metrics = json.loads((tmp_path / "straight" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval"]["eval_flip_rate"] == 0
    assert metrics["eval"]["eval_accuracy"] > 0.9
    assert metrics["training pairs"] > 20
    process = forked(RUN_A_COMMAND, "train", "ranker", "--config", str(ranker_config), "--set", *killed)
    while not list((tmp_path / "run" / "trainer" / "all").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it saved a checkpoint"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert train(ranker_config, *killed, resume=True) == 0
    same_weights(tmp_path / "straight", tmp_path / "run")
    going_on = (f"output_dir={tmp_path / 'second'}", f"model={tmp_path / 'run'}", "num_train_epochs=1")
    assert train(ranker_config, *going_on, "interpolation=0.5") == 0
    assert accuracy(tmp_path / "second", data) > 0.9
    capsys.readouterr()
    assert train(ranker_config, *going_on, "preference_dim=2", f"output_dir={tmp_path / 'third'}") == 2
    assert "leave preference_dim out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("changes", [(), ("frozen_layers=1",)])
def test_adapters_go_above_frozen_layers(changes: tuple[str, ...], ranker_config: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings = ("candidate_encoding=separate", "preference_dim=4", "pooling=mean", "num_train_epochs=2", *changes)
    assert train(ranker_config, *settings, "lora_rank=4", "learning_rate=1e-2", "eval_data=[]") == 0
    before = starting_point(RankerSettings(model=str(json.loads(ranker_config.read_text())["model"])))[0].state_dict()
    after = PairRanker.from_pretrained(tmp_path / "run", dtype=torch.float32).state_dict()
    layers = [f"backbone.encoder.layer.{n}.attention.self.query.weight" for n in (0, 1)]
    changed = [(before[name].half().float() - after[name]).abs().max() > 1e-3 for name in layers]
    assert changed == [not changes, True]
    assert after["head.dense.bias"].abs().max() > 1e-3, "it begins with zeros, and is trained whole"


@pytest.mark.slow
def test_layers_that_are_frozen_take_no_adapters(ranker_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    settings = ("candidate_encoding=separate", "pooling=mean", "frozen_layers=1", "lora_rank=4")
    assert train(ranker_config, *settings, "lora_target_modules=[query]") == 2
    assert "names layers that frozen_layers=1 freezes" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_on_their_shares_of_the_prompts(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    """The first step reads prompts apart; the second has states that one process computes and both read."""
    steps = two_steps(ranker_config, tmp_path, frozen_layers=1)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launched, "-m", "blender_hf", "train", "ranker", "--config", str(steps), "--json", "--set"]
    settings = ["1.candidate_encoding=separate", "1.shared_prompt=true", "1.pooling=mean", "1.num_train_epochs=2"]
    done = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    n_pairs = len(list(training_pairs(read_labelled(data))))
    assert found["sources"]["mean over sources"]["pairs"] == n_pairs, "each is measured once"
    assert found["eval"]["eval_accuracy"] == pytest.approx(accuracy(tmp_path / "second", data), abs=0.05)
