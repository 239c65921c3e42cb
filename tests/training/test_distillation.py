"""Labels from teachers: what is mixed, what is saved, and that a student learns them."""

import json
import shutil
from pathlib import Path

import pytest

from blender_hf import Blender
from blender_hf.data.labelled_reading import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.ranking import probability_of
from blender_hf.training.calibrate import compare_pairs
from blender_hf.training.distillation import distilled
from blender_hf.training.pair_data import training_pairs
from tests.conftest import build_ranker

from .test_training import accuracy, train

PAIRS = [
    PreferencePair("Who are you?", "I am a hen.", "Bananas.", 1.0, "talk"),
    PreferencePair("2 + 2?", "Four, I would say.", "5", 0.75, "sums"),
    PreferencePair("Who are you?", "I am a hen.", "Bananas.", 1.0, "talk"),
]


@pytest.fixture
def teachers(tmp_path: Path) -> list[str]:
    folders = [tmp_path / f"teacher{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(folders, 1):
        for part in build_ranker(seed=seed):
            part.save_pretrained(folder)
    return [str(folder) for folder in folders]


def test_labels_are_mixed_with_the_mean_of_the_teachers(teachers: list[str], tmp_path: Path) -> None:
    said = [[probability_of(r.logit) for r in compare_pairs(Blender.from_pretrained(t, None), PAIRS)] for t in teachers]
    assert abs(said[0][0] - said[1][0]) > 0.01
    mixed = distilled(PAIRS, teachers, 0.6, tmp_path / "saved.jsonl")
    for pair, before, first, second in zip(mixed, PAIRS, *said, strict=True):
        assert pair.label == pytest.approx(0.6 * (first + second) / 2 + 0.4 * before.label, abs=1e-5)
        assert (pair.prompt, pair.candidate_a, pair.source) == (before.prompt, before.candidate_a, before.source)


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


@pytest.mark.slow
def test_a_student_believes_its_teacher_and_not_the_labels(data: Path, ranker_config: Path, tmp_path: Path) -> None:
    assert train(ranker_config, "damaged_pairs=0") == 0
    wrong = tmp_path / "wrong.jsonl"
    with wrong.open("w", encoding="utf-8") as out:
        for line in data.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            record["pairs"] = [{**pair, "label": -pair["label"]} for pair in record["pairs"]]
            out.write(json.dumps(record) + "\n")
    changes = (f"output_dir={tmp_path / 'student'}", f"data=[{wrong}]", f"teachers=[{tmp_path / 'run'}]")
    assert train(ranker_config, *changes, "teacher_share=0.9", "damaged_pairs=0") == 0
    assert accuracy(tmp_path / "student", data) > 0.9
    n_pairs = len(list(training_pairs(read_labelled(wrong))))
    saved = (tmp_path / "student" / "trainer" / "teachers.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(len(json.loads(line)["probabilities"]) for line in saved) == n_pairs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("teacher_share=1.5",), "teacher_share=1.5; it is a share of the label"),
        (("teachers=[x]", "metrics=[score]"), "teachers give one verdict"),
    ],
)
def test_what_teachers_cannot_do_is_said(
    ranker_config: Path, capsys: pytest.CaptureFixture[str], changes: tuple[str, ...], said: str
) -> None:
    assert train(ranker_config, *changes) == 2
    assert said in capsys.readouterr().err
