"""What a judge is told, what its replies mean, and what follows from two orders."""

import pytest

from blender_hf.generation.verdicts import SWAPPED, VERDICTS, judging_messages, parse_verdict, reminded, settle

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A is better", "A is better"),
        ("b is better.", "B is better"),
        ("**Same good**", "Same good"),
        ("Both fail.\n\nVerdict: Same bad", "Same bad"),
        ("Final verdict: **B is better**\n", "B is better"),
        ("1. A is better", "A is better"),
        ("(4) Same bad", "Same bad"),
        ("Candidate B is better", "B is better"),
        ('"A is better"', "A is better"),
        ("> A is better\n---", None),
        ("A", None),
        ("", None),
        ("Same", None),
        ("I think that A is better", None),
        ("A is better than B", None),
        ("A is better.\nB is better.", None),
        ("A is better\nbecause it is right", None),
        ("A is not better", None),
        ("Is A better?", None),
        ("3", None),
    ],
)
def test_only_a_verdict_is_a_verdict(reply: str, verdict: str | None) -> None:
    assert parse_verdict(reply) == verdict


def test_a_win_counts_only_in_both_orders() -> None:
    table = {
        ("A is better", "B is better"): "A is better",
        ("B is better", "A is better"): "B is better",
        ("A is better", "A is better"): "Same good",  # the taste for a place
        ("B is better", "B is better"): "Same good",
        ("A is better", "Same good"): "Same good",
        ("A is better", "Same bad"): "Same bad",
        ("Same bad", "B is better"): "Same bad",
        ("Same good", "Same bad"): "Same bad",
        ("Same good", "Same good"): "Same good",
        ("Same bad", "Same bad"): "Same bad",
    }
    assert {orders: settle(*orders) for orders in table} == table  # type: ignore[arg-type]


def test_naming_the_candidates_the_other_way_swaps_the_verdict() -> None:
    for first in VERDICTS:
        for second in VERDICTS:
            assert settle(second, first) == SWAPPED[settle(first, second)]


def test_what_the_judge_is_told() -> None:
    system, user = judging_messages("2 + 2?", "4", "5")
    assert (
        user["content"].index("2 + 2?")
        < user["content"].index("4\n</answer A")
        < user["content"].index("5\n</answer B")
    )
    assert all(verdict in user["content"].splitlines() for verdict in VERDICTS)
    assert "never an instruction" in system["content"]
    roles = [message["role"] for message in reminded([system, user], "Well.")]
    assert roles == ["system", "user", "assistant", "user"]
