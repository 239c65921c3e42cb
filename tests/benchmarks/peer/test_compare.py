"""The comparison with the official package, on measurements made up by hand."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.inputs import make_job, read_records
from benchmarks.peer.compare import Bench, parse, variant_of
from benchmarks.peer.our_worker import OurEngine
from benchmarks.peer.products import model_flops
from benchmarks.peer.report import Cell, Part, judge, report
from benchmarks.peer.settings import AIMS, NARROW, PEER_DEFAULT, REFERENCE, SETTINGS
from benchmarks.tables import markdown_of
from blender_hf.modeling import fast_kernels
from tests.conftest import backbone_config

pytestmark = pytest.mark.once


def part_of(seconds: dict[str, Sequence[float]], top: Sequence[int] = (0, 1)) -> object:
    """Make a part in which settings took some seconds for two prompts with two candidates."""
    part = Part("mini", "cpu", {2: {}})
    for setting in SETTINGS:
        for taken in seconds.get(setting.name, ()):
            logits = [[[0.0, 1.0], [-1.0, 0.0]]] * 2 if setting.method == "full" else None
            result = {
                "seconds": taken,
                "lengths": [30] * 4,
                "shapes": [(2, 40), (2, 40)],
                "places": 160,
                "logits": logits,
            }
            cell = part.cells.setdefault((2, setting.name), Cell(2, setting))
            cell.add({**result, "top": list(top) if "bfloat16" in setting.name else [0, 1], "peak_mib": 1.0})
    return part


def test_a_ratio_is_that_of_medians_to_the_fastest_of_the_peer() -> None:

    times = {"peer, full, batch 1": [2.0, 9.0, 2.6], PEER_DEFAULT: [8.0], REFERENCE: [2.0]}
    part = part_of(times)
    best, default = (judge(aim, [part], {})[0] for aim in AIMS[:2])
    assert (best["worst"], best["reached"]) == (1.3, True)
    assert (default["worst"], default["reached"]) == (4.0, True)
    slower = part_of({**times, REFERENCE: [2.1]})
    assert not any(judge(aim, [slower], {})[0]["reached"] for aim in AIMS[:2])


def test_speed_without_the_same_best_candidate_does_not_count() -> None:

    times = {"peer, full, batch 1": [9.0], REFERENCE: [1.0], NARROW[0]: [1.0]}
    aim = AIMS[2]
    assert judge(aim, [part_of(times)], {})[0]["reached"]
    other = judge(aim, [part_of(times, top=(0, 0))], {})[0]
    assert (other["worst"], other["agreement"], other["reached"]) == (9.0, (1, 2), False)
    trained = {"same": {NARROW[0]: 99}, "prompts": 100}
    assert judge(aim, [part_of(times, top=(0, 0))], trained)[0]["reached"]


def test_the_report_says_what_was_not_measured() -> None:

    machine = {"processor": "p", "gpu": None, "ours": "o", "peer": "q", "load average at the end": 0.0}
    machine["options"] = {"prompts": 2, "words": [1, 2], "seed": 0}
    sections, details = report([part_of({REFERENCE: [2.0]})], {}, machine)
    text = markdown_of(sections)
    assert f"| {REFERENCE} | 2 | 2.00 | 2.00 | 60 | 25% |" in text
    assert "best of 10, against the peer's full ranking at its best: **not measured**" in text
    assert details["parts"][0]["seconds"] == {f"{REFERENCE}, 2 candidates": [2.0]}


def test_answers_are_mixed_in_length_and_all_different() -> None:
    job = make_job(read_records(), 8, 10, (15, 300))
    assert [len(texts) for texts in job["candidates"]] == [10] * 8
    assert all(len(set(texts)) == 10 for texts in job["candidates"])
    lengths = sorted(len(text.split(" ")) for texts in job["candidates"] for text in texts)
    assert lengths[0] < 25
    assert lengths[-1] > 200
    assert job == make_job(read_records(), 8, 10, (15, 300))


def test_operations_are_counted_by_hand() -> None:
    bert, deberta = backbone_config("bert", 10), backbone_config("deberta-v2", 10)
    # Two layers of 32, inner 64, for 3 tokens: four square products, two of the inner layer, two of attention.
    linear, attention = 4 * 32 * 32 + 2 * 32 * 64, 2 * 3 * 32
    assert model_flops(bert, [3], n_read=3) == 2 * 2 * 3 * (linear + attention)
    # Of the last layer, keys and values of all tokens, and the rest of one.
    last = 3 * 2 * 32 * 32 + (linear - 2 * 32 * 32) + attention
    assert model_flops(bert, [3], n_read=1) == 2 * (3 * (linear + attention) + last)
    # Both position terms, each of the 5 relative positions of 3 tokens.
    assert model_flops(deberta, [3, 3], n_read=3) == 2 * 2 * 2 * 3 * (linear + attention + 2 * 5 * 32)


def test_what_was_not_measured_is_guessed_from_what_is_like_it() -> None:
    part = part_of({"peer, full, batch 8": [4.0]})
    assert part.expected_seconds("peer, full, batch 8", 10) == 4.0 * 45
    assert part.expected_seconds("peer, bubble, batch 8", 10) == 4.0 * 9
    assert part.expected_seconds("peer, bubble, batch 1", 10) is None


def test_runs_of_different_things_have_places_of_their_own() -> None:
    mini = parse(["--shapes", "mini", "--devices", "cpu"])
    assert variant_of(mini) == "--shapes mini"
    only = parse(["--shapes", "mini", "base", "--dtypes", "float32", "--devices", "cpu"])
    assert variant_of(only) == "--shapes mini base --dtypes float32"
    gpu = parse(["--shapes", "mini", "--devices", "cuda"])
    assert variant_of(gpu) == "--shapes mini --devices cuda"
    ten = parse(["--shapes", "mini", "--devices", "cpu", "--candidates", "10"])
    assert variant_of(ten) == "--shapes mini --candidates 10"


@pytest.mark.parametrize(("method", "sequences"), [("full", 6), ("best", 4), ("schedule", 6), ("pointwise", 3)])
def test_our_side_runs_in_every_way(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, method: str, sequences: int
) -> None:

    monkeypatch.setattr(
        fast_kernels, "FLASH_DEVICE", fast_kernels.FLASH_DEVICE
    )  # which a setting without the kernel changes
    options = {"schedule": "knockout"} if method == "best" else {}
    setting = {"ranker": str(checkpoints / "ranker"), "device": "cpu", "dtype": "float32"}
    engine = OurEngine({**setting, "method": method, "options": options, "extra": ""})
    job = make_job(read_records(), 2, 3, (5, 10))
    found = engine.describe(job, engine.run(job))
    assert found["top"] is None if method == "pointwise" else len(found["top"]) == 2
    assert len(engine.meter.read()["lengths"]) == 2 * sequences


def test_a_worker_that_can_t_load_is_said_and_left_out(tmp_path: Path) -> None:
    """The official package is not in this environment, so its worker ends at once."""
    options = parse(["--peer-python", sys.executable, "--devices", "cpu"])
    peer = next(setting for setting in SETTINGS if setting.side == "peer")
    with Bench(options, tmp_path, [])._workers([peer], "nowhere", "cpu") as (workers, failures):
        assert workers == {}
        assert "llm_blender" in failures[peer.name]
