"""The page in a real browser, as people use it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app import build_app, launch_options
from blender_hf import Blender
from blender_hf.engine.results import Ranking
from blender_hf.space.prompts import examples

pytestmark = pytest.mark.once

EVIL = "<img src=x onerror=alert(1)> [link](javascript:alert(2)) `${alert(3)}` {{alert(4)}}"
TITLE = "Why is salt put on icy roads?"
# Width, height and colours, and those that the page is changed to at the end.
WIDE, PHONE = (1440, 900), (390, 844)
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
    assert cells.count() == 12
    answer = page.get_by_test_id("answer")
    assert answer.inner_text() == ranking.best
    expect(page.locator("#answer .bh-verdict")).to_contain_text("The best candidate")
    expect(page.locator("#text-0")).to_be_hidden()
    page.locator("#candidates > button").click()  # they fold where there are results
    expect(page.locator("#text-0")).to_be_visible()
    cells.nth(0).hover()
    tip = cells.nth(0).locator(".bh-tip")
    expect(tip).to_be_visible()
    first, second = ranking.order[:2]
    both = blender.compare(item.prompt, item.texts[first], item.texts[second])
    told = [f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in (both.logit_ab, -both.logit_ba)]
    expect(tip).to_contain_text(f"read first {told[0]}; read second {told[1]}")

    page.locator("#blend").click()
    expect(page.locator("#answer .bh-verdict")).to_contain_text("%")
    generation = {"max_new_tokens": 448, "num_beams": 1}
    blend = blender.blend(item.prompt, item.candidates, top_k=3, generation=generation)
    assert answer.inner_text() == blend.output
    fused = page.get_by_test_id("answer" if blend.returned == "fused" else "fused")
    assert fused.text_content() == blend.fusion.text
    assert fused.locator("mark").count() > 0

    page.locator("#copy").click()
    page.wait_for_function("async (text) => await navigator.clipboard.readText() === text", arg=answer.inner_text())
    assert is_dark(page) == (scheme == "dark")
    for width, height in (size, other_size):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def is_dark(page: Page) -> bool:
    colour = page.evaluate("getComputedStyle(document.querySelector('.bh')).color")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) > 3 * 128


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_what_matters_is_on_the_first_screen(visit, checkpoints: Path, size: tuple[int, int], scheme: str) -> None:
    page = visit(*size, scheme)
    assert is_dark(page) == (scheme == "dark")
    for place in (".bh-title h1", ".bh-links a", "#settings", "#prompt", "#blend", "#candidates"):
        expect(page.locator(place).first).to_be_in_viewport()
    expect(page.locator("#settings")).to_contain_text(f"ranker {checkpoints / 'ranker'}")
    page.evaluate(
        """() => {
            const answer = document.getElementById("answer");
            window.told = new Set();
            new MutationObserver(() => window.told.add(answer.innerText)).observe(
                answer, {childList: true, subtree: true, characterData: true});
        }"""
    )
    page.locator("#blend").click()
    expect(page.locator("#answer .bh-verdict")).to_be_in_viewport(ratio=1)
    expect(page.get_by_test_id("answer")).to_be_in_viewport()
    expect(page.locator("#text-0")).to_be_hidden()
    assert any("Ranking 4 candidates" in text for text in page.evaluate("[...window.told]"))
    if size == WIDE:
        expect(page.locator("#ranking .bh-first")).to_be_in_viewport()
    tops = [page.locator(place).bounding_box()["y"] for place in ("#answer", "#ranking", "#heat", "#pair")]
    assert tops == sorted(tops)
    page.get_by_text("What the figures mean").click()
    expect(page.locator("#ranking dd", has_text="position bias")).to_be_visible()


@pytest.fixture
def url_of_rankers(checkpoints: Path) -> Iterator[str]:
    app = build_app([str(checkpoints / "no-ranker"), "org/ranker"], ["gen-fuser-mini"])
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    app.close()


def test_the_models_in_use_are_told_and_have_their_cards(visit, url_of_rankers: str) -> None:
    page = visit(url=url_of_rankers)
    page.locator("#settings > button").click()
    page.locator("#ranker input").click()
    page.get_by_role("option", name="org/ranker").click()
    expect(page.locator("#settings > button")).to_have_text(re.compile("ranker org/ranker · fuser gen-fuser-mini"))
    page.get_by_role("tab", name="Models").click()
    page.get_by_role("tabpanel").get_by_role("button", name="Ranker org/ranker").click()
    link = page.get_by_role("link", name="org/ranker on the Hub")
    expect(link).to_have_attribute("href", "https://huggingface.co/org/ranker")
    page.get_by_role("tabpanel").get_by_role("button", name="Fuser gen-fuser-mini").click()
    expect(page.get_by_role("heading", name="gen-fuser-mini")).to_be_visible()


def test_a_ranker_that_can_not_be_loaded_gives_a_reason_in_place_of_the_answer(visit, url_of_rankers: str) -> None:
    page = visit(url=url_of_rankers)
    page.locator("#blend").click()
    expect(page.locator("#answer")).to_contain_text("No answer")
    expect(page.locator("#answer .bh-note")).to_contain_text("no-ranker")
    expect(page.locator("#blend")).to_be_enabled()


def test_results_of_other_inputs_are_dimmed_until_they_are_made_anew(visit) -> None:
    page = visit()
    note = page.locator(".bh-stale:visible")
    page.locator("#text-0 textarea").fill("Nothing was ranked yet.")
    expect(note).to_have_count(0)

    def rank() -> None:
        page.locator("#rank").click()
        expect(page.locator("#pair")).to_be_visible()
        expect(page.locator("#rank")).to_be_enabled()
        expect(note).to_have_count(0)

    def other_example() -> None:
        page.locator("#example input").click()
        page.get_by_role("option", name=TITLE).click()

    def other_settings() -> None:
        page.locator("#settings > button").click()
        page.get_by_label("Aggregation").click()
        page.get_by_role("option", name="copeland").click()

    for change in (other_example, other_settings, lambda: page.locator("#prompt textarea").fill("Why?")):
        rank()
        change()
        expect(note).to_have_count(1)
        assert page.evaluate("getComputedStyle(document.getElementById('answer')).opacity") < "0.6"
    rank()
    page.locator("#candidates > button").click()
    page.locator("#clear").click()
    expect(page.locator("#answer .bh-steps")).to_be_visible()
    expect(page.locator("#heat table")).to_have_count(0)
    expect(page.locator("#pair")).to_be_hidden()
    expect(page.locator("#example input")).to_have_value("")


def test_inputs_that_can_not_be_ranked_leave_everything_as_it_is(visit) -> None:
    page = visit()
    page.locator("#prompt textarea").fill(" ")
    page.locator("#blend").click()
    expect(page.get_by_test_id("toast-text").first).to_contain_text("the prompt is empty")
    expect(page.locator("#text-0")).to_be_visible()
    expect(page.locator("#answer .bh-steps")).to_be_visible()
    expect(page.locator("#blend")).to_be_enabled()


def test_two_candidates_are_sent_to_be_compared(visit, blender: Blender) -> None:
    page = visit()
    texts = ("Four.", "Bananas are yellow.", "It is four, as far as I know.")
    fill_candidates(page, *texts)
    page.locator("#prompt textarea").fill("2 + 2?")
    page.get_by_text("System message and earlier turns").first.click()
    page.get_by_label("System message").first.fill("Be brief.")
    page.locator("#rank").click()
    best, _, third = blender.rank(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}], texts
    ).order
    page.locator("#pair-second input").click()
    page.get_by_role("option", name=f"Candidate {third + 1}").click()
    page.locator("#compare-pair").click()
    expect(page.locator("#comparison .bh-duel")).to_have_count(3)
    expect(page.locator("#compare-prompt textarea")).to_have_value("2 + 2?")
    expect(page.locator("#answer-a textarea")).to_have_value(texts[best])
    expect(page.locator("#answer-b textarea")).to_have_value(texts[third])
    found = blender.compare(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}], texts[best], texts[third]
    )
    expect(page.locator("#comparison")).to_contain_text(f"{found.probability:.0%} that A is better")
    expect(page.locator(".bh-stale:visible")).to_have_count(0)
    page.locator("#answer-a textarea").fill("Three.")
    expect(page.locator(".bh-stale:visible")).to_have_count(1)


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
    expect(page.locator("#answer .bh-verdict")).to_be_visible()
    page.locator("#heat td[tabindex]").first.hover()
    assert EVIL in page.locator("#ranking").inner_text()
    assert page.locator(".bh-results :is(img, a, script)").count() == 0


def test_an_error_of_a_file_stays_in_plain_words_and_as_text(visit, tmp_path: Path) -> None:
    page = visit()
    bad, good, text = tmp_path / "bad.jsonl", tmp_path / "good.jsonl", tmp_path / "notes.txt"
    bad.write_text(json.dumps({EVIL: 1}) + "\n")
    good.write_text(json.dumps({"prompt": "2 + 2?", "candidates": ["4", "5"]}) + "\n")
    text.write_text("4")
    page.get_by_role("tab", name="Batch").click()
    expect(page.locator("#downloads")).to_be_hidden()
    status = page.locator("#batch-status")
    page.locator("#upload input[type=file]").set_input_files(bad)
    expect(status.get_by_role("alert")).to_contain_text("bad.jsonl:1: no candidates were found")
    assert EVIL in status.inner_text()
    assert status.locator("img, a").count() == 0
    page.locator("#run-batch").click()
    expect(page.locator("#run-batch")).to_be_enabled()
    expect(status.get_by_role("alert")).to_be_visible()
    for path, told in ((text, "notes.txt: only"), (good, "1 prompt, 2 answers")):
        page.locator("#upload").get_by_label("Clear").click()
        expect(status.locator(".bh")).to_have_count(0)
        page.locator("#upload input[type=file]").set_input_files(path)
        expect(status).to_contain_text(told)


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
    page = visit(*PHONE)
    page.get_by_role("tab", name="Compare").click()
    for name, text in (("compare-prompt", "2 + 2?"), ("answer-a", "4"), ("answer-b", "Bananas.")):
        page.locator(f"#{name} textarea").fill(text)
    page.locator("#compare").click()
    expect(page.locator("#comparison .bh-duel")).to_have_count(3)
    expect(page.locator("#comparison h3")).to_be_in_viewport()
    found = blender.compare("2 + 2?", "4", "Bananas.")
    bias = abs(found.logit_ab + found.logit_ba) / 2
    expect(page.locator("#comparison")).to_contain_text(f"moves the logit by {bias:.2f}")


ANSWERS = """prompt,style,alpha,llama-3.1-8b-instruct
2 + 2?,dry,4,Bananas.
Who?,,Me.,You and I.
Where is Rome?,,In Italy.,I do not know.
"""


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_batch_gives_a_leaderboard_files_and_the_answers_of_each_prompt(
    visit, blender: Blender, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    page = visit(*size, scheme)
    path = tmp_path / "answers.csv"
    path.write_text(ANSWERS)
    models = ("alpha", "llama-3.1-8b-instruct")
    page.get_by_role("tab", name="Batch").click()
    page.locator("#upload input[type=file]").set_input_files(path)
    expect(page.locator("#upload a[download]")).to_be_visible()  # the link comes when the file is there
    page.locator("#run-batch").click()
    expect(page.locator("#board tbody tr")).to_have_count(2)
    names = page.locator("#board tbody th")
    assert set(names.all_inner_texts()) == set(models)
    assert page.locator("#board .bh-whisker").count() == 2
    row = page.locator("#board tbody tr").first
    row.scroll_into_view_if_needed()
    for cell in row.locator("th, td").all():  # on a phone, too
        expect(cell).to_be_in_viewport(ratio=1)
    heights = [name.bounding_box()["height"] for name in names.all()]
    assert max(heights) == min(heights), "a name is broken"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    expect(page.locator("#board")).to_contain_text("Not read: style.")

    rome = blender.rank("Where is Rome?", ["In Italy.", "I do not know."])
    prompts = page.locator("#prompts label")
    expect(prompts).to_have_count(3)
    page.locator("#search input, #search textarea").fill("ITALY rome")
    expect(prompts).to_have_count(1)
    expect(prompts).to_contain_text("3. Where is Rome?")
    expect(page.locator("#answers .bh-prompt")).to_have_text("Where is Rome?")
    assert page.locator("#answers .bh-name b").all_inner_texts() == [models[index] for index in rome.order]
    page.locator("#search input, #search textarea").fill("Paris")
    expect(page.locator("#answers")).to_contain_text("Nothing found")
    page.locator("#search input, #search textarea").fill("")
    expect(prompts).to_have_count(3)
    prompts.nth(1).click()
    expect(page.locator("#answers .bh-prompt")).to_have_text("Who?")
    page.locator("#fuse-picked").click()
    expect(page.locator("#fused-picked .bh-verdict")).to_be_visible()

    with page.expect_download() as download:
        page.locator("#downloads a[download*=preferences]").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"2 + 2?", "Who?", "Where is Rome?"}


def test_a_name_that_is_no_data_set_is_refused(visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#data-set input, #data-set textarea").fill("/etc/passwd")
    page.locator("#run-batch").click()
    expect(page.locator("#batch-status").get_by_role("alert")).to_contain_text("is no id of a data set on the Hub")


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
        expect(page.get_by_test_id("answer")).to_contain_text(texts[0][:14])
        shown = page.locator("#ranking summary").all_inner_texts()
        prompt = page.locator("#prompt textarea").input_value()
        answers = [text.removeprefix("▸ ") for text in shown if text != "What the figures mean"]
        assert answers == list(blender.rank(prompt, texts).sorted_candidates)
