"""Makes the screenshots of the page: ``python -m tests.page.screenshots FOLDER``. The data and the time are fixed.

The same fonts give the same pictures: tests/system-packages.txt names them.
"""

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.page import data
from tests.page.browser import chromium
from tests.page.fake import Fake
from tests.page.palette import reduce

DESKTOP = {"width": 1280, "height": 800}
TELEPHONE = {"width": 390, "height": 844}


def take(folder: Path) -> list[Path]:
    """Make them all, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    with Fake() as fake, chromium() as browser:
        fake.complain(data.PROBLEM["reason"], data.PROBLEM["message"], published=True)
        detail = "?service=monitoring/prometheus"
        return [
            _shot(browser, fake, folder / "page.png"),
            _shot(browser, fake, folder / "page-detail.png", query=detail, color_scheme="dark"),
            _shot(browser, fake, folder / "page-file.png", query="?view=file"),
            _shot(browser, fake, folder / "page-telephone.png", viewport=TELEPHONE, is_mobile=True, has_touch=True),
        ]


def _open(browser: Browser, fake: Fake, query: str, options: dict[str, Any]) -> Page:
    fixed = {"viewport": DESKTOP, "device_scale_factor": 2, "locale": "en-GB", "timezone_id": "UTC"}
    page = browser.new_page(**fixed | {"reduced_motion": "reduce"} | options)
    page.clock.set_fixed_time(data.NOW)
    page.goto(f"{fake.base_url}/{query}")
    return page


def _shot(browser: Browser, fake: Fake, path: Path, query: str = "", **options: Any) -> Path:
    page = _open(browser, fake, query, options)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#headline")).to_contain_text("in the toolset")
    if "service=" in query:
        expect(page.locator("#detail .verdict")).to_be_visible()
    return _keep(browser, page, path)


def _keep(browser: Browser, page: Page, path: Path) -> Path:
    empty = browser.new_page()
    path.write_bytes(reduce(page.screenshot(), empty))
    empty.close()
    page.close()
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.page.screenshots FOLDER")
    for made in take(Path(sys.argv[1])):
        print(f"{made.stat().st_size // 1024:5} KB  {made}")
