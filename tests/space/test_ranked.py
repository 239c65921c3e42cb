import math

import numpy as np
import pytest

from blender_hf import Blender
from blender_hf.data.sources import read_records
from blender_hf.errors import InputError
from blender_hf.inputs import Item, make_item
from blender_hf.space.ranked import candidate_name, heat_map, rank_item, ranked_rows
from blender_hf.space.settings import FusionSettings, RankingSettings
from tests.conftest import EXAMPLES


@pytest.fixture(scope="module")
def item() -> Item:
    return next(iter(read_records(EXAMPLES))).item


def test_the_heat_map_shows_both_orders_of_every_pair(blender: Blender, item: Item) -> None:
    ranked = rank_item(item, blender._ranker, RankingSettings())
    plain = blender.rank(item.prompt, item.texts)
    np.testing.assert_allclose(ranked.ranking.comparisons, plain.comparisons)
    for row in range(len(item.texts)):
        for column in range(len(item.texts)):
            cell = ranked.heat_map[row][column]
            if row == column:
                assert cell is None
                continue
            assert (cell.row, cell.column) == (plain.order[row], plain.order[column])
            comparison = blender.compare(item.prompt, item.texts[cell.row], item.texts[cell.column])
            assert cell.read_first == pytest.approx(comparison.logit_ab, abs=1e-5)
            assert cell.read_second == pytest.approx(-comparison.logit_ba, abs=1e-5)
            assert cell.probability == pytest.approx(comparison.probability, abs=1e-5)
            assert cell.flipped == comparison.flipped


def test_recording_leaves_the_scorer_as_it_is(blender: Blender, item: Item) -> None:
    rank_item(item, blender._ranker, RankingSettings())
    assert not hasattr(blender.scorer, "recorded")


def test_what_was_not_compared_is_said(blender: Blender, item: Item) -> None:
    ranked = rank_item(item, blender._ranker, RankingSettings("knockout", top_k=1))
    unknown = [cell for row in ranked.heat_map for cell in row if cell and cell.probability is None]
    assert len(unknown) == 2 * (ranked.ranking.n_possible - ranked.ranking.n_comparisons) > 0
    assert all(0 < row.win_probability < 1 for row in ranked.rows)


def test_rows_stand_in_order_and_mark_ties(blender: Blender) -> None:
    item = make_item("2 + 2?", ["4", "Bananas.", "4"])
    rows = rank_item(item, blender._ranker, RankingSettings(tie_threshold=0)).rows
    assert [row.rank for row in rows] in ([1, 1, 3], [1, 2, 2])
    assert {row.index for row in rows if row.tied} == {0, 2}
    assert all(row.tied for row in rank_item(item, blender._ranker, RankingSettings(tie_threshold=0.5)).rows)


def test_probabilities_are_calibrated_by_the_temperature(blender: Blender) -> None:
    ranking = blender.rank("2 + 2?", ["4", "Bananas."])
    best, logit = ranking.order[0], max(ranking.scores)
    for temperature in (1.0, 4.0):
        expected = 1 / (1 + math.exp(-logit / temperature))
        assert ranked_rows(ranking, temperature, 0)[0].win_probability == pytest.approx(expected)
        assert heat_map(ranking, "2 + 2?", {}, temperature)[0][1].probability == pytest.approx(expected)
    assert ranked_rows(ranking, 1.0, 0)[0].index == best


def test_names_tell_candidates_apart(blender: Blender) -> None:
    named = [{"text": "a", "model": "m"}, {"text": "b", "model": "m"}, {"text": "c", "model": "n"}, "d"]
    ranking = blender.rank("?", named)
    names = [candidate_name(ranking, index) for index in range(4)]
    assert names == ["m (candidate 1)", "m (candidate 2)", "n", "Candidate 4"]


@pytest.mark.parametrize(
    "build",
    [
        lambda: RankingSettings("best"),
        lambda: RankingSettings(aggregation="sum"),
        lambda: RankingSettings("knockout", top_k=0),
        lambda: RankingSettings(tie_threshold=0.6),
        lambda: FusionSettings(max_new_tokens=100_000),
        lambda: FusionSettings(num_beams=0),
    ],
)
def test_settings_out_of_range_are_errors(build: object) -> None:
    with pytest.raises(InputError):
        build()
