"""Locks for what several threads may use, but not at the same time.

- A fast tokenizer of transformers keeps in itself whether special tokens are read out of a text, and whether and how
  it cuts and pads; setting these while another thread tokenises raises "Already borrowed", or changes what that gets.
- A model may keep something from one forward to the next, as RoPE does that is made for the length; and several
  batches at once would take several times the memory that one was chosen for.
"""

import os
from collections.abc import Callable
from threading import Lock, RLock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

Made = TypeVar("Made")


class PerObject(Generic[Made]):
    """One thing for each object, made when it is first asked for, and gone with the object.

    It stands beside the objects, not in them, so that they can be pickled, and is the same for all that share them. A
    fork begins anew: it has none of the threads of its parent, and nobody who would let a lock go that is held.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def of(self, shared: Any) -> Made:
        """Return that of an object, which must have the identity as its equality."""
        with self._making:
            if shared not in self._made:
                self._made[shared] = self._make()
            return self._made[shared]

    def __len__(self) -> int:
        return len(self._made)

    def _forget(self) -> None:
        self._made: WeakKeyDictionary[Any, Made] = WeakKeyDictionary()
        self._making = Lock()


_locks = PerObject(RLock)


def lock_of(shared: Any) -> Any:
    """Return the lock of an object, a tokenizer or a model: for each always the same, and reentrant.

    Args:
        shared: The object; it must have the identity as its equality, as tokenizers and models have.
    """
    return _locks.of(shared)
