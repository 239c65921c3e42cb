"""Take the screenshots of the page for the documents: `python -m benchmarks.screenshots`, into docs/.

It runs the page on the bundled checkpoints in the system's Chromium (`apt-get install chromium`).
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, sync_playwright

from app import build_app, launch_options

ROOT = Path(__file__).parent.parent
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
N_PROMPTS = 12
TIMEOUT_MS = 600_000
# The two columns of the page, and the narrow one of a phone.
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def opened(browser: Browser, url: str, size: dict[str, int], scheme: str) -> Page:
    page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1.25)
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(url)
    page.locator("#blend").wait_for()
    return page


def blend(page: Page) -> None:
    page.locator("#blend").click()
    page.locator("#answer .bh-verdict").wait_for()
    page.locator("#pair").wait_for()
    page.locator("#heat td[tabindex]").nth(1).focus()
    page.wait_for_timeout(1000)  # until the page has stopped scrolling


def compare(page: Page) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare").click()
    page.locator("#comparison .bh-duel").first.wait_for()
    page.wait_for_timeout(500)


def batch(page: Page) -> None:
    page.get_by_role("tab", name="Batch").click()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        lines = (ROOT / "blender_hf" / "examples" / "smoke.jsonl").read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(lines[:N_PROMPTS]), encoding="utf-8")
        page.locator("#upload input[type=file]").set_input_files(path)
        page.locator("#upload a[download]").wait_for()
    page.locator("#run-batch").click()
    page.locator("#board table").wait_for()
    page.wait_for_timeout(500)


def main(arguments: Sequence[str] | None = None) -> int:
    """Take all pictures, and print what each shows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    output = parser.parse_args(arguments).output
    app = build_app()
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    views = (
        ("space-blend", WIDE, "light", blend, None),
        ("space-phone", PHONE, "dark", blend, "#answer"),
        ("space-compare", WIDE, "dark", compare, None),
        ("space-batch", WIDE, "light", batch, None),
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, size, scheme, act, top in views:
            page = opened(browser, url, size, scheme)
            act(page)
            path = output / f"{name}.png"
            if top is not None:  # no more than the screen, from there on
                page.locator(top).evaluate("element => element.scrollIntoView()")
            page.screenshot(path=path, full_page=top is None)
            print(json.dumps({"picture": path.name, "width": size["width"], "colours": scheme}))
            page.close()
        browser.close()
    app.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
