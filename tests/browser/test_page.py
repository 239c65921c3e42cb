"""The page in a real browser, as people use it."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from blender_hf import Blender
from blender_hf.engine.results import Ranking
from blender_hf.space.prompts import examples

pytestmark = pytest.mark.once

EVIL = "<img src=x onerror=alert(1)> [link](javascript:alert(2)) `${alert(3)}` {{alert(4)}}"
TITLE = "Can you explain the basics of quantum computing?"
# Width, height and colours, and those that the page is changed to at the end.
WIDE, PHONE = (1280, 900), (390, 844)
LAYOUTS = [(WIDE, "light", PHONE), (PHONE, "dark", WIDE)]


def fill_candidates(page: Page, *texts: str) -> None:
    """Replace the candidates with these, pasted together."""
    page.get_by_text("Paste several candidates at once").click()
    page.locator("#pasted textarea").fill("\n---\n".join(texts))
    page.locator("#paste").click()
    expect(page.locator(f"#candidate-{len(texts)}")).to_be_hidden()
    expect(page.locator("#text-0 textarea")).to_have_value(texts[0])


def names_in_order(page: Page) -> list[str]:
    return page.locator("#ranking .bh-name b").all_inner_texts()


def expected_names(ranking: Ranking) -> list[str]:
    return [ranking.models[index] or f"Candidate {index + 1}" for index in ranking.order]


@pytest.mark.parametrize(("size", "scheme", "other_size"), LAYOUTS)
def test_load_an_example_rank_and_fuse(
    visit, blender: Blender, size: tuple[int, int], scheme: str, other_size: tuple[int, int]
) -> None:
    page = visit(*size, scheme)
    page.locator("#example input").click()
    page.get_by_role("option", name=TITLE).click()
    expect(page.locator("#prompt textarea")).to_have_value(TITLE)
    item = examples()[TITLE].item
    ranking = blender.rank(item.prompt, item.candidates)

    page.locator("#rank").click()
    expect(page.locator("#heat table")).to_be_visible()
    assert names_in_order(page) == expected_names(ranking)
    assert page.locator("#heat tbody th").all_inner_texts() != []
    cells = page.locator("#heat td[tabindex]")
    assert cells.count() == 30
    assert not page.locator("#fused .bh-text").count()
    cells.nth(0).hover()
    tip = cells.nth(0).locator(".bh-tip")
    expect(tip).to_be_visible()
    first, second = ranking.order[:2]
    both = blender.compare(item.prompt, item.texts[first], item.texts[second])
    told = [f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in (both.logit_ab, -both.logit_ba)]
    expect(tip).to_contain_text(f"read first {told[0]}; read second {told[1]}")

    page.locator("#blend").click()
    fused = page.locator("#fused [data-testid=fused]")
    expect(fused).to_be_visible()
    generation = {"max_new_tokens": 768, "num_beams": 1}
    assert fused.inner_text() == blender.fuse(item.prompt, ranking.sorted_candidates[:3], generation=generation).text
    assert fused.locator("mark").count() > 0
    expect(page.locator("#fused .bh-verdict")).to_contain_text("%")

    page.locator("#copy").click()
    page.wait_for_function("async (text) => await navigator.clipboard.readText() === text", arg=fused.inner_text())
    assert is_dark(page) == (scheme == "dark")
    for width, height in (size, other_size):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def is_dark(page: Page) -> bool:
    colour = page.evaluate("getComputedStyle(document.querySelector('.bh')).color")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) > 3 * 128


def test_candidates_are_added_and_removed_one_by_one(visit) -> None:
    page = visit()
    page.locator("#clear").click()
    expect(page.locator("#candidate-2")).to_be_hidden()
    for index, text in enumerate(("one", "two", "three")):
        if index > 1:
            page.locator("#add").click()
        page.locator(f"#text-{index} textarea").fill(text)
    page.get_by_role("button", name="Remove B").click()
    expect(page.locator("#candidate-2")).to_be_hidden()
    expect(page.locator("#text-0 textarea")).to_have_value("one")
    expect(page.locator("#text-1 textarea")).to_have_value("three")


def test_texts_stay_texts(visit) -> None:
    page = visit()
    fill_candidates(page, EVIL, f"{EVIL} again", "harmless")
    page.locator("#candidate-0 .bh-candidate-head input, #candidate-0 .bh-candidate-head textarea").first.fill(EVIL)
    page.locator("#blend").click()
    expect(page.locator("#fused [data-testid=fused]")).to_be_visible()
    page.locator("#heat td[tabindex]").first.hover()
    assert EVIL in page.locator("#ranking").inner_text()
    assert page.locator(".bh img, .bh a, .bh script").count() == 0


def test_an_error_is_told_in_plain_words_and_as_text(visit, tmp_path: Path) -> None:
    page = visit()
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({EVIL: 1}) + "\n")
    page.get_by_role("tab", name="Batch").click()
    expect(page.locator("#downloads")).to_be_hidden()
    page.locator("#upload input[type=file]").set_input_files(path)
    expect(page.locator("#upload a[download]")).to_be_visible()
    page.locator("#run-batch").click()
    toast = page.get_by_test_id("toast-text").first
    expect(toast).to_contain_text("bad.jsonl:1: no candidates were found")
    assert EVIL in toast.inner_text()
    assert toast.locator("img, a").count() == 0


def test_the_keyboard_is_enough(visit) -> None:
    page = visit()
    fill_candidates(page, "Four.", "Bananas are yellow.")
    page.locator("#prompt textarea").focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "rank":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#heat table")).to_be_visible()
    page.locator("#ranking summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#ranking details .bh-text").first).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#heat') !== null"):
            break
    expect(page.locator("#heat .bh-tip").first).to_be_visible()


def test_compare_shows_the_bias_of_the_order(visit, blender: Blender) -> None:
    page = visit()
    page.get_by_role("tab", name="Compare").click()
    for name, text in (("compare-prompt", "2 + 2?"), ("answer-a", "4"), ("answer-b", "Bananas.")):
        page.locator(f"#{name} textarea").fill(text)
    page.locator("#compare").click()
    expect(page.locator("#comparison .bh-duel")).to_have_count(3)
    found = blender.compare("2 + 2?", "4", "Bananas.")
    bias = abs(found.logit_ab + found.logit_ba) / 2
    expect(page.locator("#comparison")).to_contain_text(f"moves the logit by {bias:.2f}")


def test_a_batch_gives_a_leaderboard_and_files(visit, tmp_path: Path) -> None:
    page = visit()
    path = tmp_path / "answers.csv"
    path.write_text("prompt,style,alpha,beta\n2 + 2?,dry,4,Bananas.\nWho?,,Me.,You and I.\n")
    page.get_by_role("tab", name="Batch").click()
    page.locator("#upload input[type=file]").set_input_files(path)
    expect(page.locator("#upload a[download]")).to_be_visible()  # the link comes when the file is there
    page.locator("#run-batch").click()
    expect(page.locator("#board tbody tr")).to_have_count(2)
    assert set(page.locator("#board tbody th").all_inner_texts()) == {"alpha", "beta"}
    assert page.locator("#board .bh-whisker").count() == 2
    expect(page.locator("#board")).to_contain_text("Not read: style.")
    with page.expect_download() as download:
        page.locator("#downloads a[download*=preferences]").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"2 + 2?", "Who?"}


def test_a_name_that_is_no_data_set_is_refused(visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#data-set input, #data-set textarea").fill("/etc/passwd")
    page.locator("#run-batch").click()
    expect(page.get_by_test_id("toast-text").first).to_contain_text("is no id of a data set on the Hub")


def test_without_a_token_it_says_where_to_get_one(visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blender_hf.space.answers.get_token", lambda: None)
    page = visit()
    page.get_by_text("Let language models answer").click()
    page.locator("#models textarea, #models input").fill("org/model")
    page.locator("#generate").click()
    expect(page.get_by_test_id("toast-text").first).to_contain_text("need a token")


@pytest.mark.slow
@pytest.mark.once
def test_ten_people_at_once_see_each_their_own(visit, blender: Blender) -> None:
    visitors = []
    for number in range(10):
        page = visit(800, 600)
        texts = [f"visitor {number} says {word}." for word in ("yes", "no", "perhaps")]
        fill_candidates(page, *texts)
        visitors.append((page, texts))
    for page, _ in visitors:
        page.locator("#blend").click()
    for page, texts in visitors:
        expect(page.locator("#fused [data-testid=fused]")).to_contain_text(texts[0][:14])
        shown = page.locator("#ranking summary").all_inner_texts()
        prompt = page.locator("#prompt textarea").input_value()
        assert [text.removeprefix("▸ ") for text in shown] == list(blender.rank(prompt, texts).sorted_candidates)
