"""The warning that a model can't read all that it is given."""

import logging

from .results import Unread

logger = logging.getLogger(__name__)


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
