"""Traces: nothing without OpenTelemetry, and with it what the call sites say, whatever the collector does."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dynamic_toolset import __version__, tracing
from dynamic_toolset.cli import logs
from dynamic_toolset.server.gate import Gate
from dynamic_toolset.server.limits import Limiter

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of whoever runs the tests, and no traces afterwards."""
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    yield
    tracing.end()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    return exporter


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


# --- Off ------------------------------------------------------------------------------------------------------------


def test_without_an_endpoint_nothing_is_traced_nor_loaded() -> None:
    program = """
import sys
from dynamic_toolset.cli import run
from dynamic_toolset.server import server
from dynamic_toolset import tracing
assert tracing.start() is False
with tracing.span("pass", services=1):
    tracing.note(outcome="unchanged")
with tracing.request(lambda name: 1 / 0):
    tracing.answered("GET", "/", "/", 200, "id")
assert tracing.trace_id() == ""
tracing.end()
print([name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_off_a_call_site_costs_next_to_nothing() -> None:
    """About a microsecond, where a health check takes a millisecond. The bound is for machines that are busy."""
    assert tracing.span("a") is tracing.span("b") is tracing.request(lambda _name: None) is tracing.nothing
    began = time.process_time()
    for _ in range(10_000):
        with tracing.span("health_check", alone=True, type="loki", endpoint="http://loki:3100"):
            tracing.note(verdict="healthy")
    assert time.process_time() - began < 0.3


# --- On -------------------------------------------------------------------------------------------------------------


def test_a_span_is_a_child_of_the_one_around_it_unless_it_is_to_be_alone(exporter: InMemorySpanExporter) -> None:
    async def check() -> None:
        with tracing.span("health_check", alone=True, type="loki"):
            tracing.note(verdict="healthy")

    async def main() -> None:
        with tracing.span("pass"):
            with tracing.span("look"):
                task = asyncio.create_task(check())
            tracing.note(outcome="unchanged", services=3)
        await task

    asyncio.run(main())
    found = spans(exporter)
    assert found["look"].parent == found["pass"].context
    assert found["pass"].attributes == {"outcome": "unchanged", "services": 3}
    assert found["pass"].parent is None
    assert found["health_check"].parent is None
    assert found["health_check"].context.trace_id != found["pass"].context.trace_id
    assert found["health_check"].attributes == {"type": "loki", "verdict": "healthy"}


def test_an_error_goes_its_way_and_is_named_by_its_type_alone(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(OSError, match="hunter2"), tracing.span("publish"):
        raise OSError("password hunter2")
    span = spans(exporter)["publish"]
    assert span.attributes == {"error.type": "OSError"}
    assert span.status.status_code is StatusCode.ERROR
    assert "hunter2" not in span.to_json()


def test_being_cancelled_is_no_error(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), tracing.span("publish"):
        raise asyncio.CancelledError
    assert spans(exporter)["publish"].status.is_ok


def test_events_within_a_span_carry_the_id_of_its_trace(exporter: InMemorySpanExporter) -> None:
    with tracing.span("pass"):
        event: Any = logs._add_trace(None, "info", {"event": "published"})
    assert event["trace_id"] == f"{spans(exporter)['pass'].context.trace_id:032x}"
    assert logs._add_trace(None, "info", {}) == {}


# --- Requests -------------------------------------------------------------------------------------------------------


class Meter:
    def requested(self, *_facts: object) -> None:
        pass


async def ask(path: str, headers: dict[str, str], status: int = 200) -> None:
    """Send a request through a gate behind which there is next to nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/api/v1/services/{namespace}"
        if status == 500:
            raise KeyError("ours")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        pass

    raw = [(name.encode(), value.encode()) for name, value in {"host": "a", **headers}.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "client": ("127.0.0.1", 1)}
    await Gate(app, access=None, limiter=Limiter(0), meter=Meter())(scope, receive, send)


async def test_a_request_belongs_to_the_trace_of_its_caller(exporter: InMemorySpanExporter) -> None:
    await ask("/api/v1/services/shop", {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "abc"})
    span = spans(exporter)["GET /api/v1/services/{namespace}"]
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == CALLER
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/api/v1/services/{namespace}",
        "url.path": "/api/v1/services/shop",
        "http.response.status_code": 200,
        "request_id": "abc",
    }
    assert span.status.is_ok


@pytest.mark.parametrize(
    "traceparent", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "é" * 900]
)
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(
    exporter: InMemorySpanExporter, traceparent: str
) -> None:
    await ask("/api/v1/services/shop", {"traceparent": traceparent, "tracestate": "=,=;"})
    (span,) = spans(exporter).values()
    assert span.parent is None


async def test_a_mistake_of_ours_is_an_error(exporter: InMemorySpanExporter) -> None:
    await ask("/api/v1/services/shop", {}, status=500)
    (span,) = spans(exporter).values()
    assert span.status.status_code is StatusCode.ERROR


async def test_probes_and_scrapes_are_not_traced(exporter: InMemorySpanExporter) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        await ask(path, {})
    assert not spans(exporter)


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "  "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_there_are_no_traces_unless_they_are_wanted(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not tracing.start()
    assert tracing.span("pass") is tracing.nothing


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, "dynamic-toolset"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT, "OTEL_SERVICE_NAME": "ours"}, "ours"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs,a=b"}, "theirs"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "dynamic-toolset"),
    ],
)
def test_the_environment_names_endpoint_and_service(
    environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert tracing.start()
    assert tracing._tracing is not None
    attributes = tracing._tracing.provider.resource.attributes
    assert (attributes["service.name"], attributes["service.version"]) == (name, __version__)
    assert attributes["telemetry.sdk.language"] == "python"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OpenTelemetry cannot be set up: "),
    ],
)
def test_what_cannot_be_had_is_said(environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tracing.Unavailable, match=words):
        tracing.start()
    assert tracing.span("pass") is tracing.nothing


def test_without_the_extra_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.Unavailable, match=r"dynamic-toolset\[otel\]"):
        tracing.start()


# --- A collector that misbehaves ------------------------------------------------------------------------------------


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, _spans: object) -> Any:
        self.released.wait(20)

    def shutdown(self) -> None:
        self.released.wait(20)


def test_a_collector_that_hangs_costs_spans_and_at_the_end_no_more_than_its_time() -> None:
    exporter = Hanging()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=8, max_export_batch_size=4))
    tracing.use(provider)
    began = time.monotonic()
    for number in range(1000):
        with tracing.span("pass", services=number):
            pass
    assert time.monotonic() - began < 10
    began = time.monotonic()
    tracing.end(0.2)
    assert time.monotonic() - began < 10  # it hangs for 20 s
    assert tracing.span("pass") is tracing.nothing
    exporter.released.set()


def test_the_end_sends_what_was_not_sent_yet() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    tracing.use(provider)
    with tracing.span("pass"):
        pass
    assert not exporter.get_finished_spans()
    tracing.end()
    assert [span.name for span in exporter.get_finished_spans()] == ["pass"]
    tracing.end()
