"""What tests of the page do with it, whichever server is behind it."""

import time
from collections.abc import Sized
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from playwright.sync_api import Locator, Page, expect

from tests.waiting import eventually

AXE = files("axe_playwright_python").joinpath("axe.min.js")
RULES = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"


def opened(page: Page, query: str = "") -> Page:
    page.goto(f"/{query}")
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def row(page: Page, key: str) -> Locator:
    return page.locator(f'#rows tr[data-key="{key}"]')


def query(page: Page) -> str:
    """What the address says now; the browser is asked, because Playwright hears of it only while it is used."""
    return page.evaluate("location.search.slice(1)")


def stop_the_clock(page: Page) -> None:
    """Let no time pass for the page: what it says for two seconds, it says until ``page.clock.resume()``.

    Before the page was opened, its clock must have been taken over: ``page.clock.install()``.
    """
    page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))  # less than the silence that it allows the server


def at_rest(requests: Sized) -> int:
    """Wait until nothing more is asked for, and return how much was. The page asks once a second at most."""

    def asked() -> int:
        before = len(requests)
        time.sleep(1.5)
        return before if len(requests) == before else 0

    return eventually(asked)


def tame(page: Page) -> None:
    """Nothing that was text has become an element, and nothing is wider than the page."""
    assert page.locator("img:not([src='favicon.svg']), main script, dialog script, [onerror], [onclick]").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert not wider(page)


def wider(page: Page) -> bool:
    return page.evaluate(
        """[document.documentElement, document.getElementById("detail")].some(
          (one) => one && one.scrollWidth > one.clientWidth)"""
    )


def violations(page: Page) -> list[tuple[str, str, list[str]]]:
    """What axe finds, in light on a desktop and in dark on a telephone. The context must let it in (bypass_csp)."""
    page.evaluate(AXE.read_text())
    found = []
    for width, scheme in ((1280, "light"), (360, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        broken = page.evaluate(RULES)["violations"]
        found += [(scheme, one["id"], [node["html"] for node in one["nodes"]]) for one in broken]
    return found
