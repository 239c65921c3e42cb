"""What `Blender` needs of a ranker, and the ranker of pairs: all items' next comparisons are scored together."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from blender_hf.errors import InputError, InputTypeError, chosen
from blender_hf.inputs import Item
from blender_hf.modeling import PairRanker, PairRankerProcessor
from blender_hf.modeling.ranking_math import mean_logit

from .aggregation import AGGREGATIONS
from .pointwise import Pointwise, PointwiseRanker
from .results import Comparison, Matrix, Ranking, Truncation, Unread, make_ranking
from .reward_model import RewardModelScorer, is_reward_model
from .schedules import Pair, Schedule
from .scorer import PairScorer, Presentation, Texts
from .separate import CandidateEncoder, Separate
from .unread import UnreadWarning, unread_of


class Ranker(Protocol):
    """Turns items into rankings and comparisons."""

    def prepare(self, items: Sequence[Item]) -> Any:
        """Do what can be done ahead of the model, in another thread; the result goes to `rank` or `compare`."""

    def rank(self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: Any = None) -> list[Ranking]:
        """Rank the candidates of every item."""

    def compare(self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Any = None) -> list[Comparison]:
        """Compare the two candidates of every item."""


class Pairwise:
    """Ranks by comparing pairs.

    Args:
        scorer: Scores the pairs.
    """

    def __init__(self, scorer: PairScorer) -> None:
        self.scorer = scorer
        self._warning = UnreadWarning("ranker")

    @property
    def model(self) -> PairRanker:
        """The loaded model."""
        return self.scorer.model

    def prepare(self, items: Sequence[Item]) -> Texts:
        """Tokenize all texts of the items, each once."""
        return self.scorer.tokenise(text for item in items for text in (item.source, *item.texts))

    def rank(
        self,
        items: Sequence[Item],
        schedule: Schedule,
        aggregation: str,
        prepared: Texts | None = None,
    ) -> list[Ranking]:
        """Rank the candidates of every item."""
        chosen(AGGREGATIONS, aggregation, "aggregation")  # a misspelt name fails before the long work
        texts = self.prepare(items) if prepared is None else prepared
        contests = [Contest(item, schedule) for item in items]
        while presentations := [p for contest in contests for p in contest.pending]:
            logits = iter(self.scorer.score(presentations, texts))
            for contest in contests:
                contest.receive([next(logits) for _ in contest.pending])
        temperature = self.model.config.logit_temperature
        symmetric = self.model.config.symmetric
        return [
            contest.ranking(aggregation, temperature, *self._reading(contest.item, texts), symmetric)
            for contest in contests
        ]

    def compare(
        self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: Texts | None = None
    ) -> list[Comparison]:
        """Compare the two candidates of every item in both orders; identical texts tie without a comparison."""
        texts = self.prepare(items) if prepared is None else prepared
        pairs = [(item.source, *item.texts) for item in items]
        presentations = [Presentation(source, *order) for source, a, b in pairs if a != b for order in ((a, b), (b, a))]
        logits = iter(self.scorer.score(presentations, texts))
        temperature = self.model.config.logit_temperature
        found = [(0.0, 0.0) if a == b else (next(logits), next(logits)) for _, a, b in pairs]
        readings = [self._reading(item, texts) for item in items]
        return [
            Comparison(ab, ba, truncated, temperature, tie_threshold, unread)
            for (ab, ba), (truncated, unread) in zip(found, readings, strict=True)
        ]

    def _reading(self, item: Item, texts: Texts) -> tuple[Truncation, Unread]:
        """Return what was cut and not read of an item; a candidate's budget depends only on the prompt."""
        cuts = [self.scorer.encode(Presentation(item.source, text, text), texts) for text in item.texts]
        ids = [texts[text] for text in (item.source, *item.texts)]
        unread = unread_of(item, ids, (tuple(cut.input_ids) for cut in cuts), self.scorer.unknown_id)
        self._warning.check(item.where, unread)
        return Truncation(cuts[0].truncated_source, tuple(cut.truncated_first for cut in cuts)), unread


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
        self, aggregation: str, temperature: float, truncated: Truncation, unread: Unread, symmetric: bool
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
        self.pending = [Presentation(self.item.source, self.texts[i], self.texts[j]) for i, j in orders]

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


def as_ranker(
    ranker: PairRanker | PreTrainedModel | PointwiseRanker,
    processor: PairRankerProcessor | PreTrainedTokenizerBase | None = None,
    *,
    max_batch_tokens: int | None = None,
    compile: bool = False,
) -> Pairwise | Separate | Pointwise:
    """Return the ranker of a model with its processor, or of an object that is a pointwise ranker by itself."""
    if isinstance(ranker, PointwiseRanker):
        if processor is not None or max_batch_tokens is not None or compile:
            raise InputError(
                f"{type(ranker).__name__} scores by itself: give it without a processor, max_batch_tokens and compile"
            )
        return Pointwise(ranker)
    if not hasattr(ranker, "config"):
        raise InputTypeError(
            f"the ranker must be a model, or an object with a method scores(items), not {type(ranker).__name__}"
        )
    if processor is None:
        raise InputError("give the ranker together with its processor, or with its tokenizer if it is a reward model")
    if is_reward_model(ranker.config):
        return Pointwise(RewardModelScorer(ranker, processor, max_batch_tokens=max_batch_tokens, compile=compile))
    # Not `isinstance`: a ranker in ONNX Runtime is no `PairRanker`, but is called like one.
    model, reader = cast(PairRanker, ranker), cast(PairRankerProcessor, processor)
    if model.config.is_separate:
        return Separate(CandidateEncoder(model, reader, max_batch_tokens=max_batch_tokens, compile=compile))
    return Pairwise(PairScorer(model, reader, max_batch_tokens=max_batch_tokens, compile=compile))


def _seeded_hash(text: str, seed: int) -> bytes:
    return blake2b(text.encode(), digest_size=16, salt=int(seed).to_bytes(8, "big")).digest()
