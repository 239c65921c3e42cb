"""Settings from a YAML file: typed, and nothing that is misspelt is passed over."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from blender_hf import InputError
from blender_hf.training.loading import Subsample, load_training_data, subsample_of_run
from blender_hf.training.ranker_trainer import PairRankerTrainingArguments
from blender_hf.training.run_folder import RunFolder
from blender_hf.training.settings import RENAMED, RankerSettings
from blender_hf.training.steps import PRECISION, Step, read_steps
from blender_hf.training.training_run import kind_of

ROOT = Path(__file__).parents[2]
CLASSES = (RankerSettings, PairRankerTrainingArguments)
KIND_OF = {
    "pair_ranker": "ranker",
    "gen_fuser": "fuser",
    "ablations": "ranker",
    "reward_model": "reward-model",
}


def read_step(path: str | Path, kinds: Sequence[type], overrides: Sequence[str] = ()) -> Step:
    [step] = read_steps(path, kinds, overrides)
    return step


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_keys_are_fields_and_the_command_line_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "model: org/encoder\ndata: [a.jsonl, b.jsonl]\nlearning_rate: 1e-4\nsymmetric: true\n")
    step = read_step(path, CLASSES, ["learning_rate=3e-5", "symmetric=false", "leave_out=[x]"])
    settings, arguments = step.settings()
    assert (settings.model, settings.data, settings.leave_out) == ("org/encoder", ["a.jsonl", "b.jsonl"], ["x"])
    assert settings.symmetric is False
    assert arguments.learning_rate == 3e-5
    assert set(step.given) == {"model", "data", "learning_rate", "symmetric", "leave_out"}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("model: m", ["learnign_rate=1"], "no setting 'learnign_rate'"),
        ("model: m\nsymetric: true", [], "no setting 'symetric'"),
        ("model: m", ["learning_rate=quick"], "invalid float value: 'quick'"),
        ("model: m", ["seed"], "give KEY=VALUE"),
        ("- a list", [], 'one "key: value" a line'),
        ("model: [unclosed", [], "not valid YAML"),
        ("model: m", ["data=[a"], "'data=.a' is not valid YAML"),
        ("model: m\nseed: 1\nseed: 2", [], "the setting 'seed' is given twice"),
        ("model: m\nlr_scheduler_kwargs:\n  a: 1\n  a: 2", [], "the setting 'a' is given twice"),
        ("model: m", ["limit=-1"], "limit=-1; it must be at least 1"),
        ("model: m", ["pairs_per_prompt=-1"], "pairs_per_prompt=-1; it must be at least 1"),
        ("model: m", ["lora_rank=-4"], "lora_rank=-4; it must be at least 0"),
        ("model: m", ["dropout=7"], "dropout=7.0; it must be from 0 to 0.99"),
        ("model: m", ["max_pair_length=5"], "max_pair_length=5; it must be at least 16"),
        ("model: m", ["source_truncation_side=up"], "source_truncation_side='up'; use left or right"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_steps(written(tmp_path, text), CLASSES, overrides)


@pytest.mark.parametrize(
    "columns", ["[prompt=frage, 'candidates=gpt,llama']", "{prompt: frage, candidates: [gpt, llama]}"]
)
def test_columns_have_names(tmp_path: Path, columns: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"frage": "2 + 2?", "gpt": "4", "llama": "5"}\n', encoding="utf-8")
    settings, _ = read_step(written(tmp_path, f"model: x\ndata: [{data}]\ncolumns: {columns}\n"), CLASSES).settings()
    [prompt] = load_training_data(settings).prompts
    assert (prompt.item.source, prompt.models) == ("2 + 2?", ("gpt", "llama"))


def test_former_names_of_settings_are_read_everywhere(tmp_path: Path) -> None:
    """In a file, on the command line, and in the record of a run, which `--resume` compares."""
    old = {"bag_share": 0.5, "bag_seed": 3, "damaged_pairs": 8, "damage_kinds": ["cut", "loop"]}
    new = {"train_fraction": 0.5, "train_fraction_seed": 3, "synthetic_negatives": 8, "corruptions": ["cut", "loop"]}
    assert set(old) == set(RENAMED)
    assert set(new) == set(RENAMED.values())
    step = read_step(written(tmp_path, json.dumps({"model": "m", **old})), CLASSES)
    overridden = read_step(
        written(tmp_path, "model: m\nsynthetic_negatives: 1"), CLASSES, [f"{k}={v}" for k, v in old.items()]
    )
    for settings, _ in (step.settings(), overridden.settings()):
        assert {name: getattr(settings, name) for name in new} == new
    run = RunFolder(tmp_path / "run", step.given)
    run.begin(step.settings()[0], resume=False)
    record = tmp_path / "run" / "run.json"
    described = json.loads(record.read_text(encoding="utf-8"))
    before = {former: described["settings"].pop(RENAMED[former]) for former in old}
    assert before == old
    record.write_text(json.dumps({**described, "settings": {**described["settings"], **before}}), encoding="utf-8")
    run.check_same(overridden.settings()[0])
    assert subsample_of_run(run.path) == Subsample(0.5, 3)
    with pytest.raises(InputError, match="'corruptions' is given twice, under two names"):
        read_steps(written(tmp_path, "model: m\ncorruptions: [cut]\ndamage_kinds: [cut]"), CLASSES)


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
@pytest.mark.parametrize("kind", ["ranker", "reward-model"])
def test_checkpointing_has_one_meaning_on_every_stack(
    name: str, kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    chosen = kind_of(kind)
    for text, expected in ((f"{name}: true", True), (f"{name}: false", False), ("seed: 1", kind == "reward-model")):
        path = written(tmp_path, f"model: m\noutput_dir: {tmp_path}\n{text}")
        _, arguments = read_step(path, (chosen.settings_class, chosen.arguments_class())).settings()
        assert arguments.gradient_checkpointing is expected
    assert not [warning for warning in recwarn if issubclass(warning.category, FutureWarning)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("top_k=0", "top_k=0; it must be at least 1"),
        ("d_model=100", "d_model=100; it must be a multiple of 64, at least 192"),
        ("d_model=64", "d_model=64; it must be a multiple of 64, at least 192"),
        ("metric=bleurt", "metric and ranker both say"),
    ],
)
def test_what_is_wrong_for_a_fuser_is_named(tmp_path: Path, override: str, message: str) -> None:
    kind = kind_of("fuser")
    with pytest.raises(InputError, match=message):
        read_steps(written(tmp_path, "ranker: r"), (kind.settings_class, kind.arguments_class()), [override])


def test_a_bare_no_is_a_name(tmp_path: Path) -> None:
    text = "model: m\nsave_strategy: no\nlanguages: [no, en]"
    step = read_step(written(tmp_path, text), CLASSES)
    settings, arguments = step.settings()
    assert settings.languages == ["no", "en"]
    assert arguments.save_strategy == "no"
    assert step.given["save_strategy"] == "no"
    settings, _ = read_step(written(tmp_path, "model: m"), CLASSES, ["languages=no"]).settings()
    assert settings.languages == ["no"]


@pytest.mark.parametrize(
    ("in_hardware", "text", "bf16"), [(False, "", False), (True, "", True), (False, "bf16: true", True)]
)
def test_emulated_bf16_is_only_taken_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_hardware: bool, text: str, bf16: bool
) -> None:
    monkeypatch.setattr("blender_hf.training.steps.has_bfloat16", lambda device: in_hardware)
    kind = kind_of("reward-model")
    path = written(tmp_path, f"model: m\noutput_dir: {tmp_path}\n{text}")
    _, arguments = read_step(path, (kind.settings_class, kind.arguments_class())).settings()
    assert arguments.bf16 is bf16


TWO = "model: a\nseed: 1\n---\nmodel: b\n---\n"


def test_each_document_is_a_step(tmp_path: Path) -> None:
    steps = read_steps(written(tmp_path, TWO), CLASSES, ["learning_rate=3e-5", "2.seed=2", "1.model=c"])
    made = [step.settings() for step in steps]
    assert [settings.model for settings, _ in made] == ["c", "b"]
    assert [(arguments.seed, arguments.learning_rate) for _, arguments in made] == [(1, 3e-5), (2, 3e-5)]


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (TWO, "3.seed=1", "'3.seed=1' is for step 3, and there are 2"),
        (TWO, "2.sede=1", "step 2: there is no setting 'sede'"),
        (TWO, "2.limit=0", "step 2: limit=0; it must be at least 1"),
        (TWO, "x.seed=1", "no setting 'x.seed'"),
        (f"{TWO}seed: 1\nseed: 2", "seed=1", "the setting 'seed' is given twice"),
        (f"{TWO}- a list", "seed=1", 'one "key: value" a line'),
        ("---\n", "seed=1", 'one "key: value" a line'),
    ],
)
def test_what_is_wrong_with_a_step_is_named(tmp_path: Path, text: str, override: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_steps(written(tmp_path, text), CLASSES, [override])


def test_a_step_in_bf16_leaves_the_next_one_as_it_is(tmp_path: Path) -> None:
    """transformers 4 keeps the precision of the last arguments in the environment, for all that follow."""
    first, second = read_steps(written(tmp_path, f"bf16: true\n---\noutput_dir: {tmp_path}\n"), CLASSES)
    first.settings()
    second.settings()
    assert os.environ.get(PRECISION, "no") == "no"


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"can't read none\.yaml"):
        read_steps("none.yaml", CLASSES)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_read(path: Path) -> None:
    kind = kind_of(next(name for start, name in KIND_OF.items() if path.stem.startswith(start)))
    steps = read_steps(path, (kind.settings_class, kind.arguments_class()))
    assert len(steps) == (3 if path.stem == "pair_ranker_mini" else 1)
    for step in steps:
        settings, arguments = step.settings()
        assert settings.data
        assert arguments.learning_rate > 0
