import re
from html import unescape

import pytest

from blender_hf import Blender
from blender_hf.engine.results import Comparison, Truncation
from blender_hf.inputs import make_item
from blender_hf.space import markup
from blender_hf.space.fused import Fused
from blender_hf.space.leaderboard import Standing
from blender_hf.space.passages import SourcedPassage
from blender_hf.space.ranked import Ranked, rank_item
from blender_hf.space.settings import RankingSettings

EVIL = (
    """<img src=x onerror="alert(1)"> [a](javascript:alert(2)) `${alert(3)}` {{alert}} ' " & """
    "<script>alert(4)</script>"
)
NO_CUT = Truncation(0, (0, 0))


@pytest.fixture(scope="module")
def ranked(blender: Blender) -> Ranked:
    candidates = [{"text": EVIL, "model": EVIL}, {"text": f"{EVIL} more", "model": "quiet"}, "plain"]
    return rank_item(make_item(EVIL, candidates), blender._ranker, RankingSettings())


def pages(ranked: Ranked) -> list[str]:
    comparison = Comparison("a", 1.0, 0.7, 2.0, 0.0, NO_CUT)
    passages = (SourcedPassage(EVIL, 0, True), SourcedPassage(f" {EVIL}", None, False))
    fused = Fused(EVIL, (0, 1), passages, comparison, (0, 3))
    return [
        markup.ranking_html(ranked),
        markup.heat_map_html(ranked),
        markup.writing_html(EVIL),
        markup.fused_html(fused, ranked),
        markup.note_html(EVIL, EVIL),
        markup.leaderboard_html([Standing(EVIL, 1, 1, 0, 0, 1.0, 0.5, 0.1, 0.9)], 1),
    ]


def test_no_text_from_outside_becomes_markup(ranked: Ranked) -> None:
    for page in pages(ranked):
        assert "onerror" in page  # the text is there
        tags = re.findall(r"<[^>]*>", page)
        assert {re.match(r"</?(\w+)", tag)[1] for tag in tags}.isdisjoint({"img", "script", "a"})
        for tag in tags:
            # In attributes a text can only stand between quotes, of which it has none left.
            outside = re.sub(r'"[^"]*"', "", tag)
            assert "onerror" not in outside
            assert "alert" not in outside
        assert EVIL in unescape(page)


def test_the_ranking_shows_every_candidate_in_order(ranked: Ranked) -> None:
    page = markup.ranking_html(ranked)
    places = [page.index(f"<b>{markup.escape(row.name)}</b>") for row in ranked.rows]
    assert places == sorted(places)
    assert "3 of 3 comparisons" in page


def test_the_heat_map_has_a_cell_for_every_pair(ranked: Ranked) -> None:
    page = markup.heat_map_html(ranked)
    assert page.count('class="bh-tip"') == 6
    assert page.count("read first") == page.count("read second") == 6


def test_position_bias_is_told() -> None:
    page = markup.comparison_html(Comparison("tie", 0.0, 0.5, 1.5, 1.5, Truncation(3, (0, 7))), 1.0)
    assert "moves the logit by 1.50 in favour of the answer that is read first. It decides who wins." in page
    assert "3 tokens of the prompt, 7 tokens of B" in page
    steady = markup.comparison_html(Comparison("a", 2.0, 0.88, 1.0, -3.0, NO_CUT), 1.0)
    assert "moves the logit by 1.00 in favour of the answer that is read second. It does not change who wins." in steady
    symmetric = markup.comparison_html(Comparison("a", 2.0, 0.88, 2.0, -2.0, NO_CUT), 1.0)
    assert "The order of presentation changes nothing." in symmetric
    assert "width:73.1%" in steady
    assert "width:95.3%" in steady


def test_numbers_have_a_sign_unless_they_are_zero() -> None:
    assert [markup._signed(number) for number in (1.234, -0.5, -0.001)] == ["+1.23", "\N{MINUS SIGN}0.50", "0.00"]


def test_no_leaderboard_is_said() -> None:
    assert "do not name two models" in markup.leaderboard_html([], 3)
