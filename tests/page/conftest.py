"""The browser, the servers, and a page that notices what must never happen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.page.browser import chromium
from tests.page.fake import Fake
from tests.page.real import Real

_WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


# Not for the session: Playwright keeps an event loop running in this thread, where other tests want one of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)  # the program waits for 5 s, and no longer, while much changes
    with chromium() as started:
        yield started


@pytest.fixture
def server() -> Iterator[Fake | Real]:
    """Where the page is. A module that wants the real program has a fixture of this name."""
    with Fake() as fake:
        yield fake


@pytest.fixture(scope="package")
def real(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """The real program, after the story of the demo. What a test changes it puts back."""
    with Real(tmp_path_factory.mktemp("real")) as started:
        started.tell_the_story()
        yield started


@pytest.fixture
def context(browser: Browser, server: Fake | Real) -> Iterator[BrowserContext]:
    made = browser.new_context(
        base_url=server.base_url, viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="UTC"
    )
    made.set_default_timeout(10_000)
    made.add_init_script(_WATCH)
    yield made
    made.close()


@pytest.fixture
def errors() -> list[str]:
    """What the browser complained of: errors on the console, violations of the policy, and exceptions."""
    return []


@pytest.fixture
def page(context: BrowserContext, errors: list[str]) -> Page:
    made = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    made.on("console", heard)
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    return made
