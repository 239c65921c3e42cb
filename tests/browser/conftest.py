import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Long, because nothing here is about time: a machine that does much else at once must not fail a test.
TIMEOUT_MS = 120_000
# Gradio 6.17 raises it by itself; it is the newest that works with transformers 4.57. 6.31 does not.
GRADIOS_OWN = "i18n is not a function"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, that of the system; closed after its tests, for Playwright keeps an event loop running."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no browser for these tests; install one: apt-get install chromium")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, app_url: str) -> Iterator[object]:
    """Open the page as a visitor of one's own; scripts that fail, or that a text smuggled in, fail the test."""
    opened: list[Page] = []
    faults: list[str] = []

    def open_page(width: int = 1280, height: int = 900, scheme: str = "light", url: str = app_url) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: None if GRADIOS_OWN in str(error) else faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(url)
        page.locator("#blend").wait_for()
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert not faults
