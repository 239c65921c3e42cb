"""A ranking with all that the page shows of it: its rows, and every comparison in both orders."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from blender_hf.engine.aggregation import complete
from blender_hf.engine.rankers import Pairwise, Ranker
from blender_hf.engine.ranking import probability_of
from blender_hf.engine.recording import RecordingScorer
from blender_hf.engine.results import Ranking
from blender_hf.engine.scorer import Presentation
from blender_hf.inputs import Item

from .settings import RankingSettings


@dataclass(frozen=True)
class RankedRow:
    """A candidate in its place.

    Args:
        index: Its index as it was given.
        name: The name of its model, or its number.
        text: Its text.
        rank: 1 is the best; equal scores share a rank.
        score: Higher is better; what it means depends on the aggregation.
        win_probability: Mean probability, 0 to 1, that it is better than another one.
        tied: Whether it shares its rank, or is too close to a neighbour to be called better or worse.
        truncated: How many of its tokens the ranker did not read.
    """

    index: int
    name: str
    text: str
    rank: int
    score: float
    win_probability: float
    tied: bool
    truncated: int


@dataclass(frozen=True)
class HeatCell:
    """How the candidate of a row does against that of a column.

    Args:
        row: Index of the candidate of the row.
        column: Index of the candidate of the column.
        probability: That the row's is better, 0 to 1; None where they were not compared.
        read_first: Logit when the row's candidate was read first, positive in its favour; None where not asked.
        read_second: Logit when it was read second, positive in its favour too; None where not asked.
    """

    row: int
    column: int
    probability: float | None
    read_first: float | None = None
    read_second: float | None = None

    @property
    def flipped(self) -> bool:
        """Whether the order of presentation decides who wins."""
        return self.read_first is not None and self.read_second is not None and self.read_first * self.read_second < 0


@dataclass(frozen=True)
class Ranked:
    """A ranking, and what the page shows of it.

    Args:
        item: The prompt with its candidates.
        ranking: The ranking.
        rows: The candidates, the best first.
        heat_map: Rows of cells, both in the order of `rows`; None on the diagonal.
    """

    item: Item
    ranking: Ranking
    rows: tuple[RankedRow, ...]
    heat_map: tuple[tuple[HeatCell | None, ...], ...]


def rank_item(item: Item, ranker: Ranker, settings: RankingSettings) -> Ranked:
    """Rank the candidates of a prompt."""
    recorded: Mapping[Presentation, float] = {}  # of a ranker that presents no pairs, nothing
    if isinstance(ranker, Pairwise):
        recording = RecordingScorer(ranker.scorer)
        ranker, recorded = Pairwise(recording), recording.recorded
    ranking = ranker.rank([item], settings.as_schedule(), settings.aggregation)[0]
    return Ranked(
        item,
        ranking,
        ranked_rows(ranking, ranker.temperature, settings.tie_threshold),
        heat_map(ranking, item.source, recorded, ranker.temperature),
    )


def candidate_name(ranking: Ranking, index: int) -> str:
    """Return how a candidate is called: by its model, by its number if that is unknown or not its alone."""
    model = ranking.models[index]
    number = f"Candidate {index + 1}"
    if model is None:
        return number
    return model if ranking.models.count(model) == 1 else f"{model} ({number.lower()})"


def ranked_rows(ranking: Ranking, temperature: float, tie_threshold: float) -> tuple[RankedRow, ...]:
    """Return the candidates in order, with what is to be said of each."""
    chances = [
        [probability_of(logit, temperature) for j, logit in enumerate(row) if j != i]
        for i, row in enumerate(complete(ranking.comparisons))
    ]
    ties = _ties(ranking, temperature, tie_threshold)
    return tuple(
        RankedRow(
            index,
            candidate_name(ranking, index),
            ranking.candidates[index],
            ranking.ranks[index],
            ranking.scores[index],
            math.fsum(chances[index]) / len(chances[index]) if chances[index] else 0.5,
            index in ties,
            ranking.truncated.candidates[index],
        )
        for index in ranking.order
    )


def heat_map(
    ranking: Ranking, source: str, logits: Mapping[Presentation, float], temperature: float
) -> tuple[tuple[HeatCell | None, ...], ...]:
    """Return the comparisons as cells, rows and columns in the order of the ranking.

    Args:
        ranking: The ranking.
        source: The prompt as the ranker read it.
        logits: What the ranker said of each presentation, positive for the candidate that is read first.
        temperature: That of the ranker.
    """

    def cell(row: int, column: int) -> HeatCell | None:
        if row == column:
            return None
        logit = ranking.comparisons[row][column]
        mine, other = ranking.candidates[row], ranking.candidates[column]
        second = logits.get(Presentation(source, other, mine))
        return HeatCell(
            row,
            column,
            None if math.isnan(logit) else probability_of(logit, temperature),
            logits.get(Presentation(source, mine, other)),
            None if second is None else -second,
        )

    return tuple(tuple(cell(row, column) for column in ranking.order) for row in ranking.order)


def _ties(ranking: Ranking, temperature: float, tie_threshold: float) -> set[int]:
    """Return who shares a rank, or can't be told from the next in order."""
    filled = complete(ranking.comparisons)
    close = [
        {upper, lower}
        for upper, lower in zip(ranking.order, ranking.order[1:], strict=False)
        if ranking.scores[upper] == ranking.scores[lower]
        or abs(probability_of(filled[upper][lower], temperature) - 0.5) <= tie_threshold
    ]
    return set[int]().union(*close)
