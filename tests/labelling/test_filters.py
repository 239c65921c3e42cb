import math

import pytest

from blender_hf.errors import InputError
from blender_hf.labelling.filters import Filters
from blender_hf.labelling.formats import FORMATS, Outcome, Row

pytestmark = pytest.mark.once

DPO, SPPO = FORMATS["dpo"], FORMATS["sppo"]


def row(margin: float = 1.0, probability: float = 0.7, flipped: bool | None = False, tied: bool = False) -> Row:
    return Row({}, Outcome(margin, probability, flipped, tied))


@pytest.mark.parametrize(
    ("filters", "given", "dpo", "sppo"),
    [
        (Filters(), row(), None, None),
        (Filters(), row(flipped=True), None, None),
        (Filters(), row(0.0, 0.5, tied=True), "tie", None),
        (Filters(no_ties=True), row(0.0, 0.5, tied=True), "tie", "tie"),
        (Filters(), row(-0.2, 0.45), "contradiction", None),
        (Filters(min_margin=1.0), row(), None, None),
        (Filters(min_margin=1.5), row(), "margin", "margin"),
        (Filters(min_margin=0.0), row(-0.2, 0.45), "contradiction", "margin"),
        (Filters(min_probability=0.7), row(), None, None),
        (Filters(min_probability=0.8), row(), "probability", "probability"),
        (Filters(drop_flips=True), row(), None, None),
        (Filters(drop_flips=True), row(flipped=True), "flip", "flip"),
        (Filters(drop_flips=True), row(flipped=None), "one order", "one order"),
    ],
)
def test_reasons(filters: Filters, given: Row, dpo: str | None, sppo: str | None) -> None:
    assert filters.reason(given, DPO) == dpo
    assert filters.reason(given, SPPO) == sppo


def test_fewest_candidates() -> None:
    assert [Filters().fewest(FORMATS[name]) for name in ("dpo", "kto", "rewards")] == [2, 2, 1]
    assert Filters(min_candidates=4).fewest(DPO) == 4
    assert Filters(min_candidates=1).fewest(DPO) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"min_margin": -1.0},
        {"min_margin": math.nan},
        {"min_probability": 0.4},
        {"min_probability": 1.1},
        {"min_candidates": 0},
    ],
)
def test_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Filters(**options)
