"""Metrics in the formats of Prometheus: what was counted, and what is read off only when somebody asks.

The text is that of Prometheus (version 0.0.4), or OpenMetrics 1.0 for who accepts it, which has request ids as
exemplars. docs/metrics.md says what each metric is for; a test compares the two.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from dynamic_toolset import __version__
from dynamic_toolset.controller.statistics import Statistics, Watch
from dynamic_toolset.model import Outcome, Rejection, Report, Verdict
from dynamic_toolset.server.exchange import App, Receive, Scope, Send
from dynamic_toolset.server.metrics import Example, Histogram, Metrics
from dynamic_toolset.server.problems import Refusal
from dynamic_toolset.server.stream import Stream

PATH = "/metrics"

MAX_REASONS = 50
"""Reasons of problems that are told apart. All are words of this program: the bound is there in case one is not."""

ADDRESS = "address"
"""Why a Service is refused that detection takes: it leads where nothing must be dialled."""

Value = float | None
"""None where there is nothing to tell yet."""

Series = Iterable[tuple[tuple[str, ...], Value]]
"""Values by the values of their labels."""

_GAUGES_OF_WATCHES: tuple[tuple[str, str, Callable[[Watch], Value]], ...] = (
    ("synced", "Whether the first list is complete.", lambda one: one.synced),
    ("objects", "Objects that are known.", lambda one: one.objects),
    ("objects_undecodable", "Objects that cannot be read, and so stay as they were last.", lambda one: one.skipped),
    ("failures", "Failures in a row since it last worked.", lambda one: one.failures),
    (
        "last_heard_age_seconds",
        "Seconds since the last list, event or bookmark; one that works brings a bookmark every minute.",
        lambda one: one.since_heard,
    ),
    (
        "last_bookmark_age_seconds",
        "Seconds since the last list or bookmark, which vouches for everything before it.",
        lambda one: one.since_bookmark,
    ),
)

_COUNTERS_OF_WATCHES: tuple[tuple[str, str, Callable[[Watch], Value]], ...] = (
    ("lists", "Lists that were begun.", lambda one: one.lists),
    (
        "restarts",
        "Watches that were begun after the first; the API ends each after 4 to 8 minutes.",
        lambda one: max(0, one.watches - 1),
    ),
    ("events", "Events of objects.", lambda one: one.events),
    ("bookmarks", "Bookmarks.", lambda one: one.bookmarks),
)


class Exposition:
    """Renders the metrics of a process. Everything but ``metrics`` and ``stream`` is asked at each scrape.

    ``statistics`` are those of the controllers, ``connections`` how many are open by port, and ``security_events`` how
    many there were by name.
    """

    def __init__(
        self,
        metrics: Metrics,
        stream: Stream,
        *,
        statistics: Callable[[], Statistics],
        connections: Callable[[], Mapping[str, int]],
        security_events: Callable[[], Mapping[str, int]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counted(metrics))
        self.registry.register(_Reported(metrics))
        self.registry.register(_Controllers(statistics))
        self.registry.register(_Served(metrics, stream, connections, security_events))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the media type and the text of all metrics, in the format that is accepted."""
        if accepts_openmetrics(accept):
            text: bytes = openmetrics.generate_latest(self.registry, openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST, text
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry, openmetrics.ALLOWUTF8)


def accepts_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1 is accepted, and nothing suggests that the older format is wanted more.

    A scraper names the versions that it reads. Who accepts anything at all, such as a browser, gets plain text.
    """
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        said = dict(one.split("=", 1) for one in parameters if "=" in one)
        is_read = media == "text/plain" or said.get("version", "1").partition(".")[0] == "1"
        if media in best and is_read:
            best[media] = max(best[media], _quality(said.get("q", "1")))
    wanted, plain = best.values()
    return wanted > 0 and wanted >= plain


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def scraped(exposition: Exposition) -> App:
    """Return the application that answers a scrape: /metrics, and nothing else."""

    async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            raise Refusal(404, f"there is nothing here but {PATH}")
        scope["path_template"] = PATH
        if scope["method"] not in {"GET", "HEAD"}:
            raise Refusal(405, "this can be had with GET or HEAD", headers={"Allow": "GET, HEAD"})
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        media_type, body = exposition.render(accept)
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"vary", b"Accept"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return answer


# --- What the metrics are -------------------------------------------------------------------------------------------


class _Counted(Collector):
    """What the controllers have done."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield _counter(
            "services_discovered",
            "Candidates that have come up, by service type.",
            ("type",),
            (((kind,), count) for kind, count in metrics.discovered.items()),
        )
        yield _counter(
            "service_health_checks",
            "Health checks that ended, by outcome.",
            ("type", "status"),
            metrics.checks.items(),
        )
        yield _histogram(
            "probe_duration_seconds",
            "Duration of the health checks in which a backend was asked.",
            ("type", "status"),
            metrics.probes.items(),
        )
        yield _counter(
            "configmap_reconciliations",
            "Attempts to make the ConfigMap say what it should, by what came of them.",
            ("status",),
            (((outcome,), count) for outcome, count in metrics.reconciliations.items()),
        )
        yield _histogram(
            "discovery_duration_seconds",
            "Duration of the passes, in which everything is decided and published.",
            (),
            [((), metrics.passes)],
        )
        yield _histogram(
            "publication_latency_seconds",
            "Time from the arrival of a Service's change to the publication in which it shows.",
            (),
            [((), metrics.latencies)],
        )


class _Reported(Collector):
    """What the last report says. What has been there once stays, with 0, so that an alert sees it go."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        report = self._metrics.report
        if report is None:
            report = Report({}, (), (), (), published=False)
        types = sorted(self._metrics.types)
        health = Counter((one.candidate.catalog_type, one.health.verdict.value) for one in report.discovered)
        listed = Counter(one.candidate.catalog_type for one in report.discovered if one.listed)
        decided = Counter(decision.outcome for decision in report.decisions.values())
        yield _gauge(
            "services",
            "Candidates, by service type and health.",
            ("type", "health"),
            (((kind, verdict.value), health[kind, verdict.value]) for kind in types for verdict in Verdict),
        )
        yield _gauge(
            "services_listed",
            "Services that are in the toolset.",
            ("type",),
            (((kind,), listed[kind]) for kind in types),
        )
        yield _gauge(
            "services_decided",
            "Services that were seen, by what was decided on them.",
            ("decision",),
            (((outcome.value,), decided[outcome]) for outcome in Outcome),
        )
        yield _gauge(
            "services_refused",
            "Services that want to be listed, or look like a backend, and must not be, by what they fail by.",
            ("reason",),
            _refused(report),
        )
        yield _gauge(
            "removals_held",
            "Services that stay in the toolset only because so many fail at once.",
            (),
            [((), len(report.held))],
        )
        problems = Counter(map(self._reason, (problem.reason for problem in report.problems)))
        yield _gauge(
            "problems",
            "Problems that a person should look at, by their reason.",
            ("reason",),
            (((reason,), problems[reason]) for reason in sorted(self._reasons)),
        )
        yield _gauge(
            "overrides_invalid",
            "Whether overrides.yaml cannot be used, so that what was published last stays.",
            (),
            [((), any(problem.reason == "OverridesInvalid" for problem in report.problems))],
        )

    def _reason(self, reason: str) -> str:
        known = reason if reason in self._reasons or len(self._reasons) < MAX_REASONS else "Other"
        self._reasons.add(known)
        return known


def _refused(report: Report) -> Series:
    counts = Counter(decision.rejection for decision in report.decisions.values() if decision.rejection is not None)
    for rejection in Rejection:
        yield (rejection.value,), counts[rejection]
    yield (ADDRESS,), sum(one.health.refused for one in report.discovered)


class _Controllers(Collector):
    """How the controller is, and what it and those before it have counted."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        yield _gauge("leader", "Whether this instance is the one that writes.", (), [((), now.leads)])
        yield _counter(
            "full_looks",
            "Looks at everything anew, though nothing need have changed.",
            (),
            [((), now.full_looks.count)],
        )
        elections = () if now.election is None else (now.election,)
        yield _counter(
            "lease_terms", "Times that this instance began to lead.", (), (((), one.terms) for one in elections)
        )
        yield _counter(
            "lease_renewals",
            "Requests that acquired or renewed the lease.",
            (),
            (((), one.renewals) for one in elections),
        )
        yield _counter(
            "lease_failures",
            "Attempts to acquire or renew the lease that failed.",
            (),
            (((), one.failures) for one in elections),
        )
        yield _counter(
            "configmap_writes", "Writes of the ConfigMap that succeeded.", (), [((), now.publications.writes)]
        )
        yield _counter(
            "configmap_conflicts",
            "Writes that were refused because somebody else had written meanwhile.",
            (),
            [((), now.publications.conflicts)],
        )
        yield _gauge("probes_running", "Health checks under way.", (), [((), now.checks.running)])
        yield _gauge("probes_waiting", "Health checks that wait for a slot.", (), [((), now.checks.waiting)])
        watches = sorted(now.watches.items())
        for name, meaning, of in _GAUGES_OF_WATCHES:
            yield _gauge(f"watch_{name}", meaning, ("watch",), (((watch,), of(one)) for watch, one in watches))
        for name, meaning, of in _COUNTERS_OF_WATCHES:
            yield _counter(f"watch_{name}", meaning, ("watch",), (((watch,), of(one)) for watch, one in watches))


class _Served(Collector):
    """Who is served, and by what."""

    def __init__(
        self,
        metrics: Metrics,
        stream: Stream,
        connections: Callable[[], Mapping[str, int]],
        security_events: Callable[[], Mapping[str, int]],
    ) -> None:
        self._metrics = metrics
        self._stream = stream
        self._connections = connections
        self._security_events = security_events

    def collect(self) -> Iterator[Metric]:
        metrics, stream = self._metrics, self._stream
        yield _counter(
            "http_requests",
            "Requests that were answered, on both ports; code 0 is one that was given up before its answer.",
            ("route", "method", "code"),
            metrics.requests.items(),
        )
        yield _histogram(
            "http_request_duration_seconds",
            "Time from a request's header to the end of its answer, streams of events aside.",
            ("route", "method"),
            metrics.request_seconds.items(),
        )
        yield _counter(
            "http_requests_limited",
            "Requests that were refused because their caller has made too many.",
            (),
            [((), metrics.limited)],
        )
        yield _gauge(
            "http_connections",
            "Connections that are open, by port.",
            ("port",),
            (((port,), count) for port, count in self._connections().items()),
        )
        yield _gauge("event_streams", "Readers that follow the events.", (), [((), stream.readers)])
        yield _counter(
            "event_streams_dropped",
            "Readers of events that were cut off because they were too slow.",
            (),
            [((), stream.dropped)],
        )
        yield _counter(
            "security_events",
            "Requests that were not let in, by the name of their log event.",
            ("event",),
            (((event,), count) for event, count in self._security_events().items()),
        )
        yield _gauge(
            "build_info",
            "Always 1: which version runs, on which Python.",
            ("version", "python"),
            [((__version__, platform.python_version()), 1)],
        )


# --- Families -------------------------------------------------------------------------------------------------------


def _name(name: str) -> str:
    return f"dynamictoolset_{name}"


def _counter(name: str, meaning: str, labels: tuple[str, ...], series: Series) -> Metric:
    return _filled(CounterMetricFamily(_name(name), meaning, labels=labels), series)


def _gauge(name: str, meaning: str, labels: tuple[str, ...], series: Series) -> Metric:
    return _filled(GaugeMetricFamily(_name(name), meaning, labels=labels), series)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, series: Series) -> Metric:
    for labels, value in series:
        if value is not None:
            family.add_metric(labels, value)
    return family


def _histogram(
    name: str, meaning: str, labels: tuple[str, ...], series: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(_name(name), meaning, labels=labels)
    for values, histogram in series:
        bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
        counts = accumulate(histogram.counts)
        family.add_metric(values, list(map(_bucket, bounds, counts, histogram.examples)), histogram.total)
    return family


def _bucket(bound: str, count: int, example: Example | None) -> tuple[str, float] | tuple[str, float, Exemplar]:
    if example is None:
        return bound, count
    return bound, count, Exemplar({"request_id": example.request_id}, example.value, example.at)
