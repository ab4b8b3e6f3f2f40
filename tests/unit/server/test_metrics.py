"""The metrics: each has something that makes it move, all are bounded, documented, and in a form that is right."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from dynamic_toolset.controller import supervisor
from dynamic_toolset.controller.statistics import FullLooks, Publications, Statistics, Watch
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.health.checker import Statistics as Checks
from dynamic_toolset.kube.election import Statistics as Election
from dynamic_toolset.kube.objects import ObjectMeta, Service, ServicePort, ServiceSpec
from dynamic_toolset.model import (
    UNCHECKED,
    Candidate,
    Decision,
    DiscoveredService,
    Health,
    Outcome,
    Pass,
    Problem,
    Rejection,
    Report,
    ServiceKey,
    Verdict,
)
from dynamic_toolset.server.exposition import Exposition, accepts_openmetrics, scraped
from dynamic_toolset.server.metrics import MAX_ROUTES, UNKNOWN, Histogram, Metrics
from dynamic_toolset.server.problems import Refusal
from dynamic_toolset.server.stream import QUEUE
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import Settings
from tests.cluster.programs import system_program
from tests.documentation import DOCS, table
from tests.unit.health.candidates import candidate

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
FOREIGN = ("process_", "python_")
"""What the client library tells of every process."""

HEALTHY = Health(Verdict.HEALTHY, "answers", seconds=0.02)
UNHEALTHY = Health(Verdict.UNHEALTHY, "HTTP 503", failures=1, seconds=0.02)
EMPTY = Report({}, (), (), (), published=True)

WATCH = Watch(True, 5, 0, 1, 1, 7, 3, 0, None, 1.5, 20.0)
START = Statistics(
    leads=False,
    holder=None,
    passes=1,
    full_looks=FullLooks(1, 1000.0, 1300.0),
    watches={"Services": WATCH},
    checks=Checks(healthy=1, unhealthy=0, needs_credentials=0, probes=1, running=0, waiting=0),
    publications=Publications(writes=1, conflicts=0),
    election=Election(terms=0, renewals=0, failures=0, consecutive_failures=0, last_renewed=None),
)


def grafana(name: str = "grafana", **changes: Any) -> Candidate:
    return replace(candidate(name), **{"type": "grafana", "catalog_type": "grafana", **changes})


class World:
    """The metrics of a service of which everything can be set."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.metrics = self.telemetry.metrics
        self.statistics = START
        self.connections = {"api": 0, "metrics": 0}
        self.security_events = {"request_unauthenticated": 0}
        self.exposition = Exposition(
            self.metrics,
            self.telemetry.stream,
            statistics=lambda: self.statistics,
            connections=lambda: self.connections,
            security_events=lambda: self.security_events,
        )

    def value(self, name: str, labels: dict[str, str]) -> float | None:
        return self.exposition.registry.get_sample_value(f"dynamictoolset_{name}", labels)

    def families(self) -> Iterator[Metric]:
        return (one for one in self.exposition.registry.collect() if not one.name.startswith(FOREIGN))

    def text(self, accept: str = "") -> str:
        return self.exposition.render(accept)[1].decode()

    # --- What may happen

    def report(self, *found: DiscoveredService, **changes: Any) -> None:
        self.passed(report=replace(EMPTY, discovered=found, **changes))

    def passed(self, **changes: Any) -> None:
        done = Pass(self.metrics.report or EMPTY, at=1e9, seconds=0.003, outcome="unchanged")
        self.telemetry.passed(replace(done, **changes))

    def counts(self, **changes: Any) -> None:
        self.statistics = replace(self.statistics, **changes)

    def watch(self, **changes: Any) -> None:
        self.counts(watches={"Services": replace(self.statistics.watches["Services"], **changes)})

    def requested(self, status: int = 200, *, route: str = "/api/v1/services", method: str = "GET") -> None:
        self.metrics.requested(route, method, status, 0.02, "a1")

    def stream(self, *, drop: bool = False) -> None:
        chunks = self.telemetry.stream.read(None, lambda: None)
        with pytest.raises(StopIteration) as first:  # the first step of a generator that awaits nothing yet
            chunks.__anext__().send(None)
        assert b"event: hello" in first.value.value
        self.open = chunks  # one that is forgotten is closed
        if drop:
            asyncio.run(self._fill_queue())

    async def _fill_queue(self) -> None:
        for _ in range(QUEUE + 1):
            self.telemetry.stream.tell((), EMPTY)
            self.telemetry.stream.flush()


class Row(NamedTuple):
    """A sample, by its name without the prefix and its labels; what happens, and by how much it moves then."""

    name: str
    labels: dict[str, str]
    happens: Callable[[World], object]
    delta: float = 1

    @property
    def family(self) -> str:
        return re.sub("_(total|count|sum|bucket)$", "", self.name)


LISTED = DiscoveredService(grafana(), HEALTHY, listed=True)
NOT_LISTED = DiscoveredService(grafana(), UNHEALTHY, listed=False)
REFUSED = replace(UNHEALTHY, refused=True, seconds=0.0)
KEY = LISTED.candidate.key


def decided(outcome: Outcome, rejection: Rejection | None = None) -> dict[ServiceKey, Decision]:
    return {KEY: Decision(outcome, "because", rejection=rejection)}


TABLE = [
    Row("services_discovered_total", {"type": "grafana"}, lambda world: world.report(LISTED)),
    Row("services_discovered_total", {"type": "grafana"}, lambda world: (world.report(LISTED), world.report()), 1),
    Row("services_discovered_total", {"type": "grafana"}, lambda world: [world.report(*s) for s in ([LISTED], [])] * 2),
    *(
        Row(
            "service_health_checks_total",
            {"type": "grafana", "status": status},
            lambda world, health=health: world.telemetry.checked(grafana(), health),
        )
        for status, health in {
            "healthy": HEALTHY,
            "unhealthy": UNHEALTHY,
            "needs_credentials": replace(UNHEALTHY, needs_credentials=True),
            "refused": REFUSED,
        }.items()
    ),
    Row(
        "probe_duration_seconds_count",
        {"type": "grafana", "status": "healthy"},
        lambda world: world.telemetry.checked(grafana(), HEALTHY),
    ),
    Row(
        "probe_duration_seconds_sum",
        {"type": "grafana", "status": "unhealthy"},
        lambda world: world.telemetry.checked(grafana(), UNHEALTHY),
        0.02,
    ),
    Row(
        "probe_duration_seconds_count",
        {"type": "grafana", "status": "refused"},
        lambda world: world.telemetry.checked(grafana(), REFUSED),
        0,
    ),
    *(
        Row(
            "configmap_reconciliations_total",
            {"status": outcome},
            lambda world, outcome=outcome: world.passed(outcome=outcome),
        )
        for outcome in ("unchanged", "created", "updated", "withheld", "failed")
    ),
    Row("configmap_reconciliations_total", {"status": "standby"}, lambda world: world.passed(outcome="standby"), 0),
    Row("discovery_duration_seconds_count", {}, lambda world: world.passed()),
    Row("discovery_duration_seconds_sum", {}, lambda world: world.passed(), 0.003),
    Row("discovery_duration_seconds_count", {}, lambda world: world.passed(seconds=0.0, outcome="failed"), 0),
    Row("publication_latency_seconds_count", {}, lambda world: world.passed(latencies=(0.02, 70.0)), 2),
    Row("publication_latency_seconds_bucket", {"le": "0.025"}, lambda world: world.passed(latencies=(0.02, 70.0))),
    Row("publication_latency_seconds_bucket", {"le": "60.0"}, lambda world: world.passed(latencies=(0.02, 70.0))),
    Row("publication_latency_seconds_bucket", {"le": "+Inf"}, lambda world: world.passed(latencies=(0.02, 70.0)), 2),
    Row("services", {"type": "grafana", "health": "healthy"}, lambda world: world.report(LISTED)),
    Row("services", {"type": "grafana", "health": "unhealthy"}, lambda world: world.report(NOT_LISTED)),
    Row(
        "services",
        {"type": "grafana", "health": "unknown"},
        lambda world: world.report(replace(LISTED, health=UNCHECKED)),
    ),
    Row("services_listed", {"type": "grafana"}, lambda world: world.report(LISTED)),
    Row("services_listed", {"type": "grafana"}, lambda world: world.report(NOT_LISTED), 0),
    *(
        Row(
            "services_decided",
            {"decision": outcome.value},
            lambda world, outcome=outcome: world.report(decisions=decided(outcome)),
        )
        for outcome in Outcome
    ),
    *(
        Row(
            "services_refused",
            {"reason": rejection.value},
            lambda world, rejection=rejection: world.report(decisions=decided(Outcome.REJECTED, rejection)),
        )
        for rejection in Rejection
    ),
    Row(
        "services_refused",
        {"reason": "address"},
        lambda world: world.report(replace(NOT_LISTED, health=REFUSED)),
    ),
    Row("removals_held", {}, lambda world: world.report(LISTED, held=frozenset({KEY}))),
    Row("problems", {"reason": "MassFailure"}, lambda world: world.report(problems=(Problem("MassFailure", "So."),))),
    Row("overrides_invalid", {}, lambda world: world.report(problems=(Problem("OverridesInvalid", "So."),))),
    Row("overrides_invalid", {}, lambda world: world.report(problems=(Problem("OverrideWaiting", "So."),)), 0),
    Row("leader", {}, lambda world: world.counts(leads=True)),
    *(
        Row(
            f"lease_{name}_total",
            {},
            lambda world, name=name: world.counts(election=replace(START.election, **{name: 2})),
            2,
        )
        for name in ("terms", "renewals", "failures")
    ),
    Row("full_looks_total", {}, lambda world: world.counts(full_looks=FullLooks(2, 1000.0, 1300.0))),
    Row("configmap_writes_total", {}, lambda world: world.counts(publications=Publications(2, 0))),
    Row("configmap_conflicts_total", {}, lambda world: world.counts(publications=Publications(1, 1))),
    Row("probes_running", {}, lambda world: world.counts(checks=replace(START.checks, running=3)), 3),
    Row("probes_waiting", {}, lambda world: world.counts(checks=replace(START.checks, waiting=4)), 4),
    *(
        Row(
            f"watch_{name}",
            {"watch": "Services"},
            lambda world, field=field, new=new: world.watch(**{field: new}),
            delta,
        )
        for name, field, new, delta in (
            ("synced", "synced", False, -1),
            ("objects", "objects", 8, 3),
            ("objects_undecodable", "skipped", 1, 1),
            ("failures", "failures", 2, 2),
            ("last_heard_age_seconds", "since_heard", 3.5, 2),
            ("last_bookmark_age_seconds", "since_bookmark", 80.0, 60),
            ("lists_total", "lists", 2, 1),
            ("restarts_total", "watches", 3, 2),
            ("restarts_total", "watches", 0, 0),
            ("events_total", "events", 9, 2),
            ("bookmarks_total", "bookmarks", 4, 1),
        )
    ),
    Row(
        "http_requests_total",
        {"route": "/api/v1/services", "method": "GET", "code": "200"},
        lambda world: world.requested(),
    ),
    Row(
        "http_requests_total",
        {"route": UNKNOWN, "method": "other", "code": "404"},
        lambda world: world.requested(404, route=UNKNOWN, method="BREW"),
    ),
    Row(
        "http_request_duration_seconds_count",
        {"route": "/api/v1/services", "method": "GET"},
        lambda world: world.requested(),
    ),
    Row(
        "http_request_duration_seconds_count",
        {"route": "/api/v1/events", "method": "GET"},
        lambda world: world.requested(route="/api/v1/events"),
        0,
    ),
    Row("http_requests_limited_total", {}, lambda world: world.requested(429)),
    Row("http_requests_limited_total", {}, lambda world: world.requested(503), 0),
    Row("http_connections", {"port": "api"}, lambda world: world.connections.update(api=7), 7),
    Row("event_streams", {}, lambda world: world.stream()),
    Row("event_streams_dropped_total", {}, lambda world: world.stream(drop=True)),
    Row(
        "security_events_total",
        {"event": "request_unauthenticated"},
        lambda world: world.security_events.update(request_unauthenticated=5),
        5,
    ),
]
STILL = {"build_info"}
"""What never moves."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.name}{''.join(f'-{v}' for v in row.labels.values())}")
def test_it_moves_when_something_happens(row: Row) -> None:
    world = World()
    before = world.value(row.name, row.labels) or 0
    row.happens(world)
    assert (world.value(row.name, row.labels) or 0) - before == pytest.approx(row.delta)


def test_every_metric_has_something_that_makes_it_move() -> None:
    names = {family.name.removeprefix("dynamictoolset_") for family in World().families()}
    assert names == {row.family for row in TABLE if row.delta} | STILL


def test_the_build_is_told() -> None:
    assert re.search(r'dynamictoolset_build_info\{python="3\.[0-9.a-z+]+",version="[0-9.]+"\} 1\.0', World().text())


def test_a_candidate_that_stays_is_discovered_once() -> None:
    world = World()
    for one in (LISTED, NOT_LISTED, replace(LISTED, candidate=grafana(title="Another"))):
        world.report(one)
    assert world.value("services_discovered_total", {"type": "grafana"}) == 1


def test_what_was_there_once_stays_at_nothing() -> None:
    world = World()
    world.report(LISTED, problems=(Problem("MassFailure", "So."),))
    world.text()
    world.report()
    assert world.value("services", {"type": "grafana", "health": "healthy"}) == 0
    assert world.value("services_listed", {"type": "grafana"}) == 0
    assert world.value("problems", {"reason": "MassFailure"}) == 0


def test_before_anything_was_heard_no_age_is_told_and_without_election_no_lease() -> None:
    world = World()
    world.watch(since_heard=None, since_bookmark=None)
    world.counts(election=None)
    assert not re.search(r"^dynamictoolset_(watch_last\w+|lease\w+)[ {]", world.text(), re.MULTILINE)


# --- Bounds ---------------------------------------------------------------------------------------------------------


def series(world: World, name: str) -> set[str]:
    return set(re.findall(rf"^dynamictoolset_{name}\{{(.*)\}}", world.text(), re.MULTILINE))


def test_a_thousand_types_of_peoples_own_are_one() -> None:
    world, detector = World(), Detector(load_catalog(), Settings())
    found = []
    for number in range(1000):
        asked = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": f"type-{number}"}
        service = Service(
            ObjectMeta(f"s{number}", "shop", annotations=asked),
            ServiceSpec(selector={"app": "x"}, ports=(ServicePort(port=8080),)),
        )
        decision = detector.detect(service)
        assert decision.candidate is not None
        assert decision.candidate.type == f"type-{number}"
        found.append(DiscoveredService(decision.candidate, HEALTHY, listed=True))
        world.telemetry.checked(decision.candidate, HEALTHY)
    world.report(*found)
    assert world.value("services_discovered_total", {"type": "custom"}) == 1000
    assert series(world, "services_listed") == {'type="custom"'}
    assert series(world, "service_health_checks_total") == {'status="healthy",type="custom"'}
    assert "type-" not in world.text()


def test_a_thousand_paths_methods_and_reasons_are_few() -> None:
    world = World()
    for number in range(1000):
        world.requested(route=f"/path/{number}")
        world.requested(method=f"METHOD{number}")
        world.report(problems=(Problem(f"Reason{number}", "So."),))
        world.text() if number < 100 else None
    assert len(series(world, "http_requests_total")) <= MAX_ROUTES + 2
    assert world.value("http_requests_total", {"route": UNKNOWN, "method": "GET", "code": "200"}) > 900
    assert len(series(world, "problems")) <= 51
    assert len(world.metrics.request_seconds) <= MAX_ROUTES + 2


# --- Controllers that are replaced ----------------------------------------------------------------------------------


class FakeController:
    """A controller that ends when it is told to, and has counted what it is given."""

    report = None
    results: list[Statistics] = []  # noqa: RUF012 - set by each test

    def __init__(self, *_args: Any, **_options: Any) -> None:
        self._stopped = asyncio.Event()
        self._statistics = self.results.pop(0)

    def statistics(self) -> Statistics:
        return self._statistics

    async def run(self) -> None:
        await self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()

    def succeed(self, other: "FakeController") -> None:
        pass


async def test_a_controller_that_takes_over_counts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = replace(START, watches={"Services": WATCH, "Namespaces": WATCH})
    without_election = replace(START, election=None)
    led = replace(START, election=replace(START.election, terms=1), leads=True)
    monkeypatch.setattr(FakeController, "results", [namespaces, replace(without_election, passes=0), led])
    monkeypatch.setattr(supervisor, "Controller", FakeController)
    subject = Supervisor(None, Settings(), load_catalog())
    world = World()
    seen: list[dict[str, float]] = []

    def look() -> None:
        world.counts(**{name: getattr(subject.statistics(), name) for name in Statistics.__struct_fields__})
        found = read_text(world.text())
        counters = [one for one in found if one.type == "counter" and not one.name.startswith(FOREIGN)]
        seen.append({f"{s.name}{s.labels}": s.value for one in counters for s in one.samples})

    running = asyncio.create_task(subject.run())
    look()
    for _ in range(2):
        await asyncio.sleep(0)
        before = subject.controller
        subject.replace(Settings(), load_catalog())
        while subject.controller is before:
            await asyncio.sleep(0)
        look()
    subject.stop()
    await running
    for earlier, later in pairwise(seen):
        assert all(later[name] >= value for name, value in earlier.items() if name in later)
    assert subject.statistics().passes == 2
    assert subject.statistics().full_looks == FullLooks(3, 1000.0, 1300.0)
    assert subject.statistics().watches["Services"].lists == 3
    assert world.value("watch_events_total", {"watch": "Services"}) == 21
    assert world.value("configmap_writes_total", {}) == 3
    assert world.value("lease_terms_total", {}) == 1
    assert world.value("leader", {}) == 1
    # A watch that is not needed any more is not told of; should it be needed again, it counts on.
    assert "Namespaces" not in subject.statistics().watches
    assert subject._past.watches["Namespaces"] == WATCH


# --- Form -----------------------------------------------------------------------------------------------------------


def everything() -> World:
    """A service to which everything has happened."""
    world = World()
    for row in TABLE:
        row.happens(world)
    return world


def test_the_text_can_be_read_back() -> None:
    world = everything()
    families = {one.name: one for one in read_text(world.text())}
    assert set(families) >= {family.name for family in world.families()}
    assert not [name for name in families if name.endswith("_created")]


def test_openmetrics_has_the_id_of_a_request_as_exemplar() -> None:
    world = World()
    world.metrics.requested("/api/v1/services", "GET", 200, 0.02, "the-request")
    media_type, text = world.exposition.render(OPENMETRICS)
    assert media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {one.name: one for one in read_openmetrics(text.decode())}
    samples = families["dynamictoolset_http_request_duration_seconds"].samples
    found = [one for one in samples if one.exemplar]
    assert [(one.labels["le"], one.exemplar.labels, one.exemplar.value) for one in found] == [
        ("0.025", {"request_id": "the-request"}, 0.02)
    ]
    assert found[0].exemplar.timestamp.sec > 1.7e9
    assert "the-request" not in world.text()


@pytest.mark.parametrize("length", [118, 119])
def test_an_exemplar_is_no_longer_than_it_may_be(length: int) -> None:
    world = World()
    world.metrics.requested("/api/v1/services", "GET", 200, 0.02, "x" * length)
    text = world.text(OPENMETRICS)
    list(read_openmetrics(text))  # refuses what is longer
    assert ("xxx" in text) is (length <= 118)


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;version=;q=", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", False),
        ("text/plain,application/openmetrics-text;q=0.5", False),
    ],
)
def test_the_format_is_the_one_that_is_wanted(accept: str, expected: bool) -> None:
    assert accepts_openmetrics(accept) is expected


def test_promtool_has_nothing_to_complain_of() -> None:
    promtool = system_program("promtool")
    for world in (World(), everything()):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=world.text(), capture_output=True, text=True, timeout=60
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_histogram_counts_a_bound_to_its_bucket() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.100001, 1.0, 1.1):
        histogram.add(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == pytest.approx(2.300001)


# --- Documentation --------------------------------------------------------------------------------------------------


def test_every_metric_is_documented_as_it_is() -> None:
    rows = table(DOCS / "metrics.md", "metric")
    expected = []
    for family in everything().families():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        expected.append(
            [
                f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
                family.type,
                ", ".join(f"`{name}`" for name in sorted(labels)) or "none",
                family.documentation,
            ]
        )
    assert sorted(row[:4] for row in rows) == sorted(expected)
    assert all(len(row) == 5 and row[4] for row in rows)


def test_the_metrics_of_the_process_are_documented() -> None:
    names = {family.name for family in World().exposition.registry.collect() if family.name.startswith(FOREIGN)}
    page = (DOCS / "metrics.md").read_text()
    assert names
    assert all(f"`{name}" in page for name in names)


# --- The port -------------------------------------------------------------------------------------------------------


async def scrape(world: World, path: str = "/metrics", method: str = "GET", accept: str = "") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a scrape has no body")

    scope = {"type": "http", "path": path, "method": method, "headers": [(b"accept", accept.encode())]}
    await scraped(world.exposition)(scope, receive, send)
    return sent


@pytest.mark.parametrize(("accept", "kind"), [("", b"text/plain"), (OPENMETRICS, b"application/openmetrics-text")])
async def test_a_scrape_gets_all(accept: str, kind: bytes) -> None:
    start, body = await scrape(World(), accept=accept)
    headers = dict(start["headers"])
    assert start["status"] == 200
    assert headers[b"content-type"].startswith(kind)
    assert int(headers[b"content-length"]) == len(body["body"])
    assert b"dynamictoolset_build_info" in body["body"]


async def test_head_has_no_body() -> None:
    start, body = await scrape(World(), method="HEAD")
    assert int(dict(start["headers"])[b"content-length"]) > 1000
    assert body["body"] == b""


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metrics/", "GET", 404), ("/metrics", "POST", 405)]
)
async def test_nothing_else_is_there(path: str, method: str, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        await scrape(World(), path, method)
    assert refused.value.status == status
    assert refused.value.headers.get("Allow") == ("GET, HEAD" if status == 405 else None)


def test_metrics_need_no_library_until_they_are_rendered() -> None:
    # 30 ms, which would be in the way of the first publication
    code = "import sys, dynamic_toolset.server.telemetry; print('prometheus_client' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"
    assert Metrics().report is None
