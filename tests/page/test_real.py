"""The page of the real program, which works on the cluster of the demo. What only a fake can do is in test_page.py."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from dynamic_toolset.sandbox.scenario import OVERRIDES
from tests.page.looking import opened, query, row, stop_the_clock, tame, violations, wider
from tests.page.real import TOKEN, TOOLSET, Real, service
from tests.waiting import eventually


@pytest.fixture
def server(real: Real) -> Real:
    return real


# --- What it shows ---------------------------------------------------------------------------------------------------


def test_the_first_view_says_what_matters(page: Page, server: Real, errors: list[str]) -> None:
    opened(page)
    expect(page.locator("#headline")).to_have_text("5 services in the toolset")
    expect(page.locator("#published")).to_have_text("The cluster holds exactly what is decided")
    for fact in ("Candidates7", "Unhealthy2", "Services known10", "This instanceLeader"):
        expect(page.locator("#facts")).to_contain_text(fact)
    expect(page.locator("#target")).to_have_text("holmes/kubernaut-toolset-config")
    expect(page.locator("#count")).to_have_text("8 Services")  # all but the two that are ignored
    expect(row(page, "monitoring/grafana").locator("td, th")).to_have_text(
        [
            "monitoring",
            "grafana",
            "grafana",
            re.compile(r"http://grafana\.monitoring\.svc\.cluster\.local:\d+"),
            "healthy",
            "yes",
            "answers as Grafana",
        ]
    )
    expect(row(page, "playground/prometheus").locator(".c-why")).to_contain_text("not as Prometheus")
    expect(row(page, "monitoring/prometheus-headless").locator(".c-why")).to_have_text(re.compile("^duplicate: "))
    expect(page.locator("#table caption")).to_have_count(1)
    expect(page.locator(".foot")).to_contain_text(re.compile(r"Dynamic Toolset \d+\.\d+"))
    assert errors == []


def test_the_detail_says_everything_that_is_known(page: Page, server: Real, errors: list[str]) -> None:
    page.clock.install()
    opened(page)
    row(page, "monitoring/prometheus").click()
    detail = page.get_by_role("dialog", name="monitoring / prometheus")
    for text in (
        "label app.kubernetes.io/name=prometheus",
        "chosen, a port of Prometheus (9090)",
        "answers as Prometheus",
        "In toolset prometheus/metrics.",
        "prometheus_url: http://prometheus.monitoring.svc.cluster.local",
        "never for raw counters",
    ):
        expect(detail).to_contain_text(text)
    expect(detail.locator(".strip .healthy").first).to_be_visible()
    # The checks go on, though nothing comes of them that would be an event.
    made = detail.locator(".strip li").last.get_attribute("title")

    def later() -> bool:
        page.clock.fast_forward(15_000)  # to when it asks again: the next check may not have been made by then
        return detail.locator(".strip li").last.get_attribute("title") != made

    eventually(later, every=0.5)
    page.keyboard.press("Escape")
    row(page, "tracing/jaeger-query").click()
    expect(page.get_by_role("dialog")).to_contain_text(re.compile(r"The last (one|\d+) failed"))
    expect(page.get_by_role("dialog")).to_contain_text("Nothing of this Service.")
    assert errors == []


def test_the_file_the_overrides_and_the_history(page: Page, server: Real, errors: list[str]) -> None:
    opened(page)
    page.get_by_role("link", name="Toolset file").click()
    expect(page.locator("#file")).to_contain_text('"prometheus_url": "http://prometheus.monitoring')
    expect(page.locator("#file .about").first).to_contain_text("overrides.yaml was changed")
    expect(page.locator("#file .diff .added", has_text="never for raw counters")).to_have_count(1)
    expect(page.locator("#file .diff .removed", has_text='"enabled": true')).to_have_count(1)
    server.override(
        f"{OVERRIDES}  grafana/loki: {{config: {{instances: [{{name: gone.loki, timeout_seconds: 30}}]}}}}\n"
    )
    page.get_by_role("link", name="Overrides").click()
    effects = page.locator("#overrides .effects li")
    expect(effects).to_have_count(3)
    expect(effects.filter(has_text="llm_instructions")).to_contain_text("changes")
    expect(effects.filter(has_text="gone.loki")).to_contain_text("waits")
    expect(page.locator("#overrides")).to_contain_text("kubectl -n holmes edit configmap kubernaut-toolset-config")
    server.override(OVERRIDES)
    expect(effects).to_have_count(2)
    page.get_by_role("link", name="History").click()
    entries = page.locator("#history .entries li")
    expect(entries.filter(has_text="Gone").filter(has_text="platform/runbooks")).to_contain_text("was deleted")
    expect(entries.filter(has_text="ConfigMap holmes/kubernaut-toolset-config").first).to_contain_text("Published")
    entries.filter(has_text="Service platform/runbooks was deleted").locator("summary").first.click()
    expect(page.locator("#history .diff:visible .removed", has_text="mcp-platform-runbooks")).to_have_count(1)
    entries.filter(has_text="Not listed").filter(has_text="HTTP 503").get_by_role(
        "link", name="tracing/jaeger-query"
    ).first.click()
    expect(page.get_by_role("dialog")).to_contain_text("HTTP 503")
    assert errors == []


# --- Live ------------------------------------------------------------------------------------------------------------


def test_a_change_appears_without_a_reload(page: Page, server: Real, errors: list[str]) -> None:
    opened(page)
    tempo = server.backend("tempo")
    server.put(service("tracing", "tempo", "tempo", tempo.port, port_name="http-metrics"))
    expect(row(page, "tracing/tempo")).to_contain_text("answers as Tempo")
    expect(page.locator("#headline")).to_have_text("6 services in the toolset")
    tempo.mode = "fail"
    expect(row(page, "tracing/tempo")).to_contain_text("HTTP 503")
    expect(row(page, "tracing/tempo").locator(".c-listed")).to_have_text("no")
    expect(page.locator("#headline")).to_have_text("5 services in the toolset")
    server.delete("tracing", "tempo")
    expect(row(page, "tracing/tempo")).to_have_count(0)
    page.get_by_role("link", name="History").click()
    expect(page.locator("#history .entries li").first).to_contain_text("tracing/tempo")
    assert errors == []


def test_look_again(page: Page, server: Real, errors: list[str]) -> None:
    page.clock.install()
    opened(page)
    stop_the_clock(page)
    with page.expect_response("**/api/v1/discover") as answer:
        page.get_by_role("button", name="Look again").click()
    assert answer.value.status == 202
    expect(page.locator("#discover")).to_have_text("Looking")
    assert errors == []


# --- Search, filters, and the address --------------------------------------------------------------------------------


def test_search_and_filters_are_in_the_address(page: Page, server: Real) -> None:
    opened(page)
    page.locator("#search").fill("prom monitoring")
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(page.locator("#count")).to_have_text("2 Services")
    page.locator("#decision").select_option("candidate")
    expect(page.locator("#count")).to_have_text("1 Service")
    eventually(lambda: query(page) == "search=prom%20monitoring&decision=candidate")
    # Somebody else opens the link.
    opened(page, f"?{query(page)}")
    expect(page.locator("#search")).to_have_value("prom monitoring")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.locator("#search").fill("")
    page.locator("#decision").select_option("ignored")
    expect(page.locator("#count")).to_have_text("2 Services")
    expect(row(page, "shop/grafana").locator(".c-why")).to_contain_text("opted out")
    page.locator("#decision").select_option("")
    eventually(lambda: query(page) == "")
    expect(page.locator("#count")).to_have_text("8 Services")


# --- What tenants write ----------------------------------------------------------------------------------------------

_MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
_BIDI = "\u202egnp.exe\u2066\u200f\u0007"
_LONG = "n" * 63  # a name has no more
_PATH = "/" + "x" * 3000

# All of it is legal for the API server: of annotations it knows only that they are text.
HOSTILE = {
    "markup": {TOOLSET: _MARKUP},
    "bidi": {TOOLSET: "enabled", f"{TOOLSET}-type": _BIDI},
    "long": {TOOLSET: "x" * 100_000},
    _LONG: {TOOLSET: "enabled", f"{TOOLSET}-type": "a" * 60, f"{TOOLSET}-path": _PATH},
    "script": {TOOLSET: "enabled", f"{TOOLSET}-type": "x", f"{TOOLSET}-endpoint": "javascript:alert(3)"},
    "constructor": {TOOLSET: "enabled", f"{TOOLSET}-type": "__proto__", f"{TOOLSET}-name": '"><svg onload=alert(4)>'},
    "encoded": {TOOLSET: "enabled", f"{TOOLSET}-type": "x", f"{TOOLSET}-health-path": "/%2e%2e/?<b>#\u202e"},
}


def test_what_a_tenant_writes_runs_nothing_and_breaks_nothing(page: Page, server: Real, errors: list[str]) -> None:
    opened(page)
    backend = server.backend("custom")
    try:
        server.put_many(
            [service("shop", name, "", backend.port, annotations=values) for name, values in HOSTILE.items()]
        )
        server.override(f"toolsets: {{'{_MARKUP}': {{enabled: false}}}}\nmcp_servers: {json.dumps(_BIDI)}\n")
        expect(page.locator("#count")).to_have_text(f"{8 + len(HOSTILE)} Services")
        tame(page)
        # The program writes a ? for what a prompt should not hold; the rest is text.
        expect(row(page, "shop/markup")).to_contain_text("img src=x onerror=alert(1)")
        expect(page.locator("#rows")).not_to_contain_text(re.compile("[\u202a-\u202e\u2066-\u2069\u200f]"))
        for name in HOSTILE:
            row(page, f"shop/{name}").get_by_role("link").click()
            expect(page.get_by_role("dialog", name=f"shop / {name}").locator(".verdict")).to_be_visible()
            tame(page)
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
        page.set_viewport_size({"width": 360, "height": 740})
        for view in ("Toolset file", "Overrides", "History", "Services"):
            page.get_by_role("link", name=view, exact=True).click()
            tame(page)
    finally:
        server.delete("shop", *HOSTILE)
        server.override(OVERRIDES)
    expect(page.locator("#problems > *")).to_have_count(0)
    assert errors == []


# --- Many Services ---------------------------------------------------------------------------------------------------


@pytest.fixture
def thousand(server: Real) -> Iterator[None]:
    """A thousand Services more, each with an annotation that is wrong: shown, but not asked for their health."""
    names = [f"backend-{number:04}" for number in range(1000)]
    wrong = {TOOLSET: "yes"}
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "crowd"}})
    server.put_many([service("crowd", name, "grafana", 3000, annotations=wrong) for name in names])
    eventually(lambda: server.get("api/v1/statistics")["services"]["known"] == 1010, within=30, every=0.1)
    yield
    server.delete("crowd", *names)


def test_a_thousand_services_stay_quick(page: Page, server: Real, thousand: None, errors: list[str]) -> None:
    asked: Counter[str] = Counter()

    def note(request: Request) -> None:
        asked[urlsplit(request.url).path.rpartition("/")[2]] += 1

    page.on("request", note)
    began = time.monotonic()
    opened(page)
    expect(page.locator("#count")).to_have_text("1,008 Services")
    assert asked["services"] <= 3 * asked["statistics"]  # in pages of 500
    # At the start, and with the stream; and once a second at most if anything happens meanwhile.
    assert asked["statistics"] <= 2 + (time.monotonic() - began)
    spent = page.evaluate(
        """() => {
          const search = document.getElementById("search");
          const spent = (text) => {
            const start = performance.now();
            search.value = text;
            search.dispatchEvent(new Event("input", {bubbles: true}));
            document.body.offsetHeight;  // with the layout
            return performance.now() - start;
          };
          const texts = ["backend-00", "backend-001", "crowd 07", "yes grafana", "loki", "1", ""];
          const rounds = [1, 2, 3].map(() => texts.map(spent));
          return texts.map((_, place) => Math.min(...rounds.map((round) => round[place])));  // others work here, too
        }"""
    )
    assert sorted(spent)[len(spent) // 2] < 50, spent
    # All of them can be reached.
    page.locator("#search").fill("backend-0999")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.locator("#search").fill("")
    end = "scrollTo(0, document.body.scrollHeight), document.querySelectorAll('#rows tr').length"
    eventually(lambda: page.evaluate(end) == 1008, within=40, every=0.1)
    expect(page.locator("#more")).to_be_hidden()
    assert errors == []


# --- When things go wrong --------------------------------------------------------------------------------------------


def test_a_lost_connection_is_shown_and_returns_with_fresh_data(page: Page, server: Real) -> None:
    opened(page)
    expect(row(page, "tracing/jaeger-query")).to_contain_text("unhealthy")
    server.kill()
    expect(page.locator("#connection")).to_have_text("Connection lost")
    expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
    expect(row(page, "monitoring/grafana")).to_be_visible()  # what was known stays to be read
    server.heal("tracing", "jaeger-query", healthy=True)
    server.start()
    expect(page.locator("#connection")).to_have_text("Live", timeout=40_000)
    expect(row(page, "tracing/jaeger-query")).to_contain_text("answers as Jaeger", timeout=20_000)
    expect(page.locator("#facts")).to_contain_text("Leader", timeout=30_000)  # once the old lease has run out
    server.heal("tracing", "jaeger-query", healthy=False)  # and the new stream tells what happens now
    expect(row(page, "tracing/jaeger-query")).to_contain_text("HTTP 503")
    page.get_by_role("link", name="History").click()
    expect(page.locator("#history .entries li").first).to_contain_text("tracing/jaeger-query")


# --- The token -------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_and_kept_in_memory_only(
    page: Page, context: BrowserContext, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.clock.install()
    with Real(tmp_path_factory.mktemp("token"), auth="token") as server:
        server.allow("/dynamic-toolset/api/v1/*", "get")
        page.goto(f"{server.base_url}/?view=history")
        form = page.locator("#login")
        expect(form).to_contain_text("kubectl create token NAME --audience dynamic-toolset")
        expect(page.locator("#token")).to_be_focused()
        expect(page.locator("#token")).to_have_attribute("type", "password")
        expect(page.locator("#app")).to_be_hidden()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(form).to_contain_text("The token is not accepted: the token is not valid, or not for the audience")
        expect(page.locator("#token")).to_have_value("")
        page.locator("#token").fill(f" {TOKEN}\n")
        page.get_by_role("button", name="Show the page").click()
        expect(page.locator("#connection")).to_have_text("Live")  # the stream carries it, too
        expect(page.locator("#headline")).to_have_text("0 services in the toolset")
        expect(page.locator("#history")).to_be_visible()
        stop_the_clock(page)
        page.get_by_role("button", name="Look again").click()  # a POST, for which there is no rule
        expect(page.locator("#discover")).to_have_text("Not allowed")
        page.clock.resume()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert context.cookies() == []
        assert TOKEN not in page.url + page.content() + "".join(seen)
        # What the API refuses, the reference still shows: it holds nothing of a cluster.
        page.get_by_role("link", name="API reference").click()
        expect(page.locator("[data-operation]").first).to_be_visible()
        page.go_back()
        expect(form).to_be_visible()  # another page, another memory


# --- People ----------------------------------------------------------------------------------------------------------


def test_with_the_keyboard_only(page: Page, server: Real) -> None:
    opened(page)
    expect(row(page, "monitoring/grafana")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("monitoring")
    expect(page.locator("#rows tr")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    link = row(page, "monitoring/grafana").get_by_role("link")
    expect(link).to_be_focused()
    assert link.evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    detail = page.get_by_role("dialog", name="monitoring / grafana")
    expect(detail).to_contain_text("answers as Grafana")
    page.keyboard.press("Tab")
    expect(detail.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(link).to_be_focused()


def test_on_a_telephone_nothing_is_wider_than_the_screen(page: Page, server: Real) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for view in ("services", "file", "overrides", "history"):
        opened(page, f"?view={view}")
        expect(page.locator(f"#{view}")).to_be_visible()
        assert not wider(page), view
    for key in ("monitoring/alertmanager", "shop/orders"):
        opened(page, f"?service={key}")
        expect(page.locator("#detail .strip")).to_be_visible()
        assert not wider(page), key


def test_axe_finds_nothing_in_what_is_real(browser: Browser, server: Real) -> None:
    context = browser.new_context(base_url=server.base_url, bypass_csp=True)
    page = context.new_page()
    opened(page, "?service=monitoring/alertmanager")
    expect(page.locator("#detail .strip")).to_be_visible()
    found = violations(page)
    context.close()
    assert found == []
