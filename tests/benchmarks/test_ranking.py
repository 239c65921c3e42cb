"""The arithmetic of benchmarks/ranking.py: what it says of measurements, on measurements that are made up."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from blender_hf.modeling import flash_deberta
from tests.conftest import EXAMPLES, backbone_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ranking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return pytest.importorskip("ranking")


def part_of(ranking: ModuleType, seconds: dict[str, Sequence[float]], top: Sequence[int] = (0, 1)) -> object:
    """Make a part in which settings took some seconds for two prompts with two candidates."""
    part = ranking.Part("mini", "cpu", {2: {}})
    for setting in ranking.SETTINGS:
        for taken in seconds.get(setting.name, ()):
            logits = [[[0.0, 1.0], [-1.0, 0.0]]] * 2 if setting.method == "full" else None
            result = {
                "seconds": taken,
                "lengths": [30] * 4,
                "shapes": [(2, 40), (2, 40)],
                "places": 160,
                "logits": logits,
            }
            cell = part.cells.setdefault((2, setting.name), ranking.Cell(2, setting))
            cell.add({**result, "top": list(top) if "bfloat16" in setting.name else [0, 1], "peak_mib": 1.0})
    return part


def test_a_ratio_is_that_of_medians_to_the_fastest_of_the_peer(ranking: ModuleType) -> None:
    from ranking_report import judge
    from ranking_settings import AIMS, PEER_DEFAULT, REFERENCE

    times = {"peer, full, batch 1": [2.0, 9.0, 2.6], PEER_DEFAULT: [8.0], REFERENCE: [2.0]}
    part = part_of(ranking, times)
    best, default = (judge(aim, [part], {})[0] for aim in AIMS[:2])
    assert (best["worst"], best["reached"]) == (1.3, True)
    assert (default["worst"], default["reached"]) == (4.0, True)
    slower = part_of(ranking, {**times, REFERENCE: [2.1]})
    assert not any(judge(aim, [slower], {})[0]["reached"] for aim in AIMS[:2])


def test_speed_without_the_same_best_candidate_does_not_count(ranking: ModuleType) -> None:
    from ranking_report import judge
    from ranking_settings import AIMS, NARROW, REFERENCE

    times = {"peer, full, batch 1": [9.0], REFERENCE: [1.0], NARROW[0]: [1.0]}
    aim = AIMS[2]
    assert judge(aim, [part_of(ranking, times)], {})[0]["reached"]
    other = judge(aim, [part_of(ranking, times, top=(0, 0))], {})[0]
    assert (other["worst"], other["agreement"], other["reached"]) == (9.0, (1, 2), False)
    trained = {"same": {NARROW[0]: 99}, "prompts": 100}
    assert judge(aim, [part_of(ranking, times, top=(0, 0))], trained)[0]["reached"]


def test_the_report_says_what_was_not_measured(ranking: ModuleType) -> None:
    from ranking_report import report
    from ranking_settings import REFERENCE

    machine = {"processor": "p", "cores": 2, "gpu": None, "ours": "o", "peer": "q", "load average at the end": 0.0}
    machine["options"] = {"prompts": 2, "words": [1, 2], "seed": 0}
    text, figures = report([part_of(ranking, {REFERENCE: [2.0]})], {}, machine)
    assert f"| {REFERENCE} | 2 | 2.00 | 2.00 | 60 | 25% |" in text
    assert "best of 10, against the peer's full ranking at its best: **not measured**" in text
    assert figures["parts"][0]["cells"][0]["seconds"] == [2.0]


def test_answers_are_mixed_in_length_and_all_different(ranking: ModuleType) -> None:
    job = ranking.make_job(ranking.read_records(EXAMPLES), 8, 10, (15, 300))
    assert [len(texts) for texts in job["candidates"]] == [10] * 8
    assert all(len(set(texts)) == 10 for texts in job["candidates"])
    lengths = sorted(len(text.split(" ")) for texts in job["candidates"] for text in texts)
    assert lengths[0] < 25
    assert lengths[-1] > 200
    assert job == ranking.make_job(ranking.read_records(EXAMPLES), 8, 10, (15, 300))


def test_operations_are_counted_by_hand(ranking: ModuleType) -> None:
    bert, deberta = backbone_config("bert", 10), backbone_config("deberta-v2", 10)
    # Two layers of 32, inner 64, for 3 tokens: four square products, two of the inner layer, two of attention.
    linear, attention = 4 * 32 * 32 + 2 * 32 * 64, 2 * 3 * 32
    assert ranking.model_flops(bert, [3], n_read=3) == 2 * 2 * 3 * (linear + attention)
    # Of the last layer, keys and values of all tokens, and the rest of one.
    last = 3 * 2 * 32 * 32 + (linear - 2 * 32 * 32) + attention
    assert ranking.model_flops(bert, [3], n_read=1) == 2 * (3 * (linear + attention) + last)
    # Both position terms, each of the 5 relative positions of 3 tokens.
    assert ranking.model_flops(deberta, [3, 3], n_read=3) == 2 * 2 * 2 * 3 * (linear + attention + 2 * 5 * 32)


def test_what_was_not_measured_is_guessed_from_what_is_like_it(ranking: ModuleType) -> None:
    part = part_of(ranking, {"peer, full, batch 8": [4.0]})
    assert part.expected_seconds("peer, full, batch 8", 10) == 4.0 * 45
    assert part.expected_seconds("peer, bubble, batch 8", 10) == 4.0 * 9
    assert part.expected_seconds("peer, bubble, batch 1", 10) is None


def test_runs_of_different_things_have_places_of_their_own(ranking: ModuleType) -> None:
    mini = ranking.parse(["--shapes", "mini", "--devices", "cpu"])
    assert ranking.mark_of(mini) == "benchmarks/ranking.py --shapes mini"
    only = ranking.parse(["--shapes", "mini", "base", "--dtypes", "float32", "--devices", "cpu"])
    assert ranking.mark_of(only) == "benchmarks/ranking.py --shapes mini base --dtypes float32"
    gpu = ranking.parse(["--shapes", "mini", "--devices", "cuda"])
    assert ranking.mark_of(gpu) == "benchmarks/ranking.py --shapes mini --devices cuda"
    ten = ranking.parse(["--shapes", "mini", "--devices", "cpu", "--candidates", "10"])
    assert ranking.mark_of(ten) == "benchmarks/ranking.py --shapes mini --candidates 10"


@pytest.mark.parametrize(("method", "sequences"), [("full", 6), ("best", 4), ("schedule", 6), ("pointwise", 3)])
def test_our_side_runs_in_every_way(
    ranking: ModuleType, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, method: str, sequences: int
) -> None:
    from ranking_worker import OwnEngine

    monkeypatch.setattr(flash_deberta, "DEVICE", flash_deberta.DEVICE)  # which a setting without the kernel changes
    options = {"schedule": "knockout"} if method == "best" else {}
    setting = {"ranker": str(checkpoints / "ranker"), "device": "cpu", "dtype": "float32"}
    engine = OwnEngine({**setting, "method": method, "options": options, "extra": ""})
    job = ranking.make_job(ranking.read_records(EXAMPLES), 2, 3, (5, 10))
    found = engine.describe(job, engine.run(job))
    assert found["top"] is None if method == "pointwise" else len(found["top"]) == 2
    assert len(engine.meter.read()["lengths"]) == 2 * sequences


def test_a_worker_that_can_t_load_is_said_and_left_out(ranking: ModuleType, tmp_path: Path) -> None:
    """The official package is not in this environment, so its worker ends at once."""
    options = ranking.parse(["--peer-python", sys.executable, "--devices", "cpu"])
    peer = next(setting for setting in ranking.SETTINGS if setting.side == "peer")
    with ranking.Bench(options, tmp_path, [])._workers([peer], "nowhere", "cpu") as (workers, failures):
        assert workers == {}
        assert "llm_blender" in failures[peer.name]
