"""Which rows are certain enough to keep."""

from dataclasses import dataclass

from blender_hf.errors import InputError

from .formats import OutputFormat, Row


@dataclass(frozen=True)
class Filters:
    """What a row must have. The defaults keep everything that a format can state.

    Args:
        min_margin: Minimum logit, 0 or more, by which the winner wins.
        min_probability: Minimum probability, 0.5 to 1, that the winner is the better one.
        no_ties: Drop rows without a winner, also in formats that can hold them.
        drop_flips: Drop rows whose winner changes with the presentation order, or that were not scored in both.
        min_candidates: Minimum number of different candidates of a record; None is the format's own.

    Raises:
        InputError: If a value is out of range.
    """

    min_margin: float | None = None
    min_probability: float | None = None
    no_ties: bool = False
    drop_flips: bool = False
    min_candidates: int | None = None

    def __post_init__(self) -> None:
        # `not (... <= ...)` refuses NaN too.
        if self.min_margin is not None and not self.min_margin >= 0:
            raise InputError(f"min_margin={self.min_margin}; a margin is a logit of 0 or more")
        if self.min_probability is not None and not 0.5 <= self.min_probability <= 1:
            raise InputError(f"min_probability={self.min_probability}; the probability of a winner is from 0.5 to 1")
        if self.min_candidates is not None and self.min_candidates < 1:
            raise InputError(f"min_candidates={self.min_candidates}; ask for 1 or more")

    def fewest(self, form: OutputFormat) -> int:
        """Return how many different candidates a record needs."""
        return max(self.min_candidates or 1, form.min_candidates)

    def reason(self, row: Row, form: OutputFormat) -> str | None:
        """Return why a row is dropped, or None if it is kept.

        In a "contradiction", the winner of the ranking loses the comparison that the row states; where only "one order"
        was scored, it is unknown whether the winner flips.
        """
        outcome = row.outcome
        if outcome.tied and (form.states_a_winner or self.no_ties):
            return "tie"
        if outcome.margin < 0 and form.states_a_winner:
            return "contradiction"
        if self.min_margin is not None and outcome.margin < self.min_margin:
            return "margin"
        if self.min_probability is not None and outcome.probability < self.min_probability:
            return "probability"
        if self.drop_flips and outcome.flipped is not False:
            return "one order" if outcome.flipped is None else "flip"
        return None
