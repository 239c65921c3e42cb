import math
import re
from dataclasses import replace
from html import unescape

import pytest
from markupsafe import escape

from blender_hf import Blender
from blender_hf.data.sources import read_records
from blender_hf.engine.results import POINTWISE, Comparison, Ranking, Truncation
from blender_hf.space import markup
from blender_hf.space.fused import Fused, SourcedPassage
from blender_hf.space.leaderboard import Standing
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.once

EVIL = (
    """<img src=x onerror="alert(1)"> [a](javascript:alert(2)) `${alert(3)}` {{alert}} ' " & """
    "<script>alert(4)</script>"
)
NO_CUT = Truncation(0, (0, 0))


@pytest.fixture(scope="module")
def ranking(blender: Blender) -> Ranking:
    candidates = [{"text": EVIL, "model": EVIL}, {"text": f"{EVIL} more", "model": "quiet"}, "plain"]
    return blender.rank(EVIL, candidates)


def pages(ranking: Ranking) -> list[str]:
    comparison = Comparison(2.0, 0.0, NO_CUT)
    passages = (SourcedPassage(EVIL, 0, True), SourcedPassage(f" {EVIL}", None, False))
    fused = Fused(EVIL, (0, 1), passages, None, comparison, (0, 3))
    return [
        markup.ranking_html(ranking, 0.02),
        markup.heat_map_html(ranking),
        markup.writing_html(EVIL),
        markup.answer_html(ranking, fused),
        markup.answer_html(ranking, None, EVIL),
        markup.comparison_html(comparison, {"a": EVIL}),
        markup.note_html(EVIL, EVIL),
        markup.leaderboard_html([Standing(EVIL, 1, 1, 0, 0, 1.0, 0.5, 0.1, 0.9)], [ranking], [EVIL]),
    ]


def test_no_text_from_outside_becomes_markup(ranking: Ranking) -> None:
    for page in pages(ranking):
        assert "onerror" in page  # the text is there
        tags = re.findall(r"<[^>]*>", page)
        assert {re.match(r"</?(\w+)", tag)[1] for tag in tags}.isdisjoint({"img", "script", "a"})
        for tag in tags:
            # In attributes a text can only stand between quotes, of which it has none left.
            outside = re.sub(r'"[^"]*"', "", tag)
            assert "onerror" not in outside
            assert "alert" not in outside
        assert EVIL in unescape(page)


def test_the_ranking_shows_every_candidate_in_order(ranking: Ranking) -> None:
    page = markup.ranking_html(ranking, 0.02)
    places = [page.index(f"<b>{escape(markup.candidate_name(ranking, i))}</b>") for i in ranking.order]
    assert places == sorted(places)
    assert "3 of 3 comparisons" in page


THE_BEST = "The best candidate, c, word for word."
BEST_IS_BETTER, FUSED_IS_BETTER = Comparison(-1.0, 1.0, NO_CUT), Comparison(0.01, -0.01, NO_CUT)


@pytest.mark.parametrize(
    ("text", "copied", "comparison", "told"),
    [
        (
            "new",
            None,
            FUSED_IS_BETTER,
            "Fused from b. It is better than the best candidate, c, with a probability of 50.2%.",
        ),
        ("new", None, BEST_IS_BETTER, f"{THE_BEST} The fused text is better with a probability of only 26.9%."),
        (
            "second",
            1,
            FUSED_IS_BETTER,
            "b, word for word: the fuser copied it. It is better than the first of the ranking, c,",
        ),
        (
            "second",
            1,
            BEST_IS_BETTER,
            f"{THE_BEST} The fuser copied b, which is better with a probability of only 26.9%.",
        ),
        ("third", 2, Comparison(0.0, 0.0, NO_CUT), f"{THE_BEST} The fuser copied it too."),
    ],
)
def test_the_answer_says_whose_it_is(text: str, copied: int | None, comparison: Comparison, told: str) -> None:
    ranking = Ranking(
        candidates=("first", "second", "third"),
        models=("a", "b", "c"),
        order=(2, 1, 0),
        ranks=(3, 2, 1),
        scores=(-1.0, 0.0, 1.0),
        logits=((math.nan, -1.0, -2.0), (1.0, math.nan, -1.0), (2.0, 1.0, math.nan)),
        temperature=1.0,
        truncated=Truncation(0, (0, 0, 0)),
        schedule="full",
    )
    fused = Fused(text, (2, 1), (SourcedPassage(text, 1, False),), copied, comparison, (0, 0))
    page = markup.answer_html(ranking, fused)
    assert told in plain(page)
    answer = re.search(r'data-testid="answer"[^>]*>(.*?)</div>', page, re.DOTALL)[1]
    assert plain(answer) == (text if comparison is FUSED_IS_BETTER else "third")
    assert "unfinished" in markup.answer_html(ranking, replace(fused, unfinished=True))


def test_the_answer_says_why_nothing_was_fused(ranking: Ranking) -> None:
    assert "word for word. All are the same." in plain(markup.answer_html(ranking, None, "All are the same."))


def plain(page: str) -> str:
    """Return a page as it reads, without the letters of the candidates."""
    without = re.sub(r'<span class="bh-dot.*?</span>', "", page)
    text = " ".join(unescape(re.sub("<[^>]*>", "", without)).split())
    return re.sub(r" (?=[,.])", "", text)


def test_terms_that_need_pairs_are_not_explained_for_scores(ranking: Ranking) -> None:
    assert set(re.findall("<dt>(.*?)</dt>", markup.ranking_html(ranking, 0.02))) == set(markup.TERMS)
    page = markup.ranking_html(replace(ranking, schedule=POINTWISE), 0.02)
    assert set(re.findall("<dt>(.*?)</dt>", page)) == {"percentage", "score", "tie"}


def test_the_heat_map_has_a_cell_for_every_pair(ranking: Ranking) -> None:
    page = markup.heat_map_html(ranking)
    assert page.count('class="bh-tip"') == 6
    assert page.count("read first") == page.count("read second") == 6


def test_both_orders_of_a_pair_are_shown(ranking: Ranking) -> None:
    page = markup.heat_map_html(ranking)
    for i, j in ((0, 1), (1, 0)):
        first, second = (markup._signed(sign * ranking.logits[a][b]) for sign, a, b in ((1, i, j), (-1, j, i)))
        assert f"read first {first}; read second {second}." in page
    flips = [ranking.flipped(i, j) for i in range(3) for j in range(3)]
    assert page.count("The order decides.") == sum(flips) == page.count('bh-flipped" tabindex')


def test_what_was_not_compared_is_said(blender: Blender) -> None:
    item = next(iter(read_records(EXAMPLES))).item
    ranking = blender.rank(item.prompt, item.texts, schedule="knockout", top_k=1)
    page = markup.heat_map_html(ranking)
    assert page.count(": not compared.") == 2 * (ranking.n_possible - ranking.n_comparisons) > 0
    assert all(0 < ranking.win_probability(index) < 1 for index in ranking.order)


def test_ties_are_marked(blender: Blender) -> None:
    ranking = blender.rank("2 + 2?", ["4", "Bananas.", "4"])
    assert ranking.ranks in ((1, 3, 1), (2, 1, 2))
    assert markup.tied_candidates(ranking, 0) == {0, 2}
    assert markup.tied_candidates(ranking, 0.5) == {0, 1, 2}
    assert markup.ranking_html(ranking, 0).count("bh-tie") == 2
    assert markup.heat_map_html(ranking).count("The same text: a tie without a comparison.") == 2


def test_names_tell_candidates_apart(blender: Blender) -> None:
    named = [{"text": "a", "model": "m"}, {"text": "b", "model": "m"}, {"text": "c", "model": "n"}, "d"]
    ranking = blender.rank("?", named)
    names = [markup.candidate_name(ranking, index) for index in range(4)]
    assert names == ["m (candidate 1)", "m (candidate 2)", "n", "Candidate 4"]


def test_position_bias_is_told() -> None:
    page = markup.comparison_html(Comparison(1.5, 1.5, Truncation(3, (0, 7))))
    assert "moves the logit by 1.50 in favour of the answer that is read first. It decides who wins." in page
    assert "3 tokens of the prompt, 7 tokens of B" in page
    steady = markup.comparison_html(Comparison(1.0, -3.0, NO_CUT))
    assert "moves the logit by 1.00 in favour of the answer that is read second. It does not change who wins." in steady
    symmetric = markup.comparison_html(Comparison(2.0, -2.0, NO_CUT))
    assert "The order of presentation changes nothing." in symmetric
    assert "width:73.1%" in steady
    assert "width:95.3%" in steady


def test_numbers_have_a_sign_unless_they_are_zero() -> None:
    assert [markup._signed(number) for number in (1.234, -0.5, -0.001)] == ["+1.23", "\N{MINUS SIGN}0.50", "0.00"]


def test_no_leaderboard_is_said() -> None:
    assert "do not name two models" in markup.leaderboard_html([], [])


def test_what_a_batch_left_out_is_said(blender: Blender) -> None:
    rankings = [blender.rank("Which?", [text, "a"]) for text in ("b", "word " * 3000, "\N{CRYING FACE}")]
    standings = [Standing("a", 1, 1, 0, 0, 1.0, 0.5, 0.1, 0.9)]
    page = markup.leaderboard_html(standings, rankings, ["foo", "bar"])
    assert "Not read: foo, bar." in page
    assert "too long for the ranker: 1." in page
    assert "does not know: 1." in page
    assert "Not read" not in markup.leaderboard_html(standings, rankings[:1])
