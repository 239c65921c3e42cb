"""Labels from teachers: what is mixed, what is saved, and that a student learns them."""

import json
import shutil
from pathlib import Path

import pytest

from blender_hf import Blender
from blender_hf.data.jobs import open_log
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.modeling.ranking_math import probability_of
from blender_hf.training.distillation import distilled
from blender_hf.training.loading import Subsample, load_training_data, subsample_of_run
from blender_hf.training.pair_data import training_pairs, unjudged_pairs
from blender_hf.training.settings import DataSettings
from tests.conftest import build_ranker

from .test_training import accuracy, train

PAIRS = [
    PreferencePair.of("Who are you?", "I am a hen.", "Bananas.", 1.0, "talk"),
    PreferencePair.of("2 + 2?", "Four, I would say.", "5", 0.75, "sums"),
    PreferencePair.of("Who are you?", "I am a hen.", "Bananas.", 1.0, "talk"),
]
# Of "prompt 0", "prompt 1", ..., in a subsample of 0.3 and seed 1.
FIRST_IN_SUBSAMPLE = [False, True, False, False, False, False, True, False, True, True, True, False]


@pytest.fixture
def teachers(tmp_path: Path) -> list[str]:
    folders = [tmp_path / f"teacher{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(folders, 1):
        for part in build_ranker(seed=seed):
            part.save_pretrained(folder)
    return [str(folder) for folder in folders]


def test_labels_are_mixed_with_the_mean_of_the_teachers(teachers: list[str], tmp_path: Path) -> None:
    said = [
        [probability_of(r.logit) for r in Blender.from_pretrained(t, None).iter_compare(p.item for p in PAIRS)]
        for t in teachers
    ]
    assert abs(said[0][0] - said[1][0]) > 0.01
    mixed = distilled(PAIRS, teachers, 0.6, tmp_path / "saved.jsonl")
    for pair, before, first, second in zip(mixed, PAIRS, *said, strict=True):
        assert pair.label == pytest.approx(0.6 * (first + second) / 2 + 0.4 * before.label, abs=1e-5)
        assert (pair.prompt, pair.candidate_a, pair.source) == (before.prompt, before.candidate_a, before.source)


def test_unjudged_pairs_have_the_label_of_the_teachers_alone(teachers: list[str], tmp_path: Path) -> None:
    said = [
        [probability_of(r.logit) for r in Blender.from_pretrained(t, None).iter_compare(p.item for p in PAIRS)]
        for t in teachers
    ]
    found = distilled(PAIRS[:1], teachers, 0.5, tmp_path / "saved.jsonl", PAIRS[1:2])
    assert found[1].label == pytest.approx((said[0][1] + said[1][1]) / 2, abs=1e-5)
    assert found[0].label == pytest.approx(0.25 * (said[0][0] + said[1][0]) + 0.5, abs=1e-5)


@pytest.mark.once
def test_all_pairs_of_a_judged_prompt_are_the_teachers() -> None:
    records = [
        {"prompt": "p", "candidates": ["a", "b", "c", "a", "d"], "pairs": [{"a": 1, "b": 0, "label": 1}]},
        {"prompt": "other", "candidates": ["a", "b", "c"], "scores": [1, 2, 3]},
        {"prompt": "p", "candidates": ["a", "c", "e"], "pairs": [{"a": 0, "b": 1, "label": 1}]},
    ]
    prompts = list(read_labelled(records))
    judged = [pair for pair in training_pairs(prompts) if pair.prompt == "p"]
    found = {frozenset(pair.item.texts) for pair in unjudged_pairs(prompts, judged)}
    assert {"".join(sorted(pair)) for pair in found} == {"ad", "bc", "bd", "cd", "ae", "ce"}
    assert len(unjudged_pairs(prompts, judged, most=5)) == 3
    assert not unjudged_pairs(prompts, judged, most=1)


def test_an_interrupted_run_asks_nothing_twice(teachers: list[str], tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    first = distilled(PAIRS[:1], teachers, 1.0, saved)
    with saved.open("a", encoding="utf-8") as file:
        file.write('{"teacher": "')  # killed while it wrote
    both = distilled(PAIRS, teachers, 1.0, saved)
    assert both[0] == first[0]
    for teacher in teachers:
        shutil.rmtree(teacher)
    assert distilled(PAIRS, teachers, 1.0, saved) == both


def test_processes_that_find_nothing_missing_need_no_lock(teachers: list[str], tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    first = distilled(PAIRS, teachers, 1.0, saved)
    with open_log(saved):
        assert distilled(PAIRS, teachers, 1.0, saved) == first


def test_a_teacher_with_other_weights_is_asked_again(teachers: list[str], tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    before = distilled(PAIRS, teachers[:1], 1.0, saved)
    shutil.rmtree(teachers[0])
    shutil.copytree(teachers[1], teachers[0])
    after = distilled(PAIRS, teachers[:1], 1.0, saved)
    assert after != before
    assert after == distilled(PAIRS, teachers[1:], 1.0, saved)


def test_a_subsample_is_the_same_everywhere() -> None:
    prompts = [f"prompt {k}" for k in range(2000)]
    subsample = Subsample(0.3, seed=1)
    inside = {prompt for prompt in prompts if prompt in subsample}
    assert 0.25 < len(inside) / len(prompts) < 0.35
    assert inside == {prompt for prompt in reversed(prompts) if prompt in Subsample(0.3, seed=1)}
    assert inside < {prompt for prompt in prompts if prompt in Subsample(0.6, seed=1)}
    assert 0.2 < sum(prompt in Subsample(0.3, seed=2) for prompt in inside) / len(inside) < 0.4
    assert all(prompt in Subsample() for prompt in prompts)
    # What runs that are finished were trained on must not change with a release.
    assert [prompt in subsample for prompt in prompts[:12]] == FIRST_IN_SUBSAMPLE


def test_a_teacher_has_no_say_on_what_it_was_trained_on(teachers: list[str], tmp_path: Path) -> None:
    """A teacher has memorised what it has seen; a pair that all have seen keeps its label."""
    seen = {seed: "Who are you?" in Subsample(0.5, seed) for seed in (1, 2)}
    assert seen == {1: True, 2: False}
    for teacher, seed in zip(teachers, seen, strict=True):
        run = {"settings": {"train_fraction": 0.5, "train_fraction_seed": seed}}
        (Path(teacher) / "run.json").write_text(json.dumps(run), encoding="utf-8")
        assert subsample_of_run(teacher) == Subsample(0.5, seed)
    asked = [pair for pair in PAIRS if pair.prompt == "Who are you?"]
    [said, _] = Blender.from_pretrained(teachers[1], None).iter_compare(pair.item for pair in asked)
    mixed = distilled(asked, teachers, 0.6, tmp_path / "saved.jsonl")
    assert mixed[0].label == pytest.approx(0.6 * probability_of(said.logit) + 0.4 * asked[0].label, abs=1e-5)
    assert distilled(asked, teachers[:1], 0.6, tmp_path / "other.jsonl") == asked


def test_a_run_that_had_all_prompts_judges_all(tmp_path: Path) -> None:
    assert subsample_of_run(tmp_path) is None
    (tmp_path / "run.json").write_text('{"settings": {"train_fraction": 1.0}}', encoding="utf-8")
    assert subsample_of_run(tmp_path) is None
    (tmp_path / "run.json").write_text('{"settings": {}}', encoding="utf-8")  # of an earlier release
    assert subsample_of_run(tmp_path) is None


def test_a_subsample_leaves_prompts_out_of_training(data: Path) -> None:
    everything = load_training_data(DataSettings([str(data)])).prompts
    half = load_training_data(DataSettings([str(data)], train_fraction=0.5, train_fraction_seed=3)).prompts
    assert half == [prompt for prompt in everything if prompt.item.source in Subsample(0.5, 3)]
    assert 0 < len(half) < len(everything)


@pytest.mark.slow
def test_a_student_believes_its_teacher_and_not_the_labels(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    learning = ("synthetic_negatives=0", "short_pairs=20", "head_learning_rate=5e-3", "dropout=0.0")
    assert train(ranker_config, *learning) == 0
    wrong = tmp_path / "wrong.jsonl"
    with wrong.open("w", encoding="utf-8") as out:
        for line in data.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            record["pairs"] = [{**pair, "label": -pair["label"]} for pair in record["pairs"]]
            out.write(json.dumps(record) + "\n")
    changes = (f"output_dir={tmp_path / 'student'}", f"data=[{wrong}]", f"teachers=[{tmp_path / 'run'}]")
    assert train(ranker_config, *changes, "teacher_share=0.9", *learning) == 0
    assert accuracy(tmp_path / "student", data) > 0.9
    n_pairs = len(list(training_pairs(read_labelled(wrong))))
    saved = (tmp_path / "student" / "trainer" / "teachers.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(len(json.loads(line)["probabilities"]) for line in saved) == n_pairs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("train_fraction=0",), "train_fraction=0.0; it must be above 0 and at most 1"),
        (("teacher_share=1.5",), "teacher_share=1.5; it must be from 0 to 1"),
        (("teacher_pairs=some",), "teacher_pairs='some'; use judged or all"),
        (("teacher_pairs=all",), "there are none; name teachers"),
        (("teachers=[x]", "metrics=[score]"), "teachers give one label"),
    ],
)
def test_what_teachers_cannot_do_is_said(
    ranker_config: Path, capsys: pytest.CaptureFixture[str], changes: tuple[str, ...], said: str
) -> None:
    assert train(ranker_config, *changes) == 2
    assert said in capsys.readouterr().err
