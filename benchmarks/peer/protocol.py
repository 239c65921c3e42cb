"""A worker process of either package: jobs come in and measurements go out, as JSON lines.

Runs in the peer's environment too, so it imports only torch.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

Json = dict[str, Any]


class Engine(Protocol):
    """A loaded ranker in one setting."""

    meter: "Meter"

    def run(self, job: Json) -> Any:
        """Do the timed work."""

    def describe(self, job: Json, result: Any) -> Json:
        """Return the outputs, after the clock has stopped."""


class Meter:
    """Counts the inputs of an encoder by hooks: real tokens at its call, computed positions at its first layer.

    `model` is called with `attention_mask=`; `layer` is the first of the encoder. A batch packed into one row counts as
    a batch of sequences of equal length with as many tokens.
    """

    def __init__(self, model: nn.Module, layer: nn.Module) -> None:
        self.clear()
        model.register_forward_pre_hook(self._called, with_kwargs=True)
        layer.register_forward_pre_hook(self._computed, with_kwargs=True)

    def clear(self) -> None:
        """Reset the counters."""
        self._lengths: list[torch.Tensor] = []
        self._places: list[int] = []

    def read(self) -> Json:
        """Return the real tokens of each sequence, and the (sequences, length) and positions of each computed batch."""
        lengths = [length for batch in self._lengths for length in batch.tolist()]
        sizes = [len(batch) for batch in self._lengths]
        shapes = [(size, round(places / size)) for size, places in zip(sizes, self._places, strict=True)]
        return {"lengths": lengths, "shapes": shapes, "places": sum(self._places)}

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._lengths.append(kwargs["attention_mask"].sum(dim=-1))  # read later, to not wait for a GPU here

    def _computed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self._places.append(hidden.shape[:-1].numel())


def serve(load: Callable[[Json], Engine], extra: Mapping[str, Callable[[Engine, Json], Json]] | None = None) -> None:
    """Load the setting of the first line, then answer every line with a measurement.

    A message `{"op": name}` asks for an operation of `extra`; one without is a timed run.
    """
    with _own_stdout() as answer:
        setting = json.loads(sys.stdin.readline())
        if setting.get("threads"):
            torch.set_num_threads(setting["threads"])
        try:
            engine = load(setting)
        except Exception as error:
            return answer(_error(error))
        answer({"loaded": True, "threads": torch.get_num_threads(), "peak_mib": peak_mib(setting["device"])})
        for line in sys.stdin:
            job = json.loads(line)
            work = (extra or {}).get(job.get("op", ""), _timed)
            try:
                answer({**work(engine, job), "peak_mib": peak_mib(setting["device"])})
            except Exception as error:
                answer(_error(error))


def peak_mib(device: str) -> float:
    """Return the peak memory of this process: allocated on the GPU if it works there, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _timed(engine: Engine, job: Json) -> Json:
    engine.meter.clear()
    start = time.perf_counter()
    result = engine.run(job)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **engine.meter.read(), **engine.describe(job, result)}


def _error(error: Exception) -> Json:
    return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


@contextmanager
def _own_stdout() -> Iterator[Callable[[Json], None]]:
    """Reserve stdout for answers: what the peer prints there goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)

        def answer(message: Json) -> None:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

        yield answer
