"""Missing scores of records: computed once, and cached in a file, since learned metrics take hours."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from blender_hf.data.labelled import LabelledPrompt
from blender_hf.errors import InputError

from .metrics import Metric

# Prompts whose candidates are scored together.
WINDOW = 64
# Variables that SQLite can bind in one statement.
CHUNK = 500
# Pairs between two writes: the most that a killed run loses.
WRITE_EVERY = 256


def fill_scores(
    prompts: Iterable[LabelledPrompt],
    metrics: Mapping[str, Metric],
    *,
    on_scored: Callable[[int], object] = lambda n: None,
) -> Iterator[LabelledPrompt]:
    """Yield the prompts, lazily and in order, with the scores that any of their candidates lacked."""
    source = iter(prompts)
    while batch := list(islice(source, WINDOW)):
        for name, metric in metrics.items():
            batch = _filled(batch, name, metric)
        yield from batch
        on_scored(len(batch))


def _filled(prompts: Sequence[LabelledPrompt], name: str, metric: Metric) -> list[LabelledPrompt]:
    lacking = [n for n, prompt in enumerate(prompts) if prompt.reference and prompt.complete_scores(name) is None]
    texts = [text for n in lacking for text in prompts[n].item.texts]
    references = [prompts[n].reference or "" for n in lacking for _ in prompts[n].item.texts]
    scores = iter(metric(texts, references))
    filled = list(prompts)
    for n in lacking:
        own = tuple(next(scores) for _ in prompts[n].item.texts)
        filled[n] = replace(prompts[n], scores={**prompts[n].scores, name: own})
    return filled


class CachedMetric:
    """A metric whose scores are cached in an SQLite file, where its `key` identifies them."""

    def __init__(self, metric: Metric, path: str | Path) -> None:
        self._metric = metric
        self.key = metric.key
        self._path = Path(path)
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"
            )

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; each distinct pair is computed once, ever."""
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
