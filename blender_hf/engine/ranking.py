"""From prompts with candidates to typed rankings and comparisons: the rounds of all prompts are scored together."""

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from blender_hf.inputs import Item
from blender_hf.modeling.ranking_math import mean_logit

from .aggregation import get_aggregation
from .results import Comparison, Matrix, Ranking, Truncation, make_ranking
from .schedules import Pair, Schedule
from .scorer import PairScorer, Presentation, Texts

OnBatch = Callable[[int], None]
FULL = Schedule()


def rank_items(
    items: Sequence[Item],
    scorer: PairScorer,
    schedule: Schedule = FULL,
    aggregation: str = "max_logits",
    *,
    texts: Texts | None = None,
    on_batch: OnBatch | None = None,
) -> list[Ranking]:
    """Rank the candidates of every item.

    Args:
        items: The prompts with their candidates.
        scorer: Scores the pairs.
        schedule: Which pairs are compared.
        aggregation: Name of the aggregation that turns comparisons into scores.
        texts: The texts of the items as `tokenise_items` gave them; None tokenises them here.
        on_batch: Called after each batch with the number of presentations in it.

    Returns:
        One ranking an item.
    """
    get_aggregation(aggregation)  # a misspelt name fails before the long work
    texts = tokenise_items(items, scorer) if texts is None else texts
    contests = [Contest(item, schedule) for item in items]
    while presentations := [p for contest in contests for p in contest.pending]:
        logits = iter(scorer.score(presentations, texts, on_batch))
        for contest in contests:
            contest.receive([next(logits) for _ in contest.pending])
    temperature = scorer.model.config.logit_temperature
    return [contest.ranking(aggregation, temperature, cut_of(contest.item, scorer, texts)) for contest in contests]


def compare_items(
    items: Sequence[Item], scorer: PairScorer, tie_threshold: float = 0.0, *, texts: Texts | None = None
) -> list[Comparison]:
    """Compare the two candidates of every item in both orders; identical texts tie without a comparison.

    Args:
        items: Prompts with exactly two candidates, a and b.
        scorer: Scores the pairs.
        tie_threshold: How far from 0.5 the probability may be and still be called a tie.
        texts: The texts of the items as `tokenise_items` gave them; None tokenises them here.

    Returns:
        One comparison an item.
    """
    texts = tokenise_items(items, scorer) if texts is None else texts
    orders = [_presented(item.source, *item.texts, "both") if len(set(item.texts)) > 1 else [] for item in items]
    logits = iter(scorer.score([p for presentations in orders for p in presentations], texts))
    temperature = scorer.model.config.logit_temperature
    return [
        Comparison(
            *([next(logits) for _ in presentations] or (0.0, 0.0)),
            cut_of(item, scorer, texts),
            temperature,
            tie_threshold,
        )
        for item, presentations in zip(items, orders, strict=True)
    ]


def tokenise_items(items: Iterable[Item], scorer: PairScorer) -> Texts:
    """Tokenise all texts of items, each once."""
    return scorer.tokenise(text for item in items for text in (item.source, *item.texts))


def cut_of(item: Item, scorer: PairScorer, texts: Texts) -> Truncation:
    """Say what the model does not read of an item: a candidate's budget depends on the prompt alone."""
    cuts = [scorer.encode(Presentation(item.source, text, text), texts) for text in item.texts]
    return Truncation(cuts[0].truncated_source, tuple(cut.truncated_first for cut in cuts))


class Contest:
    """The comparisons of one item under a schedule.

    Its different texts are numbered in an order that depends on them and the seed alone, so the order in which the
    candidates were given changes nothing; `texts` has them in that order.

    Args:
        item: The prompt with its candidates.
        schedule: Which pairs are compared.
    """

    def __init__(self, item: Item, schedule: Schedule) -> None:
        self.item = item
        self.schedule = schedule
        self.texts = sorted(set(item.texts), key=lambda text: _lot(text, schedule.seed))
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
            self._ask(self._rounds.send([self._sign * self._logit(*pair) for pair in self._asked]))
        except StopIteration:
            self._ask([])

    def ranking(self, aggregation: str, temperature: float, truncated: Truncation) -> Ranking:
        """Return the result."""
        return make_ranking(
            self.item,
            self._matrix(),
            aggregation,
            temperature=temperature,
            truncated=truncated,
            schedule=self.schedule.name,
        )

    def _matrix(self) -> Matrix:
        """Return the logits as in `Ranking.logits`."""
        texts = self.item.texts

        def entry(i: int, j: int) -> float:
            return 0.0 if i != j and texts[i] == texts[j] else self._logits.get((texts[i], texts[j]), math.nan)

        return tuple(tuple(entry(i, j) for j in range(len(texts))) for i in range(len(texts)))

    def _ask(self, pairs: list[Pair]) -> None:
        """Set what is to be scored next; nothing if the contest is over."""
        self._asked = pairs
        presented = (_presented(self.item.source, *self._named(pair), self.schedule.orders) for pair in pairs)
        self.pending = [presentation for pair in presented for presentation in pair]

    def _named(self, pair: Pair) -> tuple[str, str]:
        """Return the texts of a pair, first the one that is presented first if only one order is."""
        i, j = pair if leads(pair) or self.schedule.orders == "both" else pair[::-1]
        return self.texts[i], self.texts[j]

    def _logit(self, i: int, j: int) -> float:
        """Return the logit of text i against j."""
        a, b = self.texts[i], self.texts[j]
        if self.schedule.orders == "both":
            return mean_logit(self._logits[a, b], self._logits[b, a])
        return self._logits[a, b] if leads((i, j)) else -self._logits[b, a]


def leads(pair: Pair) -> bool:
    """Return whether the first of a pair is presented first where only one order is.

    As a chessboard is coloured, so that every candidate is presented first in half of its pairs, and the model's
    position bias never favours one of them in all its comparisons.
    """
    i, j = pair
    return (i < j) == ((i + j) % 2 == 1)


def _lot(text: str, seed: int) -> bytes:
    return blake2b(text.encode(), digest_size=16, salt=int(seed).to_bytes(8, "big")).digest()


def _presented(source: str, a: str, b: str, orders: str) -> list[Presentation]:
    one = Presentation(source, a, b)
    return [one, Presentation(source, b, a)] if orders == "both" else [one]
