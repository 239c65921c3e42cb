"""`blender-hf train` at the smallest scale, and the checkpoints, metrics and cards that it writes."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from blender_hf import Blender, GenFuser, GenFuserProcessor, InputError, PairRanker
from blender_hf.blender import make_items
from blender_hf.cli.main import main
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.modeling.segmentation import split_segments
from blender_hf.training import checkpoint, gen_fuser
from blender_hf.training.fine_tuning import copied_weights, interpolate
from blender_hf.training.fuser_trainer import FusionCollator, FusionDataset
from blender_hf.training.fusion_data import FusionExample
from blender_hf.training.loading import load_training_data
from blender_hf.training.pair_data import training_pairs
from blender_hf.training.ranker_metrics import fitted_temperature
from blender_hf.training.ranker_trainer import PairDataset
from blender_hf.training.settings import RankerSettings
from blender_hf.training.starting_point import starting_point
from blender_hf.training.training_run import save_checkpoint
from tests.conftest import build_fuser, encoder_tokenizer, ranker_processor
from tests.forking import RUN_A_COMMAND, forked
from tests.generation.tiny_models import save_chat_model
from tests.stacks.families import config_of

ROOT = Path(__file__).parents[2]
ADAPTERS = ["lora_rank=8", "learning_rate=1e-2", "gradient_checkpointing=true"]


def train(config: Path, *settings: str, kind: str = "ranker", resume: bool = False) -> int:
    options = ["--set", *settings] if settings else []
    return main(["train", kind, "--config", str(config), *(["--resume"] if resume else []), *options])


def run_config(folder: Path, **settings: object) -> Path:
    """Write the settings of a run, whose folder is `run` beside them."""
    path = folder / "run.yaml"
    path.write_text(json.dumps({"output_dir": str(folder / "run"), **settings}), encoding="utf-8")  # JSON is YAML
    return path


def accuracy(ranker: Path, data: Path) -> float:
    pairs = list(training_pairs(read_labelled(data)))
    results = Blender.from_pretrained(ranker, None).iter_compare(pair.item for pair in pairs)
    return sum((r.preferred == "a") == (p.label == 1.0) for r, p in zip(results, pairs, strict=True)) / len(pairs)


@pytest.mark.slow
def test_a_ranker_learns_from_judged_pairs(data: Path, backbone: Path, ranker_config: Path, tmp_path: Path) -> None:
    assert train(ranker_config, "short_pairs=20", "head_learning_rate=5e-3", "dropout=0.0") == 0
    run = tmp_path / "run"
    assert accuracy(run, data) > 0.9
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16"
    assert str(backbone) not in json.dumps(config)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval"]["eval_accuracy"] > 0.9
    assert config["logit_temperature"] == pytest.approx(metrics["eval"]["eval_temperature"], abs=1e-4)
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert described["data"][str(data)].startswith("sha256:")
    card = (run / "README.md").read_text(encoding="utf-8")
    assert f"| {metrics['sources']['mean over sources']['both orders']:.3f} |" in card
    assert "model-index" in card


@pytest.mark.slow
def test_a_symmetric_ranker_is_trained_on_from_another(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    assert train(ranker_config, "pooling=mean") == 0
    second = f"output_dir={tmp_path / 'second'}"
    changes = (f"model={tmp_path / 'run'}", second, "symmetric=true", "num_train_epochs=2", "interpolation=0.9")
    # The kinds that have other texts than the answers: nothing at all, the prompt, other letters.
    kinds = "corruptions=[empty, echo, gibberish, language]"
    assert train(ranker_config, *changes, "distinct_token_weight=0.5", kinds) == 0
    metrics = json.loads((tmp_path / "second" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval"]["eval_flip_rate"] == 0
    model = PairRanker.from_pretrained(tmp_path / "second")
    assert (model.config.symmetric, model.config.pooling, model.config.distinct_token_weight) == (True, "mean", 0.5)
    assert accuracy(tmp_path / "second", data) > 0.9


def test_dropouts_are_set_in_an_encoder_and_in_a_ranker(backbone: Path, tmp_path: Path) -> None:
    lengths = {"max_pair_length": 60, "max_source_length": 20, "max_candidate_length": 20}
    model, processor = starting_point(RankerSettings(model=str(backbone), dropout=0.3, **lengths))
    save_checkpoint(model, processor, tmp_path)
    going_on = RankerSettings(model=str(tmp_path), dropout=0.2, attention_dropout=0.4)
    for trained, hidden, attention in ((model, 0.3, 0.1), (starting_point(going_on)[0], 0.2, 0.4)):
        config = trained.backbone.config
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (hidden, attention)
        layer = trained.backbone.encoder.layer[0]
        assert (layer.output.dropout.p, layer.attention.self.dropout.p) == (hidden, attention)
        assert getattr(layer.attention.self, "dropout_prob", attention) == attention, "what fused attention takes"


def test_interpolation_goes_back_to_where_training_started() -> None:
    start, trained = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    end = copied_weights(trained)
    interpolate(trained, start.state_dict(), 0.25)
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(weight, 0.75 * start.state_dict()[name] + 0.25 * end[name])
    before = copied_weights(trained)
    interpolate(trained, {}, 1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in trained.state_dict().items())


def test_only_a_ranker_has_weights_to_go_back_to(ranker_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(ranker_config, "interpolation=0.5") == 2
    assert "interpolation is for going on from a ranker" in capsys.readouterr().err
    assert train(ranker_config, "interpolation=1.5") == 2
    assert "interpolation=1.5; it must be above 0 and at most 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_settings_of_a_run_give_the_same_run(ranker_config: Path, tmp_path: Path) -> None:
    assert train(ranker_config, "num_train_epochs=1") == 0
    written = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text(encoding="utf-8"))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump({**written, "output_dir": str(tmp_path / "again")}), encoding="utf-8")
    assert train(again) == 0
    same_weights(tmp_path / "run", tmp_path / "again")


@pytest.mark.slow
def test_adapters_are_merged_when_training_ends(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    assert train(ranker_config, *ADAPTERS) == 0
    assert accuracy(tmp_path / "run", data) > 0.8
    assert not [name for name in PairRanker.from_pretrained(tmp_path / "run").state_dict() if "lora" in name]


@pytest.mark.slow
def test_several_quality_functions_are_several_tasks(ranker_config: Path, tmp_path: Path) -> None:
    data = tmp_path / "mix.jsonl"
    with data.open("w", encoding="utf-8") as out:
        for n in range(12):
            texts = [f"{n} is the answer to it", f"{n} is", "No."]
            scores = [{"bleurt": -k, "rougeL": k % 2} for k in range(3)]
            candidates = [{"model": f"m{k}", "text": text, "scores": scores[k]} for k, text in enumerate(texts)]
            out.write(json.dumps({"instruction": "Count.", "input": str(n), "candidates": candidates}) + "\n")
    chosen = (f"data=[{data}]", f"eval_data=[{data}]", "metrics=[bleurt, rougeL]", "synthetic_negatives=0")
    assert train(ranker_config, *chosen, "sampling=random", "pairs_per_prompt=2", "num_train_epochs=1") == 0
    assert PairRanker.from_pretrained(tmp_path / "run").config.n_tasks == 2


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_weights(ranker_config: Path, tmp_path: Path) -> None:
    assert train(ranker_config, f"output_dir={tmp_path / 'straight'}") == 0
    process = forked(RUN_A_COMMAND, "train", "ranker", "--config", str(ranker_config))
    saved = tmp_path / "run" / "trainer" / "all"
    while not list(saved.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it saved a checkpoint"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train(ranker_config) == 2, "a run that is there is neither overwritten nor gone on with by chance"
    assert train(ranker_config, "learning_rate=1e-3", resume=True) == 2, "with other settings it is another run"
    assert train(ranker_config, "save_only_model=true", resume=True) == 2, "it would end with other weights"
    assert train(ranker_config, resume=True) == 0
    same_weights(tmp_path / "straight", tmp_path / "run")


def two_steps(ranker_config: Path, folder: Path, **second: object) -> Path:
    """Return settings of two steps: that of a fixture, and one that goes on from it into the folder `second`."""
    first = json.loads(ranker_config.read_text(encoding="utf-8"))
    then = {"output_dir": str(folder / "second"), "model": first["output_dir"], "num_train_epochs": 1, **second}
    path = folder / "steps.yaml"
    path.write_text("---\n".join(json.dumps(step) + "\n" for step in (first, {**first, **then})), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_training_of_two_steps_goes_on_where_it_was(
    ranker_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = two_steps(ranker_config, tmp_path, final_distinct_token_weight=1.5)
    assert train(steps, "2.data=[none.jsonl]") == 2, "the second fails, and leaves the first as it is"
    weights = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train(steps) == 2, "a run that is there is not overwritten"
    assert "holds a run already" in capsys.readouterr().err
    assert train(steps, "1.seed=7", resume=True) == 2, "with other settings it is another run"
    capsys.readouterr()
    assert main(["train", "ranker", "--config", str(steps), "--resume", "--json"]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'run'} is finished" in said.err
    assert f"wrote {tmp_path / 'second'}" in said.err
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == weights
    config = json.loads((tmp_path / "second" / "config.json").read_text(encoding="utf-8"))
    assert config["distinct_token_weight"] == 1.5
    temperature = json.loads(said.out)["eval"]["eval_temperature"]
    assert config["logit_temperature"] == pytest.approx(temperature, abs=1e-4)


def test_steps_need_folders_of_their_own(
    ranker_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = two_steps(ranker_config, tmp_path)
    assert train(steps, f"output_dir={tmp_path / 'one'}") == 2
    assert "step 2: output_dir=" in capsys.readouterr().err
    assert train(steps, "2.output_dir=null") == 2
    assert "step 2: the setting output_dir, the folder of the run, is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "nothing was begun"


@pytest.mark.slow
def test_a_ranker_and_a_reward_model_may_see_line_breaks(
    data: Path, wordpiece_backbone: Path, ranker_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(ranker_config, f"model={wordpiece_backbone}", "line_breaks=true", "max_steps=1") == 0
    ranker = Blender.from_pretrained(tmp_path / "run", None)
    scores = ranker.rank("p", ["one two three", "one\ntwo\nthree"]).scores
    assert scores[0] != scores[1], "without the token these are the same text"
    assert train(ranker_config, f"model={tmp_path / 'run'}", f"output_dir={tmp_path / 'on'}", "line_breaks=true") == 2
    assert "line_breaks is for training from an encoder" in capsys.readouterr().err
    pytest.importorskip("trl")
    (tmp_path / "reward").mkdir()
    own = {"data": [str(data)], "max_steps": 1, "max_input_length": 64, "line_breaks": True}
    assert train(run_config(tmp_path / "reward", model=str(wordpiece_backbone), **own), kind="reward-model") == 0
    rewards = Blender.from_pretrained(tmp_path / "reward" / "run", None)
    scores = rewards.rank("p", ["one two three", "one\ntwo\nthree"]).scores
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_two_processes_train_one_ranker(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    """As `torchrun` and `accelerate launch` start them: each reads its share, one of them writes; in two steps.

    The launcher is a part of the test, so these are fresh processes.
    """
    steps = two_steps(ranker_config, tmp_path)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launched, "-m", "blender_hf", "train", "ranker", "--config", str(steps), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("blender-hf: wrote") == 2
    assert accuracy(tmp_path / "run", data) > 0.9
    state = max((tmp_path / "run" / "trainer" / "all").glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    negatives = json.loads(ranker_config.read_text(encoding="utf-8"))["synthetic_negatives"]
    pairs = len(list(training_pairs(read_labelled(data)))) + negatives
    assert json.loads(state.read_text(encoding="utf-8"))["max_steps"] == 6 * math.ceil(pairs / (2 * 16))
    measured = json.loads(done.stdout)["sources"]["mean over sources"]
    assert measured["pairs"] == pairs - negatives, "each is measured once"


def same_weights(one: Path, other: Path) -> None:
    first, second = (PairRanker.from_pretrained(folder).state_dict() for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_reward_model_learns_from_the_same_pairs(data: Path, backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    sources = {"data": [str(data)], "eval_data": [str(data)], "eval_strategy": "epoch"}
    rates = {"learning_rate": 3e-3, "num_train_epochs": 2, "max_input_length": 64}
    assert train(run_config(tmp_path, model=str(backbone), **sources, **rates), kind="reward-model") == 0
    assert accuracy(tmp_path / "run", data) > 0.9
    assert Blender.from_pretrained(tmp_path / "run", None).rank("p", ["word " * 100, "b"]).truncated
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval"]["eval_accuracy"] > 0.9


def test_bad_records_stop_a_training_or_are_counted(
    ranker_config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text(encoding="utf-8") + '{"prompt": "p"}\nno JSON\n', encoding="utf-8")
    assert train(ranker_config, f"data=[{bad}]") == 2
    assert "no candidates were found" in capsys.readouterr().err
    skipped: list[str] = []
    assert len(list(read_labelled(bad, skipped=skipped))) == len(data.read_text(encoding="utf-8").splitlines())
    assert len(skipped) == 2
    assert "not valid JSON" in skipped[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["leave_out=[vicuna80]"], "no record is left to train on"),
        (["metrics=[bleurt]"], "no pairs to train on"),
        (["sampling=best"], "unknown sampling 'best'"),
        (["model="], "setting model is missing"),
        (["output_dir="], "output_dir, the folder of the run, is missing"),
        (["data=[nowhere.jsonl]"], "can't read nowhere.jsonl"),
        (["model=/nonexistent"], "can't load the model '/nonexistent'"),
        (["pooling=foo"], "pooling='foo'; use one of marker, mean"),
        (["max_source_length=500"], "leaves fewer than 8 tokens"),
        (["prediction_loss_only=true"], "prediction_loss_only=True disables the ranker's metrics"),
        (["batch_eval_metrics=true"], "batch_eval_metrics=True is not supported"),
        (["report_to=nonsense"], "can't train with these settings: nonsense is not supported"),
        (["lora_rank=2", "lora_target_modules=[nonsense]"], "can't train with these settings: "),
        (["learning_rate=-1"], "learning_rate=-1.0; it must be at least 0"),
        (["gradient_accumulation_steps=0"], "gradient_accumulation_steps=0; it must be at least 1"),
        (["eval_data=[]", "eval_strategy=epoch"], "eval_strategy is epoch, and there is nothing to evaluate on"),
        (["eval_strategy=epoch", "metric_for_best_model=acc"], "'acc', which is never computed"),
    ],
)
def test_settings_that_cannot_work_are_named(
    ranker_config: Path, settings: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(ranker_config, *settings) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metrics", "message"), [((), "without metrics there is one"), (("a", "b"), "metrics names 2")]
)
def test_a_ranker_of_several_tasks_goes_on_with_as_many(
    metrics: tuple[str, ...], message: str, backbone: Path, tmp_path: Path
) -> None:
    lengths = {"max_pair_length": 60, "max_source_length": 20, "max_candidate_length": 20}
    model, processor = starting_point(RankerSettings(model=str(backbone), metrics=["a", "b", "c"], **lengths))
    save_checkpoint(model, processor, tmp_path)
    assert starting_point(RankerSettings(model=str(tmp_path), metrics=["x", "y", "z"]))[0].config.n_tasks == 3
    with pytest.raises(InputError, match=f"n_tasks=3.*{message}: name 3 metrics"):
        starting_point(RankerSettings(model=str(tmp_path), metrics=list(metrics)))


def test_a_temperature_at_its_bound_is_no_fit(caplog: pytest.LogCaptureFixture) -> None:
    assert fitted_temperature([1.0, -1.0, 2.0], [0.7, 0.2, 0.8]) == pytest.approx(1.2, abs=0.4)
    assert not caplog.text
    fitted_temperature([1.0, 2.0], [0.0, 0.0])
    assert "its logits say nothing of these pairs" in caplog.text
    fitted_temperature([1.0, 2.0], [1.0, 1.0])
    assert "all pairs are right" in caplog.text


def test_a_reward_model_needs_the_token_that_its_score_is_read_at(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example failed in transformers, in the first step."""
    tokenizer = encoder_tokenizer()
    config = config_of("t5", len(tokenizer), num_labels=1, eos_token_id=tokenizer.sep_token_id)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    assert train(run_config(tmp_path, model=str(tmp_path / "t5"), data=[str(data)]), kind="reward-model") != 0
    assert "its tokenizer writes none: load the tokenizer" in capsys.readouterr().err


def test_a_reward_model_needs_a_decided_pair(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "ties.jsonl"
    tie = {"prompt": "p", "candidates": ["a", "b"], "pairs": [{"a": 0, "b": 1, "label": 0}]}
    data.write_text(json.dumps(tie), encoding="utf-8")
    assert train(run_config(tmp_path, model=str(backbone), data=[str(data)]), kind="reward-model") == 2
    assert "all are ties" in capsys.readouterr().err


def test_a_data_set_says_how_many_pairs_are_cut(data: Path) -> None:
    pairs = list(training_pairs(read_labelled(data)))
    assert (
        PairDataset(
            pairs, ranker_processor(max_pair_length=512, max_source_length=128, max_candidate_length=128)
        ).n_truncated
        == 0
    )
    assert PairDataset(pairs, ranker_processor(max_candidate_length=12)).n_truncated == len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [["tasks=[merging, selection]"], ["tasks=[reference]"], ADAPTERS])
def test_a_fuser_is_trained_on_from_a_t5(changes: list[str], data: Path, checkpoints: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    file = tmp_path / "data.jsonl"
    for record in records:
        record["pairs"].append({"a": 0, "b": 1, "label": 1})
        record["reference"] = f"{record['candidates'][0]['text']} And so on."
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model": str(checkpoints / "fuser"),
        "data": [str(file)],
        "eval_data": [str(file)],
        "ranker": str(checkpoints / "ranker"),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "label_smoothing_factor": 0.1,
    }
    config = tmp_path / "fuser.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    assert train(config, *changes, kind="fuser") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval_loss"] > 0
    assert min(metrics["training examples"].values()) > 10
    assert "Loss on examples" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    before = GenFuser.from_pretrained(checkpoints / "fuser")
    after = GenFuser.from_pretrained(tmp_path / "run", dtype=torch.float16)  # as it is saved
    same = {name: torch.equal(weight.half(), after.get_parameter(name)) for name, weight in before.named_parameters()}
    assert not any(same[name] for name in same if name.endswith(("SelfAttention.q.weight", "wo.weight")))
    assert same["shared.weight"] == (changes == ADAPTERS)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[], ADAPTERS])
def test_a_fuser_is_trained_on_from_a_language_model(changes: list[str], data: Path, tmp_path: Path) -> None:
    plain = save_chat_model(tmp_path / "plain", context=900)
    lengths = {"max_source_length": 500, "max_candidate_length": 60, "per_device_train_batch_size": 4}
    work = {"tasks": ["selection"], "max_steps": 3, "learning_rate": 1e-2, **lengths}
    config = run_config(tmp_path, model=str(plain), data=[str(data)], eval_data=[str(data)], **work)
    assert train(config, *changes, kind="fuser") == 0
    run = tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["eval_loss"] > 0
    assert "Loss on examples" in (run / "README.md").read_text(encoding="utf-8")
    before, after = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16) for folder in (plain, run))
    same = {name for name, weight in before.named_parameters() if torch.equal(weight, after.get_parameter(name))}
    adapted = {name for name, _ in before.named_parameters() if name.endswith("_proj.weight")}
    assert same == ({name for name, _ in before.named_parameters()} - adapted if changes else set())
    processor = GenFuserProcessor.from_pretrained(run)
    assert (processor.max_source_length, processor.max_candidate_length) == (500, 60)
    fusion = Blender.from_pretrained(fuser=run).fuse("2 + 2?", ["4", "It is 4."], generation={"max_new_tokens": 5})
    assert fusion.truncated.candidates == (0, 0)


@pytest.mark.slow
def test_a_fuser_is_trained_from_nothing(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "fuser.yaml"
    small = "vocab_size: 600\nd_model: 192\nlayers: 1\nmax_steps: 4\nper_device_train_batch_size: 4\n"
    config.write_text(f"data: [{data}]\noutput_dir: {tmp_path / 'run'}\n{small}", encoding="utf-8")
    assert train(config, kind="fuser") == 0
    run = tmp_path / "run"
    model, processor = GenFuser.from_pretrained(run), GenFuserProcessor.from_pretrained(run)
    assert model.config.extractive
    [item], _ = make_items("2 + 2?", ["It is 4. Yes.", "Four! I am sure."])
    encoding = processor.encode(item.prompt, item.texts)
    written = model.generate(**processor.pad([encoding.input_ids]), segments=[encoding.segments])
    assert processor.decode_text(written[0])
    assert processor.decode_text(encoding.segments[0].ids) == "It is 4."
    settings = json.loads((run / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers 4 knows no other name"


def test_a_fuser_is_told_which_candidates_are_the_best(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = [{"text": text, "scores": {"bleurt": n, "rougeL": -n}} for n, text in enumerate(("a b", "c d"))]
    record = {"instruction": "Do.", "input": "x", "output": "the reference", "candidates": candidates}
    data = tmp_path / "mix.jsonl"
    data.write_text(json.dumps(record), encoding="utf-8")
    work = {"data": [str(data)], "tasks": ["reference"], "max_steps": 1, "save_strategy": "no"}
    config = run_config(tmp_path, model=str(checkpoints / "fuser"), **work)
    assert train(config, kind="fuser") == 2
    message = "it is not known which candidates are the best; name a ranker, or as metric scores of the data: bleurt"
    assert message in capsys.readouterr().err
    assert train(config, "metric=comet", kind="fuser") == 2
    assert "no candidate has scores named 'comet'" in capsys.readouterr().err
    assert train(config, "metric=bleurt", kind="fuser") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training examples"] == {"reference": 1}


def test_a_run_tells_of_the_examples_that_it_was_trained_on(data: Path, checkpoints: Path, tmp_path: Path) -> None:
    limits = {"max_examples": 6, "max_train_tokens": 280, "max_steps": 1, "save_strategy": "no"}
    config = run_config(tmp_path, model=str(checkpoints / "fuser"), data=[str(data)], **limits)
    assert train(config, kind="fuser") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics["too long"] < 12
    assert sum(metrics["training examples"].values()) == 12 - metrics["too long"]


def test_candidates_that_a_fuser_can_not_tell_apart_are_too_many(
    data: Path, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(tmp_path, model=str(checkpoints / "fuser"), data=[str(data)])
    assert train(config, "top_k=101", kind="fuser") == 2
    assert "top_k=101 candidates are more than the 100 that" in capsys.readouterr().err


def test_a_text_that_is_better_than_itself_stops_a_training_or_is_counted(
    data: Path, ranker_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "same.jsonl"
    same.write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n', encoding="utf-8")
    assert train(ranker_config, f"data=[{data}, {same}]") == 2
    assert "the better and the worse answer are the same text; strict=false skips" in capsys.readouterr().err
    loaded = load_training_data(RankerSettings(data=[str(data), str(same)], strict=False))
    assert [reason.rpartition(": ")[2] for reason in loaded.skipped] == [
        "the better and the worse answer are the same text"
    ]


def test_the_tokenizer_of_a_fuser_loses_nothing() -> None:
    tokenizer = gen_fuser.train_tokenizer(["Some English text, Cased.\n\n1. A list"] * 5, 500)
    for text in ("Cased Words, 3.5!", "日本語 and émigré", "tabs\tand\n\nlines", "<extra_id_0> is text"):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() == text


def test_targets_of_a_batch_are_filled_with_what_the_loss_ignores() -> None:
    model, processor = build_fuser()
    examples = [FusionExample("p", ("a", "b"), "short"), FusionExample("p", ("a",), "a much longer target. Of two.")]
    dataset = FusionDataset(examples, processor)
    batch = FusionCollator(processor, model)([dataset[0], dataset[1]])
    length = len(dataset[0]["labels"])
    assert batch["labels"][0, length:].unique().tolist() == [-100]
    assert batch["labels"][0, :length].tolist() == dataset[0]["labels"]
    assert batch["decoder_input_ids"][0, : length + 1].tolist() == [0, *dataset[0]["labels"]]
    assert FusionDataset(examples, processor, max_tokens=1).n_left_out == 2
    segments = FusionDataset(examples[1:], processor, by_segments=True)[0]["labels"]
    parts = [
        processor.tokenizer(part, add_special_tokens=False)["input_ids"] for part in split_segments(examples[1].target)
    ]
    assert segments == [*(token for part in parts for token in part), processor.tokenizer.eos_token_id]


def test_bundling_takes_no_code_and_refuses_what_is_no_checkpoint(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "locate", lambda name: str(tmp_path / name))
    run = Path(shutil.copytree(checkpoints / "ranker", tmp_path / "run"))
    for name in ("run.json", "metrics.json"):
        (run / name).write_text('{"data": "/home/me/train.jsonl"}', encoding="utf-8")
    place = checkpoint.bundle(run, "pair-ranker-mini")
    assert (run / "modeling_pair_ranker.py").exists()
    assert not [path for path in place.iterdir() if path.suffix == ".py" or path.name in ("run.json", "metrics.json")]
    config = (place / "config.json").read_text(encoding="utf-8")
    assert "auto_map" not in config
    assert "custom_pipelines" not in config
    assert Blender.from_pretrained(place, None).rank("p", ["a", "b"])
    with pytest.raises(ValueError, match="no bundled checkpoint 'mine'"):
        checkpoint.bundle(checkpoints / "ranker", "mine")
    with pytest.raises(ValueError, match="holds no weights"):
        checkpoint.bundle(tmp_path, "pair-ranker-mini")
