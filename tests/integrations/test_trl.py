"""The integrations with TRL, in its real trainers."""

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainerControl,
    TrainerState,
    set_seed,
)
from transformers.integrations import deepspeed as hf_deepspeed

from blender_hf import Blender, BlenderError, CheckpointError, GenFuserProcessor, InputError, InputTypeError
from blender_hf.cli.main import main
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.integrations.trl import PairRMJudge, WinRateCallback, pairwise_reward
from blender_hf.integrations.trl.win_rate import generate
from blender_hf.loading.partitioning import FSDP_LOADING, ZERO_INIT, whole_weights
from blender_hf.training.fuser_trainer import encode_example
from blender_hf.training.fusion_data import reference_examples
from tests.conftest import SMALL, encoder_tokenizer
from tests.forking import TRL, forked, ranks
from tests.generation.tiny_models import save_chat_model

trl = pytest.importorskip("trl")
# TRL's own settings have the old name of activation checkpointing.
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning:transformers")

PROMPTS = ["2 + 2?"] * 3 + ["What is a cat?"] * 2
COMPLETIONS = ["4", "four", "Bananas.", "An animal.", "A dog."]
TEMPLATE = (
    "{% for m in messages %}{{ '[SEP]' + m['role'] + ': ' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[SEP]assistant: ' }}{% endif %}"
)


def conversational(prompts: list[str], completions: list[str]) -> tuple[list[Any], list[Any]]:
    """Return the same in TRL's conversational form."""
    return (
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        [[{"role": "assistant", "content": completion}] for completion in completions],
    )


def close(found: Any, expected: Any) -> bool:
    return found == pytest.approx(expected, abs=1e-5)


def test_completions_of_one_prompt_play_each_other(blender: Blender) -> None:
    reward = pairwise_reward(blender)
    expected = blender.group_reward("2 + 2?", COMPLETIONS[:3]) + blender.group_reward("What is a cat?", COMPLETIONS[3:])
    found = reward(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=None, trainer_state=None)
    assert close(found, expected)
    assert all(isinstance(value, float) for value in found)
    assert close(reward(*conversational(PROMPTS, COMPLETIONS)), expected)


def test_groups_may_stand_anywhere(blender: Blender) -> None:
    """The online DPO trainer gives the prompts one after the other, twice."""
    order = [3, 0, 4, 2, 1]
    straight = pairwise_reward(blender)(PROMPTS, COMPLETIONS)
    mixed = pairwise_reward(blender)([PROMPTS[i] for i in order], [COMPLETIONS[i] for i in order])
    assert close(mixed, [straight[i] for i in order])
    assert pairwise_reward(blender)(["p"], ["alone"]) == [0.0]
    assert pairwise_reward(blender)([], []) == []


def test_completions_play_a_reference(blender: Blender) -> None:
    gold = ["4"] * 3 + ["A small animal."] * 2
    expected = [
        blender.compare(prompt, completion, reference).probability
        for prompt, completion, reference in zip(PROMPTS, COMPLETIONS, gold, strict=True)
    ]
    by_column = pairwise_reward(blender, reference_column="gold", scale="probability")
    assert close(by_column(PROMPTS, COMPLETIONS, gold=gold, other=[1] * 5), expected)
    messages = conversational(PROMPTS, gold)[1]
    assert close(by_column(*conversational(PROMPTS, COMPLETIONS), gold=messages), expected)
    by_text = pairwise_reward(blender, reference="4", scale="probability")
    assert close(by_text(PROMPTS[:3], COMPLETIONS[:3]), expected[:3])
    assert by_text(["2 + 2?"], ["4"]) == [0.5]
    for form in (message := {"role": "assistant", "content": "4"}), [message]:
        by_message = pairwise_reward(blender, reference=form, scale="probability")
        assert by_message(PROMPTS[:3], COMPLETIONS[:3]) == by_text(PROMPTS[:3], COMPLETIONS[:3])
    with pytest.raises(InputTypeError, match="the reference: a completion must be a string or a list of messages"):
        pairwise_reward(blender, reference=4)


def test_what_the_assistant_says_counts(blender: Blender) -> None:
    said = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "2 + 2 = 4"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 4."}]},
    ]
    reward = pairwise_reward(blender, reference="5")
    assert close(reward(["2 + 2?"], [said]), reward(["2 + 2?"], ["It is 4."]))
    with pytest.raises(InputError, match=r"completion 0: an answer has a message of the assistant, .* role user alone"):
        reward(["2 + 2?"], [[{"role": "user", "content": "It is 4."}]])


CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
ADDS = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
FLIES = [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "fly", "arguments": {}}}]}]


def test_tools_that_are_called_count(blender: Blender) -> None:
    """Such completions all tied, and a prompt in which a tool was called stopped the training."""
    user = [{"role": "user", "content": "2 + 2?"}]
    reward = pairwise_reward(blender)
    found = reward([user] * 2, [ADDS, FLIES])
    texts = [
        f'<tool_call>{{"name": "{name}", "arguments": {given}}}</tool_call>'
        for name, given in (("add", '{"a": 2}'), ("fly", "{}"))
    ]
    assert found == blender.group_reward("2 + 2?", texts) == blender.group_reward("2 + 2?", [ADDS, FLIES])
    assert found[0] == -found[1] != 0
    assert PairRMJudge(blender).judge([user], [[ADDS, FLIES]]) == [int(found[0] < 0)]
    called = [*user, *ADDS, {"role": "tool", "content": "4"}]
    text = f"USER: 2 + 2?\nASSISTANT: {texts[0]}\nTOOL: 4"
    assert reward([called] * 2, conversational([], ["4", "5"])[1]) == blender.group_reward(text, ["4", "5"])


def test_prompts_with_other_pictures_are_other_prompts(blender: Blender, caplog: pytest.LogCaptureFixture) -> None:
    """And the same picture is the same, though each row has its own object."""

    def asked(shade: int) -> list[dict[str, Any]]:
        picture = Image.new("L", (2, 2), shade)
        return [
            {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]}
        ]

    answers = ["A hen.", "Bananas.", "A dog.", "4"]
    found = pairwise_reward(blender)([asked(1), asked(2), asked(1), asked(2)], conversational([], answers)[1])
    expected = [blender.group_reward("[image]\nWhat is it?", answers[k::2]) for k in (0, 1)]
    assert close(found, [expected[0][0], expected[1][0], expected[0][1], expected[1][1]])
    assert any("not read: message 0, part 0 (image)" in message for message in caplog.messages)


def test_wrong_use_is_named(blender: Blender) -> None:
    with pytest.raises(InputError, match="not both"):
        pairwise_reward(blender, reference="a", reference_column="b")
    with pytest.raises(InputError, match="device: options are for a ranker that is loaded here"):
        pairwise_reward(blender, device="cpu")
    with pytest.raises(TypeError, match="devise"):
        PairRMJudge("org/ranker", devise="cpu")
    with pytest.raises(InputError, match="unknown scale 'log'"):
        pairwise_reward(blender, scale="log")
    with pytest.raises(InputError, match="no column 'gold' for the reference; the dataset has id"):
        pairwise_reward(blender, reference_column="gold")(["p"], ["c"], id=[1])
    with pytest.raises(InputError, match="'gold' must have a text for each of the 2"):
        pairwise_reward(blender, reference_column="gold")(["p"] * 2, ["c"] * 2, gold=["x"])
    with pytest.raises(InputError, match="1 prompts and 2 completions"):
        pairwise_reward(blender)(["p"], ["c", "d"])
    with pytest.raises(InputTypeError, match="completion 1: a completion must be a string"):
        pairwise_reward(blender)(["p", "p"], ["c", 7])


def test_a_ranker_is_loaded_when_it_is_needed_and_travels_by_name(checkpoints: Path, blender: Blender) -> None:
    assert pairwise_reward("no/such-ranker", name="taste").__name__ == "taste"
    with pytest.raises(CheckpointError, match="no/such-ranker"):
        pairwise_reward("no/such-ranker", local_files_only=True)(["p"], ["c"])
    reward = pairwise_reward(checkpoints / "ranker", device="cpu")
    expected = reward(PROMPTS, COMPLETIONS)
    assert close(expected, pairwise_reward(blender)(PROMPTS, COMPLETIONS))
    copied = pickle.dumps(reward)
    assert len(copied) < 2000, "the weights stay where they are"
    assert pickle.loads(copied)(PROMPTS, COMPLETIONS) == expected


def test_the_judge_has_the_signature_that_trl_had(blender: Blender) -> None:
    judge = PairRMJudge(blender)
    prompts, pairs = ["2 + 2?", "p", "q"], [["4", "Bananas."], ["Bananas.", "4"], ["same", "same"]]
    comparisons = blender.compare(prompts, [a for a, _ in pairs], [b for _, b in pairs])
    assert judge.judge(prompts, pairs) == [{"a": 0, "b": 1, "tie": 0}[c.preferred] for c in comparisons]
    scores = judge.judge(prompts, pairs, shuffle_order=False, return_scores=True)
    assert close(scores, [torch.tensor(c.logit).sigmoid().item() for c in comparisons])
    assert scores[2] == 0.5
    warm = judge.judge(prompts, pairs, return_scores=True, temperature=0.5)
    assert close(warm, [torch.tensor(2 * c.logit).sigmoid().item() for c in comparisons])
    swapped = judge.judge(prompts, [pair[::-1] for pair in pairs], return_scores=True)
    assert close(swapped, [1 - score for score in scores])
    chats = [conversational(["p"], [*pair])[1] for pair in pairs]
    assert judge.judge([[{"role": "user", "content": p}] for p in prompts], chats, return_scores=True) == scores


def test_the_judge_names_what_is_wrong(blender: Blender) -> None:
    with pytest.raises(InputError, match="prompt 1: the judge compares exactly 2 completions; there are 3"):
        PairRMJudge(blender).judge(["p", "q"], [["a", "b"], ["a", "b", "c"]])
    with pytest.raises(InputError, match="each of the 2 prompts, not 1"):
        PairRMJudge(blender).judge(["p", "q"], [["a", "b"]])
    with pytest.raises(InputError, match="temperature=0"):
        PairRMJudge(blender).judge(["p"], [["a", "b"]], temperature=0)


class Zero3:
    """What transformers keeps of DeepSpeed's configuration, without DeepSpeed."""

    config = {}  # noqa: RUF012

    def is_zero3(self) -> bool:
        return True


@pytest.fixture
def zero3(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process that trains with ZeRO-3; loading a model in parts would fail, for DeepSpeed is not here."""
    config = Zero3()
    monkeypatch.setattr(hf_deepspeed, "_hf_deepspeed_config_weak_ref", lambda: config)
    assert hf_deepspeed.is_deepspeed_zero3_enabled()
    return config


def test_a_ranker_is_whole_beside_zero3(zero3: Zero3, checkpoints: Path, blender: Blender) -> None:
    with pytest.raises((ImportError, NameError)):
        AutoModelForCausalLM.from_config(tiny_model().config)
    found = pairwise_reward(checkpoints / "ranker", device="cpu")(PROMPTS, COMPLETIONS)
    assert close(found, pairwise_reward(blender)(PROMPTS, COMPLETIONS))
    assert hf_deepspeed.is_deepspeed_zero3_enabled(), "the trainer's setting is as it was"


def test_what_partitions_weights_is_off_and_on_again(zero3: Zero3, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Partitioning:
        shutdown_init_context = staticmethod(lambda: calls.append("off"))
        restore_init_context = staticmethod(lambda: calls.append("on"))

    monkeypatch.setitem(sys.modules, ZERO_INIT, Partitioning)
    monkeypatch.setenv(FSDP_LOADING, "true")
    with whole_weights():
        assert calls == ["off"]
        assert not hf_deepspeed.is_deepspeed_zero3_enabled()
        assert FSDP_LOADING not in os.environ
    assert calls == ["off", "on"]
    assert hf_deepspeed.is_deepspeed_zero3_enabled()
    assert os.environ[FSDP_LOADING] == "true"


def tiny_tokenizer() -> Any:
    tokenizer = encoder_tokenizer()
    tokenizer.eos_token = "[SEP]"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model() -> Any:
    set_seed(0)
    settings = {**SMALL, "num_key_value_heads": 2, "vocab_size": len(encoder_tokenizer())}
    return Qwen2ForCausalLM(Qwen2Config(**settings, pad_token_id=0, eos_token_id=2, bos_token_id=1))


def rows(n: int, chat: bool) -> datasets.Dataset:
    prompts = [f"What is {k} + {k}?" for k in range(n)]
    column = conversational(prompts, [])[0] if chat else prompts
    return datasets.Dataset.from_dict({"prompt": column, "gold": [str(2 * k) for k in range(n)]})


def grpo_settings(folder: Path, **settings: Any) -> Any:
    return trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        learning_rate=1e-3,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 8,
            "max_steps": 3,
            **settings,
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_grpo_trains_with_the_reward(chat: bool, blender: Blender, tmp_path: Path) -> None:
    trainer = trl.GRPOTrainer(
        model=tiny_model(),
        reward_funcs=[pairwise_reward(blender), pairwise_reward(blender, reference_column="gold", name="against_gold")],
        args=grpo_settings(tmp_path, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4),
        train_dataset=rows(4, chat),
        eval_dataset=rows(2, chat),
        processing_class=tiny_tokenizer(),
    )
    trainer.add_callback(WinRateCallback(trainer, blender))
    before = trainer.model.lm_head.weight.clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.lm_head.weight), "completions were told apart, so there was a gradient"
    logs = trainer.state.log_history
    for name in ("rewards/pairwise_reward/mean", "rewards/against_gold/mean"):
        assert len([log for log in logs if name in log]) == 3
    assert all(abs(log["rewards/pairwise_reward/mean"]) < 1e-5 for log in logs if "rewards/pairwise_reward/mean" in log)
    rates = [log["eval_win_rate"] for log in logs if "eval_win_rate" in log]
    assert len(rates) == 2, "at the evaluation in the middle, and at the end"
    assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.slow
def test_rloo_trains_with_the_reward(blender: Blender, tmp_path: Path) -> None:
    # Without beta there is no reference model, which it would load by the name of the trained one.
    settings = {
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 2,
        "beta": 0,
    }
    trainer = trl.RLOOTrainer(
        model=tiny_model(),
        reward_funcs=pairwise_reward(blender),
        args=trl.RLOOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            logging_steps=1,
            save_strategy="no",
            **settings,
        ),
        train_dataset=rows(4, False),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    assert [log["rewards/pairwise_reward/std"] > 0 for log in trainer.state.log_history[:2]] == [True, True]


@pytest.mark.slow
def test_online_dpo_trains_with_the_reward(blender: Blender, tmp_path: Path) -> None:
    online_dpo = pytest.importorskip("trl.experimental.online_dpo")
    trainer = online_dpo.OnlineDPOTrainer(
        model=tiny_model(),
        reward_funcs=pairwise_reward(blender),
        args=online_dpo.OnlineDPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            logging_steps=1,
            save_strategy="no",
            per_device_train_batch_size=2,
            max_new_tokens=8,
            max_steps=2,
        ),
        train_dataset=rows(4, False).select_columns("prompt"),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.slow
def test_adapters_are_off_for_the_reference(blender: Blender, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    trainer = trl.GRPOTrainer(
        model=tiny_model(),
        reward_funcs=pairwise_reward(blender),
        args=grpo_settings(tmp_path, max_steps=1),
        train_dataset=rows(4, False),
        processing_class=tiny_tokenizer(),
        peft_config=adapter,
    )
    callback = WinRateCallback(trainer, blender, prompts=["2 + 2?", "Who?"])
    trainer.model_wrapped = trainer.model
    about = {"args": trainer.args, "state": TrainerState(), "control": TrainerControl()}
    callback.on_train_begin(**about, processing_class=trainer.processing_class)
    adapted = callback._answers(trainer.model, trainer.args, trainer.processing_class)
    trainer.model = trainer.model_wrapped = trainer.model.unload()
    assert callback._references == callback._answers(trainer.model, trainer.args, trainer.processing_class)
    assert callback._references != adapted


@pytest.mark.slow
def test_the_win_rate_of_an_untrained_model_is_one_half(blender: Blender, tmp_path: Path) -> None:
    trainer = trl.GRPOTrainer(
        model=tiny_model(),
        reward_funcs=pairwise_reward(blender),
        args=grpo_settings(tmp_path),
        train_dataset=rows(4, False),
        processing_class=tiny_tokenizer(),
    )
    callback = WinRateCallback(trainer, blender, prompts=["2 + 2?", "3 + 3?", "4 + 4?"], num_prompts=2)
    trainer.model_wrapped = trainer.model
    about = {"args": trainer.args, "state": TrainerState(), "control": TrainerControl()}
    generator = torch.random.get_rng_state()
    metrics = {"eval_loss": 1.0}
    callback.on_evaluate(**about, metrics=metrics, processing_class=trainer.processing_class)
    assert metrics == {"eval_loss": 1.0}, "before the training there is nothing to beat"
    callback.on_train_begin(**about, processing_class=trainer.processing_class)
    callback.on_evaluate(**about, metrics=metrics, processing_class=trainer.processing_class)
    assert metrics == {"eval_loss": 1.0, "eval_win_rate": 0.5, "eval_win_probability": 0.5}
    assert torch.equal(generator, torch.random.get_rng_state()), "the training draws what it would have drawn"
    beaten = WinRateCallback(trainer, blender, prompts=["2 + 2?"], references=["4"])
    found = {}
    beaten.on_evaluate(**about, metrics=found, processing_class=trainer.processing_class)
    assert found["eval_win_rate"] in (0.0, 0.5, 1.0)
    with pytest.raises(InputError, match="give prompts="):
        WinRateCallback(trainer, blender)
    with pytest.raises(InputError, match="1 references for 2 prompts"):
        WinRateCallback(trainer, blender, prompts=["p", "q"], references=["a"])
    with pytest.raises(InputError, match="no prompts"):
        WinRateCallback(trainer, blender, prompts=[])


def test_a_given_way_of_generating_overrules_the_models_own() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.generation_config.update(do_sample=True, temperature=9.0, max_new_tokens=3)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=8)
    answers = [generate(model, Accelerator(cpu=True), tokenizer, ["2 + 2?"] * 2, greedy, 2, seed) for seed in (0, 1)]
    inputs = tokenizer("2 + 2?", return_tensors="pt")
    written = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
    assert answers == [[tokenizer.decode(written, skip_special_tokens=True)] * 2] * 2
    assert model.generation_config.temperature == 9.0
    drawn = [generate(model, Accelerator(cpu=True), tokenizer, ["2 + 2?"], None, 2, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_prompts_with_calls_of_tools_are_answered() -> None:
    """The template of this model refuses a content that is null, and knows of no calls."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=8)
    user, result = {"role": "user", "content": "2 + 2?"}, {"role": "tool", "content": "4"}
    text = {"role": "assistant", "content": '<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>'}
    called, written = ([user, message, result] for message in (*ADDS, text))
    first, second = generate(model, Accelerator(cpu=True), tokenizer, [called, written], greedy, 2, 0)
    assert first == second


def test_what_fsdp_shards_can_not_answer() -> None:
    class Sharding:
        distributed_type = "FSDP"

    with pytest.raises(BlenderError, match="can't be measured under FSDP"):
        generate(None, Sharding(), None, ["p"], None, 1, 0)


SCRIPT = """
import json, sys, trl
from pathlib import Path
from blender_hf.integrations.trl import WinRateCallback, pairwise_reward
from tests.integrations.test_trl import grpo_settings, rows, tiny_model, tiny_tokenizer

ranker, folder = sys.argv[1:]
reward = pairwise_reward(ranker, device="cpu")
seen = []

def recorded(prompts, completions, **columns):
    rewards = reward(prompts=prompts, completions=completions, **columns)
    seen.append([prompts, completions, rewards])
    return rewards

trainer = trl.GRPOTrainer(
    model=tiny_model(),
    reward_funcs=recorded,
    # Two completions in each process: every group is spread over both.
    args=grpo_settings(Path(folder), per_device_train_batch_size=2, max_steps=2),
    train_dataset=rows(4, False),
    processing_class=tiny_tokenizer(),
)
trainer.add_callback(WinRateCallback(trainer, ranker, prompts=["2 + 2?", "3?", "4?"], device="cpu"))
trainer.train()
rates = [log["eval_win_rate"] for log in trainer.state.log_history if "eval_win_rate" in log]
name = f"seen-{trainer.accelerator.process_index}.json"
Path(folder, name).write_text(json.dumps({"seen": seen, "rates": rates}))
"""


@pytest.mark.slow
def test_two_processes_reward_as_one_would(checkpoints: Path, blender: Blender, tmp_path: Path) -> None:
    environments = [{**rank, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} for rank in ranks(2)]
    arguments = (SCRIPT, str(checkpoints / "ranker"), str(tmp_path))
    for process in [forked(*arguments, modules=TRL, env=environment) for environment in environments]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
    found = [json.loads((tmp_path / f"seen-{process}.json").read_text()) for process in range(2)]
    for one, other in zip(*(process["seen"] for process in found), strict=True):
        prompts, completions, rewards = (a + b for a, b in zip(one, other, strict=True))
        assert len(set(prompts)) == 1
        assert close(rewards, blender.group_reward(prompts[0], completions))
    assert found[0]["rates"] == found[1]["rates"]
    assert len(found[0]["rates"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_sft_trains_a_fuser(suffix: str, checkpoints: Path, tmp_path: Path) -> None:
    """On the tokens that `train fuser` trains on, and what comes out is a fuser."""
    data, labelled = tmp_path / "data.jsonl", tmp_path / f"sft.{suffix}"
    record = {"prompt": "What is 2 + 2?", "candidates": ["It is 4.", "Four, I am sure.", "I like trains."]}
    records = [{**record, "gold": "It is 4."}, {**record, "gold": "2 + 2 is 4."}, {**record}]
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    ranker = ["--ranker", str(checkpoints / "ranker"), "--columns", "reference=gold", "--quiet"]
    assert main(["label", str(data), "--output", str(labelled), "--format", "sft", *ranker]) == 0
    rows = datasets.load_dataset(suffix.replace("jsonl", "json"), data_files=str(labelled), split="train")
    assert len(rows) == 2, "one has no reference"
    plain = save_chat_model(tmp_path / "plain", context=640)
    trainer = trl.SFTTrainer(
        model=str(plain),
        args=trl.SFTConfig(str(tmp_path / "run"), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True),
        train_dataset=rows,
    )
    blender = Blender.from_pretrained(checkpoints / "ranker", None, device="cpu")
    orders = [blender.rank(record["prompt"], record["candidates"]).order] * 3
    prompts = read_labelled(data, columns={"reference": "gold"})
    processor = GenFuserProcessor.from_pretrained(plain)
    for row, example in zip(trainer.train_dataset, reference_examples(prompts, 3, orders), strict=True):
        expected = encode_example(example, processor, by_segments=False)
        ids = [*expected["input_ids"], *expected["labels"]]
        assert row["input_ids"][: len(ids)] == ids, "with the line break of the template behind it"
    trainer.train()
    trainer.save_model(str(tmp_path / "run"))
    fuser = Blender.from_pretrained(checkpoints / "ranker", tmp_path / "run", device="cpu")
    assert fuser.fuse("2 + 2?", ["4", "It is 4."], generation={"max_new_tokens": 4}).fused_from == (0, 1)
