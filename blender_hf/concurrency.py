"""Locks for what several threads may use, but not at the same time.

- A fast tokenizer of transformers keeps in itself whether special tokens are read out of a text, and whether and how
  it cuts and pads; setting these while another thread tokenises raises "Already borrowed", or changes what that gets.
- A model may keep something from one forward to the next, as RoPE does that is made for the length; and several
  batches at once would take several times the memory that one was chosen for.
"""

import os
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

# Beside the objects, not in them, so that they can be pickled, and are the same for all that share them.
_locks: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
_making = Lock()


def _forget() -> None:
    """Begin anew in a fork: whoever held a lock is not there to let it go."""
    global _locks, _making
    _locks, _making = WeakKeyDictionary(), Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lock_of(shared: Any) -> Any:
    """Return the lock of an object, a tokenizer or a model: for each always the same, and reentrant.

    Args:
        shared: The object; it must have the identity as its equality, as tokenizers and models have.
    """
    with _making:
        return _locks.setdefault(shared, RLock())
