"""From prompts with candidates to typed rankings and comparisons: the rounds of all prompts are scored together."""

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from blender_hf.inputs import Item

from .aggregation import complete, count_cycles, get_aggregation, order_of, ranks_of
from .results import Comparison, Preferred, Ranking, Truncation
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
    while presentations := [p for contest in contests for p in contest.presentations()]:
        logits = iter(scorer.score(presentations, texts, on_batch))
        for contest in contests:
            contest.receive([next(logits) for _ in contest.presentations()])
    return [contest.ranking(aggregation, cut_of(contest.item, scorer, texts)) for contest in contests]


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
        comparison_of([next(logits) for _ in presentations], temperature, tie_threshold, cut_of(item, scorer, texts))
        for item, presentations in zip(items, orders, strict=True)
    ]


def tokenise_items(items: Iterable[Item], scorer: PairScorer) -> Texts:
    """Tokenise all texts of items, each once."""
    return scorer.tokenise(text for item in items for text in (item.source, *item.texts))


def mean_logit(ab: float, ba: float) -> float:
    """Return the mean of both orders of presentation: positive if a is better, negated when a and b are swapped."""
    return (ab - ba) / 2


def probability_of(logit: float, temperature: float = 1.0) -> float:
    """Return the sigmoid of a logit over the temperature, without overflow."""
    small = math.exp(-abs(logit) / temperature)
    return (1.0 if logit >= 0 else small) / (1 + small)


def comparison_of(
    logits: Sequence[float], temperature: float, tie_threshold: float, truncated: Truncation
) -> Comparison:
    """Return the comparison that the logits of both orders of presentation make; without any it is a tie."""
    if not logits:
        return Comparison("tie", 0.0, 0.5, 0.0, 0.0, truncated)
    ab, ba = logits
    logit = mean_logit(ab, ba)
    probability = probability_of(logit, temperature)
    return Comparison(_preferred(probability, tie_threshold), logit, probability, ab, ba, truncated)


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
        self._logits: dict[Pair, float] = {}
        self._flips = 0
        self._rounds = schedule.rounds(len(self.texts))
        self._asked = next(self._rounds, []) if len(self.texts) > 1 else []

    def presentations(self) -> list[Presentation]:
        """Return what is to be scored next; nothing if the contest is over."""
        presented = (_presented(self.item.source, *self._named(pair), self.schedule.orders) for pair in self._asked)
        return [presentation for pair in presented for presentation in pair]

    def receive(self, logits: Sequence[float]) -> None:
        """Take the logits of the presentations and go on to the next round."""
        if not self._asked:
            return
        if self.schedule.orders == "both":
            orders = list(zip(logits[::2], logits[1::2], strict=True))
            self._flips += sum(ab * ba > 0 for ab, ba in orders)
            found = [mean_logit(ab, ba) for ab, ba in orders]
        else:
            found = [logit if leads(pair) else -logit for pair, logit in zip(self._asked, logits, strict=True)]
        self._logits |= zip(self._asked, found, strict=True)
        try:
            self._asked = self._rounds.send([self._sign * logit for logit in found])
        except StopIteration:
            self._asked = []

    def ranking(self, aggregation: str, truncated: Truncation) -> Ranking:
        """Return the result."""
        compared = self._matrix()
        scores = get_aggregation(aggregation)(self._spread(complete(compared)))
        comparisons = self._spread(compared)
        both = self._logits and self.schedule.orders == "both"
        return Ranking(
            candidates=self.item.texts,
            models=tuple(candidate.model for candidate in self.item.candidates),
            order=order_of(scores),
            ranks=ranks_of(scores),
            scores=scores,
            comparisons=comparisons,
            n_comparisons=len(self._logits),
            flip_rate=self._flips / len(self._logits) if both else None,
            n_cycles=count_cycles(comparisons),
            truncated=truncated,
            schedule=self.schedule.name,
        )

    def _named(self, pair: Pair) -> tuple[str, str]:
        """Return the texts of a pair, first the one that is read first if only one order is."""
        i, j = pair if leads(pair) or self.schedule.orders == "both" else pair[::-1]
        return self.texts[i], self.texts[j]

    def _matrix(self) -> list[list[float]]:
        """Return the logits between the different texts."""
        matrix = [[math.nan] * len(self.texts) for _ in self.texts]
        for (i, j), logit in self._logits.items():
            matrix[i][j], matrix[j][i] = logit, -logit
        return matrix

    def _spread(self, matrix: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
        """Return a matrix between the different texts as one between the candidates; identical ones tie."""
        place = {text: index for index, text in enumerate(self.texts)}
        own = [place[text] for text in self.item.texts]

        def entry(a: int, b: int) -> float:
            return 0.0 if a != b and own[a] == own[b] else matrix[own[a]][own[b]]

        return tuple(tuple(entry(a, b) for b in range(len(own))) for a in range(len(own)))


def leads(pair: Pair) -> bool:
    """Tell whether the first of a pair is read first where only one order is.

    As a chessboard is coloured, so that everybody is read first in half of all pairs, and no candidate has the model's
    taste for a place in all its comparisons.
    """
    i, j = pair
    return (i < j) == ((i + j) % 2 == 1)


def _lot(text: str, seed: int) -> bytes:
    return blake2b(text.encode(), digest_size=16, salt=int(seed).to_bytes(8, "big")).digest()


def _presented(source: str, a: str, b: str, orders: str) -> list[Presentation]:
    one = Presentation(source, a, b)
    return [one, Presentation(source, b, a)] if orders == "both" else [one]


def _preferred(probability: float, tie_threshold: float) -> Preferred:
    if abs(probability - 0.5) <= tie_threshold:
        return "tie"
    return "a" if probability > 0.5 else "b"
