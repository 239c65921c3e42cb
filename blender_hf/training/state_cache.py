"""The states of rows of tokens on disk, for a training that reads them in every epoch."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blender_hf.data.jobs import Log, open_log
from blender_hf.errors import CheckpointError, InputError, ModelOutputError

# Of a number of a state, in bytes: both float16 and bfloat16, which NumPy does not have.
BITS = np.dtype(np.int16)
GIB = 1 << 30
Write = Callable[[Sequence[Sequence[int]], Sequence[torch.Tensor]], None]


class StateCache:
    """Vectors of rows of tokens: one file of 16-bit numbers, and a log that says which of them are whose.

    A row counts as written when it is in the log; what a killed process wrote beyond that is written over.

    Args:
        folder: The folder of the files; it may not exist yet.
        identity: What the states depend on besides the tokens.
        width: How many numbers a vector has.
        dtype: float16 or bfloat16, in which they are kept; a part of the identity.

    Raises:
        CheckpointError: If the folder has states of something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], width: int, dtype: torch.dtype) -> None:
        self.folder = folder
        self.width = width
        self.dtype = dtype
        self._identity = {**identity, "dtype": str(dtype)}
        # By the digest of its tokens, where the vectors of a row begin, and how many they are.
        self._places: dict[str, tuple[int, int]] = {}
        self._vectors: np.ndarray | None = None
        log = Log(self._log, ".about.json")
        if not log.is_empty and log.notes().get("settings") != self._identity:
            raise CheckpointError(
                f"{folder}: this is another revision of the encoder than the cache was made with, or other layers "
                "of it are frozen: delete that folder, or train in another output_dir"
            )
        for _, value in log.values():
            self._places |= {key: (start, n) for key, (start, n) in value["rows"].items()}

    def missing(self, rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Return the different rows that have no states yet."""
        return [ids for key, ids in {_key(ids): ids for ids in rows}.items() if key not in self._places]

    def reserve(self, n_vectors: int) -> str:
        """Return in words how much space so many vectors take; raises `InputError` if the disk has less."""
        wanted = n_vectors * self.width * BITS.itemsize
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            raise InputError(
                f"the states of frozen layers take {wanted / GIB:.1f} GiB in {self.folder}, where {free / GIB:.1f} GiB "
                "are free: take fewer pairs or shorter texts, or freeze the whole encoder (-1)"
            )
        return f"{wanted / GIB:.2f} GiB"

    @contextmanager
    def writing(self) -> Iterator[Write]:
        """Give a function that writes the vectors of rows, (vectors, width) each."""
        with open_log(self._log, ".about.json") as log, open(self._file, "ab+") as file:
            log.begin(self._identity)
            end = max((start + n for start, n in self._places.values()), default=0)
            file.truncate(end * self.width * BITS.itemsize)

            def write(rows: Sequence[Sequence[int]], states: Sequence[torch.Tensor]) -> None:
                nonlocal end
                vectors = torch.cat(list(states)).to(self.dtype)
                if not vectors.isfinite().all():
                    raise ModelOutputError(
                        f"a state of the frozen layers is NaN, or too large for {self.dtype}: freeze fewer layers, or "
                        "train with bf16=true"
                    )
                file.write(vectors.view(torch.int16).numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
                fresh: dict[str, tuple[int, int]] = {}
                for ids, found in zip(rows, states, strict=True):
                    fresh[_key(ids)] = end, len(found)
                    end += len(found)
                log.append(json.dumps({"rows": fresh}))
                self._places |= fresh

            yield write
        self._vectors = None

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the vectors of a row, (vectors, width)."""
        if self._vectors is None:
            end = max(start + n for start, n in self._places.values())
            self._vectors = np.memmap(self._file, BITS, mode="r", shape=(end, self.width))
        start, n = self._places[_key(ids)]
        return torch.from_numpy(np.array(self._vectors[start : start + n])).view(self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_vectors": None}  # a map of a file would be copied whole

    @property
    def _file(self) -> Path:
        return self.folder / "states.bin"

    @property
    def _log(self) -> Path:
        return self.folder / "rows.jsonl"


def _key(ids: Sequence[int]) -> str:
    return blake2b(np.array(ids, dtype=np.int64).tobytes(), digest_size=12).hexdigest()
