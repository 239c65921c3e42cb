"""What a ranking says of two candidates, and of one against the others: by how much, how surely, in both orders?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from blender_hf.engine.aggregation import complete
from blender_hf.engine.ranking import probability_of
from blender_hf.engine.results import Ranking

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Outcome:
    """How sure a winner is.

    Args:
        margin: Logit of the winner; 0 is a tie, and below 0 it is the other that wins this comparison.
        probability: Probability, 0 to 1, that the winner is the better one.
        flipped: Whether another one wins when the order of presentation is swapped; None where that was not asked.
        tied: Whether there is no winner.
    """

    margin: float
    probability: float
    flipped: bool | None
    tied: bool


@dataclass(frozen=True)
class Judged:
    """A ranking with all that is known of its comparisons.

    Args:
        ranking: The ranking.
        temperature: What its ranker divides a logit by for its probability.
        presented: (candidates, candidates); entry [i][j] is the logit with i read first, positive for i, NaN where it
            was not asked. None if the ranker reads candidates one by one, so that there is no order of presentation.
    """

    ranking: Ranking
    temperature: float = 1.0
    presented: Matrix | None = None

    @cached_property
    def comparisons(self) -> Matrix:
        """The logits of all pairs, those that were not compared inferred from the others; NaN on the diagonal."""
        return complete(self.ranking.comparisons)

    @property
    def n_different(self) -> int:
        """How many different candidates there are."""
        return len(set(self.ranking.candidates))

    def probability(self, winner: int, loser: int) -> float:
        """Return the probability, 0 to 1, that one candidate is better than another; 0.5 against itself."""
        return 0.5 if winner == loser else probability_of(self.comparisons[winner][loser], self.temperature)

    def win_probability(self, index: int) -> float:
        """Return the mean probability that a candidate is better than another one; 0.5 for a single candidate."""
        others = [j for j in range(len(self.ranking.candidates)) if j != index]
        return math.fsum(self.probability(index, j) for j in others) / len(others) if others else 0.5

    def reward(self, index: int) -> float:
        """Return the mean logit of a candidate against the others; 0 for a single candidate."""
        others = [logit for j, logit in enumerate(self.comparisons[index]) if j != index]
        return math.fsum(others) / len(others) if others else 0.0

    def pair(self, winner: int, loser: int) -> Outcome:
        """Say how sure it is that one candidate is better than another."""
        margin = 0.0 if winner == loser else self.comparisons[winner][loser]
        scores = self.ranking.scores
        tied = margin == 0 or scores[winner] == scores[loser]
        return Outcome(margin, self.probability(winner, loser), self._flips([(winner, loser)]), tied)

    def alone(self, index: int) -> Outcome:
        """Say how sure it is that a candidate is better, or worse, than the others on the whole."""
        chance, reward = self.win_probability(index), self.reward(index)
        pairs = [(index, j) for j in range(len(self.ranking.candidates)) if j != index]
        good = chance > 0.5
        return Outcome(reward if good else -reward, max(chance, 1 - chance), self._flips(pairs), chance == 0.5)

    def _flips(self, pairs: Sequence[tuple[int, int]]) -> bool | None:
        """Tell whether the first of the pairs win on the whole in one order of presentation and lose in the other."""
        texts, presented = self.ranking.candidates, self.presented
        pairs = [(i, j) for i, j in pairs if texts[i] != texts[j]]
        if presented is None or not pairs:
            return False
        read_first = math.fsum(presented[i][j] for i, j in pairs)
        read_second = math.fsum(-presented[j][i] for i, j in pairs)
        if math.isnan(read_first) or math.isnan(read_second):
            return None
        return read_first * read_second < 0


def presented_matrix(ranking: Ranking, logits: Mapping[tuple[str, str], float]) -> Matrix:
    """Return the logits of both orders of presentation as a matrix.

    Args:
        ranking: The ranking.
        logits: What the ranker said of each presentation: of the text that was read first and that read second.
    """
    texts = ranking.candidates
    return [[logits.get((first, second), math.nan) for second in texts] for first in texts]
