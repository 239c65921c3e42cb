"""Probabilities that come true."""

import json
import random
from pathlib import Path

import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from blender_hf import Blender, PairRanker
from blender_hf.evaluation.calibration import calibration_of, expected_calibration_error, fit_temperature
from blender_hf.modeling.ranking_math import probability_of
from blender_hf.training import checkpoint
from tests.conftest import EXAMPLES, build_ranker

pytestmark = pytest.mark.once


def drawn(temperature: float, n: int = 4000) -> tuple[list[float], list[float]]:
    """Return logits, and labels drawn with their probabilities under a temperature."""
    rng = random.Random(0)
    logits = [rng.gauss(0, 2) for _ in range(n)]
    return logits, [float(rng.random() < probability_of(logit, temperature)) for logit in logits]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    errors = [
        expected_calibration_error([probability_of(logit, t) for logit in logits], labels) for t in (found, 4 * found)
    ]
    assert errors[0] < 0.03 < errors[1]


def test_certainty_that_is_always_right_or_always_wrong() -> None:
    assert expected_calibration_error([1.0, 0.0], [1.0, 0.0]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [0.0, 1.0]) == 1.0
    assert expected_calibration_error([], []) == 0.0


def test_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="2 logits and 1 labels"):
        fit_temperature([0.0, 1.0], [1.0])


def test_a_calibrated_ranker_lies_on_the_diagonal() -> None:
    rng = random.Random(0)
    logits = [rng.gauss(0, 2) for _ in range(6000)]
    labels = [float(rng.random() < probability_of(logit)) for logit in logits]
    honest = calibration_of([probability_of(logit) for logit in logits], labels)
    boastful = calibration_of([probability_of(4 * logit) for logit in logits], labels)
    assert honest is not None
    assert boastful is not None
    assert max(abs(a - b) for a, b in zip(honest.said, honest.came_true, strict=True)) < 0.08
    assert honest.error < 0.02 < boastful.error
    assert honest.brier < boastful.brier
    assert sum(honest.counts) == 6000
    assert len(honest.counts) == len(honest.said) == len(honest.came_true)


def test_ties_do_not_count_and_swapping_changes_nothing() -> None:
    said, labels = [0.9, 0.3, 0.5, 0.8], [1.0, 1.0, 0.5, 0.0]
    found = calibration_of(said, labels)
    assert found == calibration_of(said[:2] + said[3:], labels[:2] + labels[3:])
    swapped = calibration_of([1 - p for p in said], [1 - label for label in labels])
    assert found is not None
    assert swapped is not None
    assert swapped.error == pytest.approx(found.error)
    assert sum(found.counts) == 3
    assert calibration_of([0.9], [0.5]) is None
    assert calibration_of([], []) is None


def test_the_curve_is_that_of_scikit_learn() -> None:
    said, labels = drawn(2.0)
    found = calibration_of([probability_of(logit) for logit in said], labels)
    confident = [abs(probability_of(logit) - 0.5) * 2 for logit in said]
    right = [label == (logit > 0) for logit, label in zip(said, labels, strict=True)]
    true, predicted = calibration_curve(right, confident, n_bins=10)
    assert found is not None
    assert found.came_true == pytest.approx(list(true))
    assert found.said == pytest.approx([value / 2 + 0.5 for value in predicted])
    assert found.brier == pytest.approx(brier_score_loss(labels, [probability_of(logit) for logit in said]))


def test_the_fitted_temperature_is_stored_and_used(judged_ranker: tuple[Path, Path]) -> None:
    ranker, data = judged_ranker
    before = Blender.from_pretrained(ranker, None).compare("p", "a", "b")
    assert checkpoint.main(["calibrate", "--ranker", str(ranker), "--data", str(data)]) == 0
    temperature = json.loads((ranker / "config.json").read_text(encoding="utf-8"))["logit_temperature"]
    after = Blender.from_pretrained(ranker, None).compare("p", "a", "b")
    assert temperature != 1.0
    assert after.logit == before.logit
    assert after.probability == pytest.approx(probability_of(before.logit, temperature))


def test_a_new_weight_is_stored_before_the_temperature_is_fitted(judged_ranker: tuple[Path, Path]) -> None:
    ranker, data = judged_ranker
    plain = checkpoint.calibrate(ranker, data)
    assert (
        checkpoint.main(["calibrate", "--ranker", str(ranker), "--data", str(data), "--distinct-token-weight", "4"])
        == 0
    )
    config = PairRanker.from_pretrained(ranker).config
    assert config.distinct_token_weight == 4
    assert config.logit_temperature < plain, "with it, the ranker agrees with the judge"


def test_a_weight_that_is_no_number_changes_nothing(judged_ranker: tuple[Path, Path]) -> None:
    ranker, data = judged_ranker
    before = (ranker / "config.json").read_bytes()
    with pytest.raises(ValueError, match="it is a number, 0 for none"):
        checkpoint.calibrate(ranker, data, distinct_token_weight=float("nan"))
    assert (ranker / "config.json").read_bytes() == before


@pytest.fixture
def judged_ranker(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a small ranker, and a file of pairs whose judge prefers an answer to a word."""
    model, processor = build_ranker()
    model.save_pretrained(tmp_path / "ranker")
    processor.save_pretrained(tmp_path / "ranker")
    data = tmp_path / "dev.jsonl"
    records = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()[:4]]
    for record in records:
        record["candidates"] = [record["candidates"][0], {"text": "No."}]
        record["pairs"] = [{"a": 0, "b": 1, "label": 1}]
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return tmp_path / "ranker", data
