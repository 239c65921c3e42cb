"""What a model can't read of the texts that it is given, and the warning about it."""

import logging
from collections.abc import Hashable, Iterable, Sequence

from blender_hf.inputs import Item
from blender_hf.modeling.ranking_math import indistinguishable
from blender_hf.modeling.tokenization import unknown_in

from .results import Unread

logger = logging.getLogger(__name__)


def unread_of(item: Item, ids: Iterable[Sequence[int]], read: Iterable[Hashable], unknown_id: int | None) -> Unread:
    """Return what a ranker can't read of an item.

    Args:
        item: A prompt with its candidates.
        ids: The token ids of its prompt and of each of its candidates.
        read: What the ranker reads of each candidate, alike where it can't tell them apart.
        unknown_id: The token of what the tokenizer does not know; None if it has none.
    """
    texts = (item.source, *item.texts)
    prompt, *candidates = (unknown_in(text, row, unknown_id) for text, row in zip(texts, ids, strict=True))
    return Unread(prompt, tuple(candidates), indistinguishable(item.texts, read))


class UnreadWarning:
    """Logs the first text that a model can't read.

    Args:
        role: What the model is, "ranker" or "fuser".
    """

    def __init__(self, role: str) -> None:
        self.role = role
        self._given = False

    def check(self, where: str, unread: Unread | None) -> None:
        """Warn if anything of an item was not read, once."""
        if unread and not self._given:
            self._given = True
            logger.warning(
                "%s: the %s can't read all of it: %s (said once; `unread` of each result has it)",
                where,
                self.role,
                unread.described(),
            )
