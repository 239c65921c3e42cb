"""A cache of computed values in an SQLite file, which any number of processes may share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blender_hf.errors import InputError

if TYPE_CHECKING:
    import sqlite3

# Variables that SQLite can bind in one statement.
CHUNK = 500


class ValueCache:
    """Values by keys, each written to the disk at once.

    Args:
        path: The file, which is made with its folder if it does not exist.
        table: The name of its table, "scores"; the column of its values has the name without the "s".
        kind: The type of the values in SQLite.

    Raises:
        InputError: If the file can't be used.
    """

    def __init__(self, path: str | Path, table: str, kind: str) -> None:
        self.path = Path(path)
        self._table, self._column = table, table.removesuffix("s")
        with self._open() as database:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {table} "
                f"(key BLOB PRIMARY KEY, {self._column} {kind} NOT NULL) WITHOUT ROWID"
            )

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """Return the values of those keys that are known."""
        known: dict[bytes, Any] = {}
        with self._open() as database:
            for start in range(0, len(keys), CHUNK):
                part = keys[start : start + CHUNK]
                marks = ", ".join("?" * len(part))
                query = f"SELECT key, {self._column} FROM {self._table} WHERE key IN ({marks})"
                known |= dict(database.execute(query, part))
        return known

    def put(self, values: Mapping[bytes, Any]) -> None:
        """Write values."""
        with self._open() as database:
            database.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?)", list(values.items()))

    @contextmanager
    def _open(self) -> "Iterator[sqlite3.Connection]":
        import sqlite3  # which those who import the package for a model need not wait for

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"can't use {self.path} to keep {self._table}: {error}") from None


def key_of_texts(texts: Iterable[str]) -> bytes:
    """Return a key for texts in their order."""
    digest = blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)  # so that no text can run into the next
    return digest.digest()
