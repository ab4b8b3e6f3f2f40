"""The reference of the API, at /docs of the real program."""

import json
import shlex
import urllib.error
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dynamic_toolset.server.app import describe
from tests.page.looking import stop_the_clock, violations, wider
from tests.page.real import Real


@pytest.fixture
def server(real: Real) -> Real:
    return real


@pytest.fixture
def document(server: Real) -> Any:
    return server.get("openapi.json")


def reference(page: Page) -> Page:
    page.goto("/docs")
    expect(page.locator("#problem-500")).to_be_visible()
    return page


def operations(document: Any) -> dict[str, tuple[str, str, Any]]:
    """Return id -> method, path, operation."""
    return {
        operation["operationId"]: (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_every_operation_of_the_document_is_shown(page: Page, document: Any, errors: list[str]) -> None:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    reference(page)
    wanted = operations(document)
    assert page.locator("[data-operation]").count() == len(wanted) >= 14
    assert page.locator("#links li").count() == len(wanted) + 1
    tags = page.locator("main h2").all_text_contents()
    assert tags == [*(tag["name"] for tag in document["tags"]), "Problems"]
    for name, (method, path, operation) in wanted.items():
        shown = page.locator(f"#{name}")
        expect(shown.locator("h3")).to_have_text(f"{method.upper()} {path}")
        names = [one["name"] for one in operation.get("parameters", [])]
        assert (
            shown.locator(".words > div").get_by_role("rowheader").locator("code").all_text_contents()[: len(names)]
            == names
        )
        for status, answer in operation["responses"].items():
            if status >= "400":
                expect(shown.locator(f'a[href="#problem-{status}"]')).to_have_count(1)
                expect(page.locator(f"#problem-{status} .listing")).to_contain_text(f'"status": {status}')
            elif any("examples" in content for content in answer["content"].values()):
                expect(shown.get_by_role("region", name=f"Answer {status}")).to_be_visible()
    assert all(url.startswith(page.evaluate("location.origin")) for url in seen)  # nothing from elsewhere
    assert not [one for one in page.locator("main").all_text_contents() if "undefined" in one or "[object" in one]
    assert errors == []


def test_parameters_answers_and_problems_are_told(page: Page, server: Real) -> None:
    reference(page)
    services = page.locator("#listServices")
    for row, words in (
        ("limit query", ("integer", "1 to 500; default 50", "Services on a page.")),
        ("decision query", ("any of candidate, duplicate, rejected, ignored", "may be repeated")),
        ("search query", ("string", "at most 200 characters")),
    ):
        for word in words:
            expect(services.get_by_role("row").filter(has_text=row.split()[0]).first).to_contain_text(word)
    expect(page.locator("#validate").get_by_role("row").filter(has_text="kind")).to_contain_text("required")
    expect(page.locator("#validate")).to_contain_text("application/yaml, text/yaml, text/plain")
    expect(services.get_by_role("region", name="Answer 200")).to_contain_text('"items": [\n    {\n      "namespace"')
    services.get_by_text("13 fields").click()
    health = services.get_by_role("row").filter(has_text="items[].health")
    expect(health).to_contain_text("healthy, unhealthy, unknown")
    expect(health).to_contain_text("or null")
    services.get_by_role("link", name="429").click()
    expect(page.locator("#problem-429")).to_be_in_viewport()
    expect(page.locator("#problem-429")).to_contain_text('"detail": "100 requests a minute')


def test_every_command_works(page: Page, server: Real, document: Any) -> None:
    reference(page)
    for name, (method, _, operation) in operations(document).items():
        text = page.locator(f"#{name}").get_by_role("region", name="Command").inner_text()
        status = run(text)
        filled = any(one["in"] == "path" for one in operation.get("parameters", []))
        assert status == (404 if filled else int(min(operation["responses"]))), text
        assert ("-X" in text) == (method != "get")
        assert "$TOKEN" not in text  # everybody may call here


def test_where_a_token_is_needed_the_commands_carry_one(page: Page, server: Real) -> None:
    told = json.loads(describe(needs_token=True))
    page.route("**/openapi.json", lambda route: route.fulfill(json=told))
    reference(page)
    for name in operations(told):
        text = page.locator(f"#{name}").get_by_role("region", name="Command").inner_text()
        assert ("$TOKEN" in text) == ("/api/" in text)


def run(command: str) -> int:
    """Do what curl would, and return the status."""
    program, *words = shlex.split(command)
    assert program == "curl"
    method, headers, body, url = "GET", {}, None, ""
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "--data-binary":
                assert words.pop(0) == "@overrides.yaml"
                body = b"toolsets: {}\n"
            case "-N":
                pass
            case word:
                url = word
    if method == "POST" and body is None:
        body = b""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_command_can_be_copied(page: Page, server: Real) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.clock.install()
    reference(page)
    stop_the_clock(page)
    page.get_by_role("button", name="Copy listServices").click()
    expect(page.locator("#listServices .copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"curl \\\n  '{server.base_url}/api/v1/services'"


def test_the_page_leads_to_the_reference_and_back(page: Page, server: Real, errors: list[str]) -> None:
    page.goto("/")
    page.get_by_role("link", name="API reference").click()
    expect(page.locator("h1")).to_have_text("API reference")
    page.get_by_role("link", name="Back to the page").click()
    expect(page.locator("#headline")).to_contain_text("in the toolset")
    page.goto("/docs#getHistory")
    expect(page.locator("#getHistory h3")).to_be_in_viewport()  # a link to an operation
    assert errors == []


def test_with_the_keyboard_and_on_a_telephone(page: Page, server: Real) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    reference(page)
    assert not wider(page)
    links = page.get_by_role("navigation", name="Operations").get_by_role("link")
    expect(links.first).to_be_hidden()  # folded, so that the text comes first
    page.locator("#index summary").focus()
    page.keyboard.press("Enter")
    expect(links.first).to_be_visible()
    page.keyboard.press("Tab")
    expect(links.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#getToolset h3")).to_be_in_viewport()
    expect(links.first).to_be_hidden()
    for summary in page.locator("main summary").all():
        summary.click()
    assert not wider(page)


def test_when_the_document_cannot_be_had_it_says_so(page: Page, server: Real) -> None:
    page.route("**/openapi.json", lambda route: route.fulfill(status=503))
    page.goto("/docs")
    expect(page.locator("#state")).to_contain_text("cannot be had: the server answers 503")


def test_axe_finds_nothing(browser: Browser, server: Real) -> None:
    context = browser.new_context(base_url=server.base_url, bypass_csp=True)
    page = reference(context.new_page())
    page.locator("main summary").first.click()
    found = violations(page)
    context.close()
    assert found == []
