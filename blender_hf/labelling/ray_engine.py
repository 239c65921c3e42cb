"""The parts of a job on a Ray cluster: Ray Data maps them over a pool of actors, each with a ranker of its own.

One task on the driver's machine reads the source, and the driver keeps the parts, so the other machines need neither
the input nor the output. A part depends on its records alone: one whose actor, or whole machine, is lost is made again
elsewhere, with the same rows. Parts may come in any order: rows are
written in the order of their numbers.
"""

import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blender_hf.errors import BlenderError, InputError, require
from blender_hf.logs import quieten_libraries

from .parts import Part, PartMaker, RawPart
from .settings import LabelSettings

# Ray Data gathers rows into blocks of about this many bytes, and a block is what an actor gets. A row is a whole part,
# so every row is a block.
BLOCK_BYTES = 1


@dataclass(frozen=True)
class RayEngine:
    """Makes parts on Ray: the cluster of `RAY_ADDRESS`, or one of this machine."""

    workers: int = 1  # how many actors
    gpus_per_worker: float = 0  # how many GPUs each has, or which share of one; 0 runs on CPUs
    maker: Callable[[LabelSettings, bool], PartMaker] = PartMaker  # what an actor makes parts with

    def __post_init__(self) -> None:
        require("ray.data", "ray", "--engine ray")
        if self.workers < 1:
            raise InputError(f"workers={self.workers}; at least one is needed")
        if not self.gpus_per_worker >= 0:
            raise InputError(f"gpus_per_worker={self.gpus_per_worker}; use 0 or more")

    def __call__(
        self, read: Callable[[], Iterator[RawPart]], settings: LabelSettings, conversational: bool
    ) -> Iterator[Part]:
        """Make parts, in any order; an error of the work is raised as it was there."""
        ray = _start_ray()
        context = ray.data.DataContext.get_current().copy()
        context.target_max_block_size = BLOCK_BYTES
        context.enable_progress_bars = False
        with ray.data.DataContext.current(context):
            rows = ray.data.read_datasource(_parts_datasource(read), override_num_blocks=1, num_cpus=0).map_batches(
                _Worker,
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=self.workers),
                num_cpus=1,
                num_gpus=self.gpus_per_worker or None,
                fn_constructor_args=(self.maker, settings, conversational),
            )
            for row in rows.iter_rows():
                yield _part(row)


class _Worker:
    """What an actor does."""

    def __init__(
        self, maker: Callable[[LabelSettings, bool], PartMaker], settings: LabelSettings, conversational: bool
    ) -> None:
        # It speaks into the logs of the cluster, where what the libraries report of loading is of no use.
        quieten_libraries()
        self.error: BlenderError | None = None
        try:
            self.maker = maker(settings, conversational)
        except BlenderError as error:
            self.error = error

    def __call__(self, batch: Any) -> Any:
        return _table([self._made(pickle.loads(raw.as_py())) for raw in batch["part"]])

    def _made(self, raw: RawPart | BlenderError) -> dict[str, Any]:
        # An error of ours travels as a result: Ray would wrap it, and try again what can't succeed.
        try:
            if self.error is not None:
                raise self.error
            if isinstance(raw, BlenderError):
                raise raw
            part = self.maker.make(raw)
        except BlenderError as error:
            return {"error": pickle.dumps(error), "part": ""}
        return {"error": b"", "part": part.to_line()}


def _part(row: dict[str, Any]) -> Part:
    if row["error"]:
        raise pickle.loads(row["error"])
    return Part.from_line(row["part"])


def _parts_datasource(read: Callable[[], Iterator[RawPart]]) -> Any:
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def blocks() -> Iterator[Any]:
        try:
            for raw in read():
                yield _table([{"part": pickle.dumps(raw)}])
        except BlenderError as error:
            yield _table([{"part": pickle.dumps(error)}])

    class PartsDatasource(Datasource):
        """One task that reads all parts, in the order in which they stand."""

        @property
        def supports_distributed_reads(self) -> bool:
            return False

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(blocks, unknown)]

    return PartsDatasource()


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


def _start_ray() -> Any:
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return ray
