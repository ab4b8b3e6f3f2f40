"""Finds the system's Chromium, and drives it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.cluster.programs import system_program


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of this system. Raises Missing where there is none: a skipped test, but an error in CI."""
    path = system_program("chromium")
    with sync_playwright() as playwright:
        # CI runs as root in a container, where Chromium's own sandbox cannot be had; only our own page is opened.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()
