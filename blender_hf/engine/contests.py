"""The comparisons of one item: which presentations are scored next, and the ranking when all are."""

import math
from collections.abc import Sequence
from hashlib import blake2b

from blender_hf.inputs import Item
from blender_hf.modeling.ranking_math import mean_logit

from .results import Matrix, Ranking, Truncation, Unread, make_ranking
from .schedules import Pair, Schedule
from .scorer import presented


class Contest:
    """The comparisons of one item under a schedule.

    Its different texts are numbered in an order that depends only on them and the seed, so the order in which the
    candidates were given changes nothing; `texts` has them in that order. `pending` is what is to be scored next,
    nothing if the contest is over.

    Args:
        item: The prompt with its candidates.
        schedule: Which pairs are compared.
    """

    def __init__(self, item: Item, schedule: Schedule) -> None:
        self.item = item
        self.schedule = schedule
        self.texts = sorted(set(item.texts), key=lambda text: _seeded_hash(text, schedule.seed))
        self._sign = 1 if schedule.seek == "best" else -1
        self._logits: dict[tuple[str, str], float] = {}
        self._rounds = schedule.rounds(len(self.texts))
        self._ask(next(self._rounds, []) if len(self.texts) > 1 else [])

    def receive(self, logits: Sequence[float]) -> None:
        """Take the logits of the pending presentations and go on to the next round."""
        if not self.pending:
            return
        self._logits |= zip(((p.first, p.second) for p in self.pending), logits, strict=True)
        try:
            self._ask(self._rounds.send([self._sign * self._logit(pair) for pair in self._asked]))
        except StopIteration:
            self._ask([])

    def ranking(
        self, aggregation: str, temperature: float, truncated: Truncation, unread: Unread | None, symmetric: bool
    ) -> Ranking:
        """Return the result; a symmetric ranker reads a pair once for both orders of presentation."""
        texts = self.item.texts

        def entry(i: int, j: int) -> float:
            return 0.0 if i != j and texts[i] == texts[j] else self._logits.get((texts[i], texts[j]), math.nan)

        logits: Matrix = tuple(tuple(entry(i, j) for j in range(len(texts))) for i in range(len(texts)))
        return make_ranking(
            self.item,
            logits,
            aggregation,
            temperature=temperature,
            truncated=truncated,
            schedule=self.schedule.name,
            unread=unread,
            n_encodings=len({frozenset(pair) if symmetric else pair for pair in self._logits}),
        )

    def _ask(self, pairs: list[Pair]) -> None:
        self._asked = pairs
        both = self.schedule.orders == "both"
        orders = [order for i, j in pairs for order in ((i, j), (j, i)) if both or leads(order)]
        self.pending = [presented(self.item, self.texts[i], self.texts[j]) for i, j in orders]

    def _logit(self, pair: Pair) -> float:
        a, b = (self.texts[i] for i in pair)
        if self.schedule.orders == "both":
            return mean_logit(self._logits[a, b], self._logits[b, a])
        return self._logits[a, b] if leads(pair) else -self._logits[b, a]


def leads(pair: Pair) -> bool:
    """Return whether the first of a pair is presented first where only one order is.

    As a chessboard is coloured, so that every candidate is presented first in half of its pairs, and the model's
    position bias never favours one of them in all its comparisons.
    """
    i, j = pair
    return (i < j) == ((i + j) % 2 == 1)


def _seeded_hash(text: str, seed: int) -> bytes:
    return blake2b(text.encode(), digest_size=16, salt=int(seed).to_bytes(8, "big")).digest()
