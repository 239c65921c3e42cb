"""The same job on a real Ray cluster of this machine: same rows, whoever dies."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from blender_hf.data.sources import Entry, open_source
from blender_hf.errors import CheckpointError, InputError
from blender_hf.labelling.job import label, work_here
from blender_hf.labelling.parts import PartMaker, RawPart
from blender_hf.labelling.ray_engine import RayEngine, _part, _parts_datasource, _table, _Worker
from blender_hf.labelling.settings import LabelSettings, RankingSettings

from .conftest import small_settings, written
from .dying import DyingMaker

pytestmark = pytest.mark.once


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with this process, and three machines for an actor each; Ray starts its processes itself, afresh."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(3):
            cluster.add_node(wait=False, num_cpus=1)
        cluster.wait_for_nodes(timeout=300)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.once
def test_actors_and_a_machine_die_and_the_rows_are_the_same(
    cluster: Cluster, values: list[dict[str, Any]], checkpoints: Path, tmp_path: Path
) -> None:
    data = written(tmp_path / "in.jsonl", [*values[:3], "{", *values[3:]])
    ranking = RankingSettings({"ranker": str(checkpoints / "ranker"), "device": "cpu"})
    settings = small_settings(ranking=ranking, form="rewards", part_size=1, skip_bad=True)
    label(open_source(data), tmp_path / "whole.jsonl", settings)

    def killed(*arguments: Any) -> Any:
        yield next(work_here(*arguments))
        raise Killed

    # A job that one process began goes on with a cluster.
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", settings, engine=killed)
    notes = tmp_path / "notes"
    notes.mkdir()
    engine = RayEngine(workers=2, maker=DyingMaker(notes))
    summary = label(open_source(data), tmp_path / "out.jsonl", settings, engine=engine)
    assert (summary["resumed"], summary["bad"], summary["records"]) == (1, 1, len(values) + 1)
    made = [path.name.split("-") for path in notes.glob("part-*")]
    assert {index for _, index, _ in made} == {str(n) for n in range(1, len(values) + 1)}
    assert len({pid for _, _, pid in made}) >= 4, "two actors worked, and others after them"
    assert len(list(notes.glob("death-*"))) == 2
    assert sum(node["Alive"] for node in ray.nodes()) == 3
    for suffix in (".jsonl", ".jsonl.bad.jsonl"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def broken_maker(settings: LabelSettings, conversational: bool) -> PartMaker:
    raise CheckpointError("there are no weights")


@pytest.mark.usefixtures("called")
@pytest.mark.parametrize(
    ("maker", "error", "message"),
    [(PartMaker, InputError, r"^here: no candidates"), (broken_maker, CheckpointError, r"^there are no weights")],
)
def test_errors_come_back_as_they_are(maker: Any, error: type[Exception], message: str) -> None:
    """What an actor gives for records that can't be used, and for a ranker that can't be loaded."""
    worker = _Worker(maker, small_settings(), False)
    raw = RawPart(0, (Entry(0, 1, "here", {"prompt": "p"}),))
    (row,) = worker(_table([{"part": pickle.dumps(raw)}])).to_pylist()
    with pytest.raises(error, match=message):
        _part(row)


def test_an_error_of_reading_comes_back_too() -> None:
    def read() -> Iterator[RawPart]:
        yield RawPart(0, ())
        raise InputError("can't read it")

    (task,) = _parts_datasource(read).get_read_tasks(1)
    *_, last = task()
    with pytest.raises(InputError, match="can't read it"):
        _part(_Worker(broken_maker_of_nothing, small_settings(), False)(last).to_pylist()[0])


def broken_maker_of_nothing(settings: LabelSettings, conversational: bool) -> None:
    return None


@pytest.mark.parametrize(("options", "message"), [({"workers": 0}, "workers=0"), ({"gpus_per_worker": -1}, "gpus_per")])
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayEngine(**options)
