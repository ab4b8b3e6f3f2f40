"""The page in a real browser, with a server that does what a real one does seldom, or never the same way twice.

What the server is told to do are scenarios of ``server``; see tests/page/fake.py.
"""

import re
import time

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.page import data
from tests.page.fake import FOLDER, Fake
from tests.page.looking import at_rest, opened, query, row, tame, violations, wider
from tests.waiting import eventually

# --- What it shows ---------------------------------------------------------------------------------------------------


def test_problems_are_banners_and_the_rest_of_the_page_stays(page: Page, server: Fake) -> None:
    server.complain("MassFailure", "6 of 8 services fail at once; nothing is taken out")
    server.change("monitoring/grafana", health="unhealthy", held=True)
    opened(page)
    expect(page.locator("#problems")).to_contain_text("6 of 8 services fail at once")
    expect(page.locator("#published")).to_have_text("The cluster does not hold what is decided")
    expect(row(page, "monitoring/grafana").locator(".c-listed")).to_have_text("yes, held")
    server.recover()
    expect(page.locator("#problems > *")).to_have_count(0)


def test_a_standby_says_so(page: Page, server: Fake) -> None:
    opened(page)
    server.stand_by()
    expect(page.locator("#facts")).to_contain_text("Standby")


def test_the_detail_says_everything_that_is_known(page: Page, server: Fake, errors: list[str]) -> None:
    opened(page)
    row(page, "monitoring/prometheus").click()
    detail = page.get_by_role("dialog", name="monitoring / prometheus")
    for text in (
        "http://prometheus.monitoring.svc.cluster.local:9090",
        "label app.kubernetes.io/name=prometheus",
        "the port of a sidecar, not of the product",
        "no answer within 5 s",
        "prometheus_url: http://prometheus.monitoring.svc.cluster.local:9090",
        "never for raw counters",
    ):
        expect(detail).to_contain_text(text)
    expect(detail.locator(".strip li")).to_have_count(20)
    expect(detail.locator(".strip")).to_have_attribute("aria-label", re.compile("19 healthy, 1 not"))
    # Shape, and not only colour, tells the one that failed.
    tall, short = (detail.locator(f".strip .{health}").first.bounding_box() for health in ("healthy", "unhealthy"))
    assert tall
    assert short
    assert short["height"] < tall["height"] / 2
    expect(detail.locator(".small").first.locator("tbody tr")).to_have_count(3)  # equal ones are together
    assert errors == []


def test_without_overrides_it_says_how_to_make_some(page: Page, server: Fake) -> None:
    server.override(None)
    opened(page, "?view=overrides")
    expect(page.locator("#overrides")).to_contain_text("Nobody has changed anything")


# --- Live ------------------------------------------------------------------------------------------------------------


def test_an_open_detail_and_the_history_are_live_too(page: Page, server: Fake) -> None:
    opened(page, "?view=history&service=monitoring/grafana")
    detail = page.get_by_role("dialog")
    expect(detail).to_contain_text("answers as Grafana")
    server.change("monitoring/grafana", health="unhealthy", listed=False, reason="HTTP 502")
    expect(detail).to_contain_text("HTTP 502")
    expect(page.locator("#history .entries li").first).to_contain_text("HTTP 502")
    server.remove("monitoring/grafana")
    expect(detail).to_contain_text("There is no such Service, or not any more.")


def test_a_history_that_comes_late_takes_back_no_change(page: Page, server: Fake) -> None:
    """It was asked for before the change, and is overtaken by the stream."""
    held: list[Route] = []
    page.route("**/api/v1/history", lambda route: held.append(route) if asked else (asked.append(1), route.continue_()))
    asked: list[int] = []
    opened(page, "?view=history")
    eventually(lambda: page.evaluate("true") and held)  # the one with the stream
    old = page.request.get("/api/v1/history").json()
    entries = page.locator("#history .entries li")
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(entries.first).to_contain_text("HTTP 502")
    with page.expect_response("**/api/v1/history") as answer:
        held[0].fulfill(json=old)
    answer.value.finished()
    server.change("monitoring/grafana", reason="HTTP 503")
    expect(entries.nth(0)).to_contain_text("HTTP 503")
    expect(entries.nth(1)).to_contain_text("HTTP 502")


def test_a_storm_of_changes_is_no_storm_of_requests(page: Page, server: Fake) -> None:
    opened(page)
    expect(page.locator("#count")).to_have_text("15 Services")
    before, began = len(server.requests), time.monotonic()
    for number in range(200):
        server.change("monitoring/grafana", reason=f"change {number}")
    expect(row(page, "monitoring/grafana")).to_contain_text("change 199")
    # Once a second it asks for three things, however long the machine takes.
    assert len(server.requests) - before <= 10 + 3 * (time.monotonic() - began)


def test_the_focus_stays_when_the_row_changes(page: Page, server: Fake) -> None:
    opened(page)
    row(page, "monitoring/grafana").get_by_role("link").focus()
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(row(page, "monitoring/grafana")).to_contain_text("HTTP 502")
    expect(row(page, "monitoring/grafana").get_by_role("link")).to_be_focused()


def test_the_focus_stays_where_it_was_in_a_detail_that_changes(page: Page, server: Fake) -> None:
    opened(page, "?service=monitoring/grafana")
    detail = page.get_by_role("dialog")
    read = detail.get_by_role("region", name="What the agent reads of this Service")
    read.focus()
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(detail).to_contain_text("HTTP 502")
    expect(read).to_be_focused()
    detail.get_by_role("button", name="Close").focus()
    server.change("monitoring/grafana", reason="HTTP 503")
    expect(detail).to_contain_text("HTTP 503")
    expect(detail.get_by_role("button", name="Close")).to_be_focused()


def test_what_was_opened_in_the_history_stays_so_when_something_changes(page: Page, server: Fake) -> None:
    opened(page, "?view=history")
    entries = page.locator("#history .entries li")
    opener = page.locator("#history summary").first
    opener.click()
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(entries.first).to_contain_text("HTTP 502")
    expect(opener).to_be_focused()
    expect(page.locator("#history details").first).to_have_attribute("open", "")


# --- Search, filters, and the address --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("type=prometheus", 3),
        ("namespace=shop", 2),
        ("health=unhealthy", 3),
        ("health=unknown", 1),
        ("decision=ignored", 2),
        ("decision=all", 17),
        ("decision=rejected", 1),
        ("type=prometheus&health=healthy", 1),
        ("search=HTTP%20503", 1),
        ("search=nothing-of-the-kind", 0),
    ],
)
def test_each_filter(page: Page, server: Fake, filters: str, count: int) -> None:
    opened(page, f"?{filters}")
    expect(page.locator("#count")).to_have_text(f"{count} Service{'' if count == 1 else 's'}")
    expect(page.locator("#rows tr")).to_have_count(count)
    expect(page.locator("#nothing")).to_be_visible(visible=count == 0)


def test_back_and_forward(page: Page, server: Fake) -> None:
    opened(page)
    page.locator("#health").select_option("unhealthy")
    row(page, "tracing/jaeger-query").get_by_role("link").click()
    expect(page.get_by_role("dialog")).to_contain_text("HTTP 503")
    assert query(page) == "health=unhealthy&service=tracing/jaeger-query"
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("3 Services")
    page.go_forward()
    expect(page.get_by_role("dialog")).to_contain_text("HTTP 503")
    page.get_by_role("button", name="Close").click()
    eventually(lambda: query(page) == "health=unhealthy")
    page.get_by_role("link", name="History").click()
    assert query(page) == "view=history&health=unhealthy"
    page.go_back()
    expect(page.locator("#services")).to_be_visible()


def test_what_was_opened_again_stays_open_though_the_browser_tells_late_that_it_was_closed(
    page: Page, server: Fake
) -> None:
    opened(page, "?service=tracing/jaeger-query")
    detail = page.get_by_role("dialog")
    expect(detail).to_contain_text("HTTP 503")
    detail.evaluate("dialog => dialog.dispatchEvent(new Event('close'))")
    assert query(page) == "service=tracing/jaeger-query"
    expect(detail).to_be_visible()


def test_a_service_of_another_cluster_is_told_apart_everywhere(page: Page, server: Fake) -> None:
    server.change("eu:monitoring/grafana", reason="answers from elsewhere")
    opened(page)
    ours, theirs = (page.locator(f'tr[data-key="{key}"]') for key in ("monitoring/grafana", "eu:monitoring/grafana"))
    expect(ours).to_have_count(1)
    expect(theirs.locator(".c-namespace")).to_have_text("eu: monitoring")
    theirs.locator("a").click()
    eventually(lambda: query(page) == "service=eu:monitoring/grafana")
    expect(page.locator("#detail-title")).to_have_text("eu: monitoring / grafana")
    expect(page.get_by_role("dialog")).to_contain_text("answers from elsewhere")
    assert any(path.endswith("/api/v1/services/monitoring/grafana?cluster=eu") for path in server.requests)
    opened(page, "?search=eu:monitoring")
    expect(page.locator("tr[data-key]")).to_have_count(1)
    opened(page, "?view=history")
    expect(page.get_by_role("link", name="eu:monitoring/grafana").first).to_be_visible()


def test_a_shared_link_to_a_service(page: Page, server: Fake) -> None:
    opened(page, "?service=search/opensearch")
    expect(page.get_by_role("dialog")).to_contain_text("not checked yet")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    eventually(lambda: query(page) == "")


@pytest.mark.parametrize("key", ["../statistics", "../events", "monitoring/..", "nobody"])
def test_a_link_to_what_is_no_service_says_so(page: Page, server: Fake, key: str) -> None:
    """Also where the path that is made of it would lead to something else of the API, which is no Service either."""
    opened(page, f"?service={key}")
    expect(page.get_by_role("dialog")).to_contain_text("There is no such Service")


# --- What tenants write ----------------------------------------------------------------------------------------------

_MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
_BIDI = "\u202egnp.exe\u2066\u200f\u0000\u0007"
_LONG = "x" * 5000
HOSTILE = [
    data.service("default", _MARKUP, "prometheus", reason=_MARKUP),
    data.service(_BIDI, _BIDI, "prometheus", reason=_BIDI),
    data.service(_LONG, _LONG, "prometheus", reason=_LONG),
    data.service("default", "script", "prometheus") | {"endpoint": "javascript:alert(3)", "type": "</td></table>"},
    data.service("../..", "%2e%2e/?x=1#", "prometheus") | {"health": 'healthy" onclick="alert(4)'},
    data.service("__proto__", "constructor", "__proto__", reason="${alert(5)} {{7*7}} \\u003cscript>"),
]


def test_what_a_tenant_writes_runs_nothing_and_breaks_nothing(page: Page, server: Fake, errors: list[str]) -> None:
    opened(page)
    for item in HOSTILE:
        evil = item["reason"]
        server.add(
            item,
            evidence=[evil],
            toolsets=[evil],
            ports=[{"port": 80, "name": evil, "chosen": True, "note": evil}],
            agent={evil: {evil: [evil, {evil: evil}]}},
        )
        server.tell(event="published", message=evil, cause=evil, diff=f"--- {evil}\n+{evil}\n-{evil}\n")
        server.complain(evil, evil)
    server.override(_MARKUP, ({"toolset": _MARKUP, "section": "toolsets", "kind": _MARKUP, "message": _BIDI},))
    expect(page.locator("#count")).to_have_text(f"{15 + len(HOSTILE)} Services")
    expect(page.locator("#problems")).to_contain_text("<img src=x")
    tame(page)
    # Direction marks are shown, and reorder nothing.
    expect(page.locator("#rows")).to_contain_text("\\u202egnp.exe\\u2066\\u200f\\u0000\\u0007")
    for number in range(len(HOSTILE)):
        names = page.locator("#rows tr").filter(has_text=re.compile(r"default|\\u202e|x{99}|\.\./|__proto__"))
        expect(names).to_have_count(len(HOSTILE))
        names.nth(number).get_by_role("link").click()
        expect(page.locator("#detail h2")).to_be_visible()
        expect(page.locator("#detail .empty", has_text="Looking it up")).to_have_count(0)
        tame(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    for view in ("Toolset file", "Overrides", "History"):
        page.get_by_role("link", name=view).click()
        tame(page)
    # The server has no Service of such a name: no cluster takes it for one, and a line of HTTP ends somewhere.
    assert [error for error in errors if "Failed to load resource" not in error] == []


def test_no_script_turns_text_into_markup() -> None:
    """The policy would stop it; this says so before a browser does."""
    for file in FOLDER.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Storage|\.cookie", file.read_text()
        ), file
    for file in FOLDER.glob("*.html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", file.read_text()), file


# --- When things go wrong --------------------------------------------------------------------------------------------


def test_connections_that_are_cut_are_made_anew_where_they_were(page: Page, server: Fake) -> None:
    opened(page)
    server.change("monitoring/grafana", reason="first")
    expect(row(page, "monitoring/grafana")).to_contain_text("first")
    with page.expect_request("**/api/v1/events") as asked:
        server.drop_connections()
    assert re.fullmatch(r"a-\d+", asked.value.headers["last-event-id"])
    expect(page.locator("#connection")).to_have_text("Live")


@pytest.mark.parametrize("how", ["reset", "new server"])
def test_after_a_reset_or_with_another_server_everything_is_fetched_again(page: Page, server: Fake, how: str) -> None:
    opened(page)
    expect(page.locator("#count")).to_have_text("15 Services")
    eventually(lambda: sum("history" in path for path in server.requests) == 2)  # at the start, and with the stream
    before = len(server.requests)
    if how == "reset":
        server.reset()
    else:
        server.go_away()
        server.come_back(new=True)
        expect(page.locator("#connection")).to_have_text("Live")
    wanted = ("statistics", "toolset", "services?", "history")
    eventually(lambda: all(any(f"/api/v1/{one}" in path for path in server.requests[before:]) for one in wanted))


def test_who_is_not_allowed_reads_so(page: Page, server: Fake) -> None:
    server.refuse("/api/v1/history", 403)
    server.refuse("/api/v1/events", 403)
    page.goto("/?view=history")
    expect(page.locator("#history")).to_contain_text("You are known, but not allowed to see this")
    expect(page.locator("#connection")).to_contain_text("not allowed")
    page.get_by_role("link", name="Services").click()
    expect(row(page, "monitoring/grafana")).to_be_visible()


def test_when_it_is_told_to_wait_it_waits(page: Page, server: Fake) -> None:
    page.clock.install()
    server.refuse("/api/v1/services", 429, retry_after=30)
    page.goto("/")
    expect(page.locator("#services-notice")).to_contain_text("waits 30 s")
    expect(page.locator("#nothing")).to_be_hidden()
    asked = [path for path in server.requests if "/api/v1/services" in path]
    assert len(asked) == 1
    server.refuse("/api/v1/services", 200)
    page.clock.fast_forward(30_000)
    expect(row(page, "monitoring/grafana")).to_be_visible()
    expect(page.locator("#services-notice")).to_be_hidden()


def test_a_server_in_trouble_is_named_and_asked_again(page: Page, server: Fake) -> None:
    server.refuse("/api/v1/", 503)
    page.goto("/")
    expect(page.locator("#problems")).to_contain_text("The server answers 503")
    server.refuse("/api/v1/", 200)
    expect(row(page, "monitoring/grafana")).to_be_visible()
    expect(page.locator("#problems > *")).to_have_count(0)


# --- The token -------------------------------------------------------------------------------------------------------


def test_a_token_that_expires_is_asked_for_again(page: Page, server: Fake) -> None:
    server.require_token("old")
    page.goto("/")
    page.locator("#token").fill("old")
    page.keyboard.press("Enter")
    expect(page.locator("#connection")).to_have_text("Live")
    server.require_token("new")
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(page.locator("#login")).to_contain_text("The token is not accepted")
    asked = at_rest(server.requests)  # what was asked together was refused together
    page.locator("#token").fill("new")
    assert len(server.requests) == asked  # nothing is tried while it waits for a person
    page.keyboard.press("Enter")
    expect(row(page, "monitoring/grafana")).to_contain_text("HTTP 502")
    expect(page.locator("#connection")).to_have_text("Live")


def test_who_may_see_less_is_shown_nothing_of_what_another_one_saw(page: Page, server: Fake) -> None:
    server.require_token("ann")
    page.goto("/")
    page.locator("#token").fill("ann")
    page.keyboard.press("Enter")
    expect(row(page, "monitoring/grafana")).to_be_visible()
    server.require_token("bob")
    server.refuse("/api/v1/services", 403)
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(page.locator("#login")).to_be_visible()
    page.locator("#token").fill("bob")
    page.keyboard.press("Enter")
    expect(page.locator("#services-notice")).to_contain_text("not allowed to see this")
    expect(page.locator("#rows tr")).to_have_count(0)
    expect(page.locator("#nothing")).to_be_hidden()  # it is not that there were none
    expect(page.locator("#count")).to_be_empty()


def test_a_refusal_that_comes_late_says_nothing_of_the_token_given_since(page: Page, server: Fake) -> None:
    server.require_token("new")
    held: list[Route] = []
    page.route("**/api/v1/history", lambda route: route.continue_() if held else held.append(route))
    page.goto("/")
    page.locator("#token").fill("new")
    eventually(lambda: page.evaluate("true") and held)  # Playwright hears of it only while it is used
    page.keyboard.press("Enter")
    held[0].fulfill(status=401, json={"detail": "a bearer token is needed"})
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#login")).to_be_hidden()


# --- People ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 820, 900, 1081])
def test_nothing_is_wider_than_the_screen(page: Page, server: Fake, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    server.complain("MassFailure", "6 of 8 services fail at once; nothing is taken out")
    for view in ("services", "file", "overrides", "history"):
        opened(page, f"?view={view}")
        expect(page.locator(f"#{view}")).to_be_visible()
        assert not wider(page), view
    opened(page, "?service=monitoring/prometheus")
    expect(page.locator("#detail .strip")).to_be_visible()
    assert not wider(page)


def test_on_a_telephone_a_row_is_a_card(page: Page, server: Fake) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page)
    card = row(page, "monitoring/grafana")
    boxes = [card.locator(f".c-{name}").bounding_box() for name in ("name", "endpoint", "why")]
    tops = [box["y"] for box in boxes if box]
    assert len(tops) == 3
    assert tops == sorted(set(tops))
    expect(page.get_by_role("row", name="grafana").first).to_be_visible()  # it is still a table for who hears it
    card.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def ground(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_and_light(page: Page, server: Fake) -> None:
    page.emulate_media(color_scheme="light")
    opened(page)
    light = ground(page)
    page.emulate_media(color_scheme="dark")
    dark = ground(page)
    assert light != dark
    button = page.get_by_role("button", name="Dark colours")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    assert ground(page) == light
    expect(button).to_have_attribute("aria-pressed", "false")
    page.reload()
    assert ground(page) == dark  # what a person chose is kept nowhere


def test_who_wants_no_motion_gets_none(page: Page, server: Fake) -> None:
    page.emulate_media(reduced_motion="reduce")
    opened(page)
    server.change("monitoring/grafana", reason="HTTP 502")
    expect(row(page, "monitoring/grafana")).to_contain_text("HTTP 502")
    assert row(page, "monitoring/grafana").evaluate("(one) => one.getAnimations().length") == 0


@pytest.mark.parametrize(
    "place", ["", "?view=file", "?view=overrides", "?view=history", "?service=tracing/tempo", "token"]
)
def test_axe_finds_nothing(browser: Browser, server: Fake, place: str) -> None:
    server.complain("MassFailure", "6 of 8 services fail at once; nothing is taken out")
    if place == "token":
        server.require_token("sesame")
    # The policy would not let axe in; everything else here runs under it.
    context = browser.new_context(base_url=server.base_url, bypass_csp=True, reduced_motion="reduce")
    page = context.new_page()
    if place == "token":
        page.goto("/")
        expect(page.locator("#login")).to_be_visible()
    else:
        opened(page, place)
        expect(page.locator("#rows tr")).to_have_count(15)
    if "service=" in place:
        expect(page.locator("#detail .strip")).to_be_visible()
    found = violations(page)
    context.close()
    assert found == []
