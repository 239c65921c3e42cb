"""Settings from a YAML file: typed, and nothing that is misspelt is passed over."""

from pathlib import Path

import pytest

from blender_hf import InputError
from blender_hf.training.kinds import KINDS
from blender_hf.training.ranker_trainer import PairRankerTrainingArguments
from blender_hf.training.settings import RankerSettings, read_settings

ROOT = Path(__file__).parents[2]
CLASSES = (RankerSettings, PairRankerTrainingArguments)
KIND_OF = {
    "pair_ranker": "ranker",
    "gen_fuser": "fuser",
    "ablations": "ranker",
    "reward_model": "reward-model",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_keys_are_fields_and_the_command_line_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "model: org/encoder\ndata: [a.jsonl, b.jsonl]\nlearning_rate: 1e-4\nsymmetric: true\n")
    (settings, arguments), given = read_settings(
        path, CLASSES, ["learning_rate=3e-5", "symmetric=false", "leave_out=[x]"]
    )
    assert (settings.model, settings.data, settings.leave_out) == ("org/encoder", ["a.jsonl", "b.jsonl"], ["x"])
    assert settings.symmetric is False
    assert arguments.learning_rate == 3e-5
    assert set(given) == {"model", "data", "learning_rate", "symmetric", "leave_out"}


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
        read_settings(written(tmp_path, text), CLASSES, overrides)


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
    kind = KINDS["fuser"]
    with pytest.raises(InputError, match=message):
        read_settings(written(tmp_path, "ranker: r"), (kind.settings, kind.arguments()), [override])


def test_a_bare_no_is_a_name(tmp_path: Path) -> None:
    text = "model: m\nsave_strategy: no\nlanguages: [no, en]"
    (settings, arguments), given = read_settings(written(tmp_path, text), CLASSES)
    assert settings.languages == ["no", "en"]
    assert arguments.save_strategy == "no"
    assert given["save_strategy"] == "no"
    (settings, _), _ = read_settings(written(tmp_path, "model: m"), CLASSES, ["languages=no"])
    assert settings.languages == ["no"]


@pytest.mark.parametrize(
    ("in_hardware", "text", "bf16"), [(False, "", False), (True, "", True), (False, "bf16: true", True)]
)
def test_emulated_bf16_is_only_taken_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_hardware: bool, text: str, bf16: bool
) -> None:
    monkeypatch.setattr("blender_hf.training.settings.has_bfloat16", lambda device: in_hardware)
    kind = KINDS["reward-model"]
    path = written(tmp_path, f"model: m\noutput_dir: {tmp_path}\n{text}")
    (_, arguments), _ = read_settings(path, (kind.settings, kind.arguments()))
    assert arguments.bf16 is bf16


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"can't read none\.yaml"):
        read_settings("none.yaml", CLASSES)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_read(path: Path, tmp_path: Path) -> None:
    kind = KINDS[next(name for start, name in KIND_OF.items() if path.stem.startswith(start))]
    (settings, arguments), _ = read_settings(path, (kind.settings, kind.arguments()), [f"output_dir={tmp_path}"])
    assert settings.data
    assert arguments.learning_rate > 0
