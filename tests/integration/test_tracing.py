"""Traces of the service at work: what is in them, and that they arrive."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dynamic_toolset import tracing
from dynamic_toolset.sandbox import Sandbox
from tests.integration.processes import ended, events_until, running
from tests.integration.sandboxed import Cluster, Subject, until
from tests.waiting import Stopwatch


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.end()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def test_a_pass_has_a_span_with_its_parts_and_each_check_a_trace_of_its_own(
    cluster: Cluster, start: Callable[..., Awaitable[Subject]], exporter: InMemorySpanExporter
) -> None:
    await cluster.add("good")
    await cluster.add("bad", mode="fail")
    await start()
    await until(lambda: cluster.listed == {"good"})
    await until(lambda: named(exporter, "pass"))
    written = next(span for span in named(exporter, "pass") if span.attributes["outcome"] in {"created", "updated"})
    assert written.parent is None
    assert written.attributes["services"] == 2
    assert written.attributes["changes"] >= 2
    parts = [span for span in exporter.get_finished_spans() if span.parent == written.context]
    assert sorted(span.name for span in parts) == ["look", "publish"]
    publish = next(span for span in parts if span.name == "publish")
    assert publish.attributes["outcome"] == written.attributes["outcome"]
    assert any(span.parent == publish.context for span in named(exporter, "apply"))
    checks = named(exporter, "health_check")
    assert all(span.parent is None for span in checks)
    verdicts = {(span.attributes["service"], span.attributes["verdict"]) for span in checks}
    assert verdicts == {("shop/good", "healthy"), ("shop/bad", "unhealthy")}
    (check, *_) = checks
    assert check.attributes["type"] == "orders"
    assert check.attributes["endpoint"].startswith("http://")


# --- Over the wire --------------------------------------------------------------------------------------------------


class Collector:
    """Receives traces (OTLP over HTTP), or keeps whoever sends them waiting."""

    def __init__(self) -> None:
        self.hangs = False
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        if self.hangs:
            await asyncio.sleep(30)
        return web.Response(body=b"", content_type="application/x-protobuf")

    @property
    def spans(self) -> dict[str, dict[str, Any]]:
        """The attributes of the spans that arrived, by name."""
        return {
            span.name: {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
            for _, _, body in self.requests
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def services(self) -> set[str]:
        return {
            one.value.string_value
            for _, _, body in self.requests
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for one in resource.resource.attributes
            if one.key == "service.name"
        }


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/{path:.*}", collector.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield collector, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_traces_arrive_under_our_name(sandbox: Sandbox, cluster: Cluster, tmp_path: Path) -> None:
    await cluster.add("orders")
    async with (
        collecting() as (collector, url),
        running(
            sandbox.url, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_HEADERS="x-key=a"
        ) as process,
    ):
        events = await events_until(process, "published")
        assert [event["event"] for event in events][:2] == ["starting", "tracing"]
        assert len(events[-1]["trace_id"]) == 32
        await until(lambda: {"pass", "look", "publish", "apply", "health_check"} <= collector.spans.keys())
        await ended(process)
    assert process.returncode == 0
    assert {path for path, _, _ in collector.requests} == {"/v1/traces"}
    assert {headers["x-key"] for _, headers, _ in collector.requests} == {"a"}
    assert collector.services == {"dynamic-toolset"}
    assert collector.spans["health_check"]["service"] == "shop/orders"


async def test_a_collector_that_hangs_neither_slows_the_service_nor_its_end(
    sandbox: Sandbox, cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.add("orders")
    async with (
        collecting() as (collector, url),
        running(sandbox.url, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url) as process,
    ):
        collector.hangs = True
        await events_until(process, "serving")
        await until(lambda: cluster.listed == {"orders"} and collector.requests)
        with Stopwatch() as watch:
            await ended(process)
        assert watch.seconds < 6
    assert process.returncode == 0


async def test_a_collector_that_is_away_costs_a_few_lines(sandbox: Sandbox, cluster: Cluster, tmp_path: Path) -> None:
    await cluster.add("orders")
    async with running(sandbox.url, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://me:pw@127.0.0.1:1") as process:
        events = await events_until(process, "library_message")
        await until(lambda: cluster.listed == {"orders"})
        await asyncio.sleep(1)
        events += await ended(process)
    assert process.returncode == 0
    said = [event for event in events if event["event"] == "library_message"]
    assert 0 < len(said) <= 20
    assert all(event["logger"].startswith("opentelemetry") for event in said)
    assert "me:pw" not in json.dumps(said)


async def test_settings_that_cannot_be_used_are_a_warning(sandbox: Sandbox, cluster: Cluster, tmp_path: Path) -> None:
    await cluster.add("orders")
    async with running(
        sandbox.url, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_PROTOCOL="grpc"
    ) as process:
        events = await events_until(process, "published")
    assert (events[1]["event"], events[1]["level"]) == ("tracing_unavailable", "warning")
    assert "http/protobuf" in events[1]["reason"]
