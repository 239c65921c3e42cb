"""Scores that were computed once, kept in a file: large metrics take hours."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

from blender_hf.errors import InputError

from .named import Metric

# What SQLite can bind in one statement.
CHUNK = 500
# Pairs between two writes: what a run that is killed loses at most.
WRITE_EVERY = 256


class CachedMetric:
    """A metric that looks into a file before it computes, and writes what it computed there.

    Args:
        metric: The metric; its `key` tells its scores from those of others.
        path: The SQLite file, which is made if it does not exist.

    Raises:
        InputError: If the file can't be opened.
    """

    def __init__(self, metric: Metric, path: str | Path) -> None:
        self._metric = metric
        self.key = metric.key
        self._path = Path(path)
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"
            )

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; each different pair is computed once, ever."""
        keys = [self._key(*pair) for pair in zip(candidates, references, strict=True)]
        known = self._known(keys)
        missing = {key: n for n, key in enumerate(keys) if key not in known}
        places = list(missing.items())
        for start in range(0, len(places), WRITE_EVERY):
            part = places[start : start + WRITE_EVERY]
            found = self._metric([candidates[n] for _, n in part], [references[n] for _, n in part])
            known |= {key: score for (key, _), score in zip(part, found, strict=True)}
            with self._open() as database:
                database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", [(k, known[k]) for k, _ in part])
        return [known[key] for key in keys]

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        known: dict[bytes, float] = {}
        with self._open() as database:
            for start in range(0, len(keys), CHUNK):
                part = keys[start : start + CHUNK]
                marks = ", ".join("?" * len(part))
                known |= dict(database.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", part))
        return known

    def _key(self, candidate: str, reference: str) -> bytes:
        digest = blake2b(digest_size=16)
        for text in (self.key, candidate, reference):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)  # so that no text can run into the next
        return digest.digest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path)) as database, database:
                yield database
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"can't use {self._path} to keep scores: {error}") from None
