"""The metrics over their port, of a service that works on the sandbox, as ``dynamic-toolset run`` starts it."""

import asyncio
import gc
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.sources import Fixed
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.server.ports import Ports
from dynamic_toolset.server.source import Source
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import ServerSettings
from tests.cluster.programs import system_program
from tests.integration.sandboxed import CATALOG, Cluster, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Litestar

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
SERVER = {"port": 0, "metricsPort": 0, "auth": "none", "rateLimit": 0}

Samples = dict[str, float]


class Scraper:
    """The service, and who scrapes it."""

    def __init__(self, supervisor: Supervisor, ports: Ports, session: ClientSession) -> None:
        self.supervisor = supervisor
        self.session = session
        self.api = ports.api.url
        self.url = f"{ports.metrics.url}/metrics"

    async def text(self) -> str:
        async with self.session.get(self.url) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            return await answer.text()

    async def samples(self) -> Samples:
        """Return every sample by its name and labels, as ``services{health=healthy,type=custom}``."""
        found: Samples = {}
        for family in read_text(await self.text()):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                name = sample.name.removeprefix("dynamictoolset_")
                found[f"{name}{{{labels}}}" if labels else name] = sample.value
        return found

    async def until(self, condition: Callable[[Samples], bool], within: float = 10.0) -> Samples:
        async with asyncio.timeout(within):
            while not condition(found := await self.samples()):
                await asyncio.sleep(0.02)
            return found


def build(client: Client, chosen: ServerSettings, ports: Ports, supervisor: Supervisor, telemetry: Telemetry) -> Any:
    from dynamic_toolset.server.server import Server

    sources = Fixed(settings(), CATALOG)
    configuration = Configuration(sources, sources.read(), supervisor)
    return Server(client, chosen, ports, Source(supervisor, telemetry), telemetry, configuration)


@pytest.fixture
async def scraper(cluster: Cluster) -> AsyncIterator[Scraper]:
    chosen = settings(server=SERVER)
    ports = Ports(chosen.server)
    async with Client(static(cluster.sandbox.url)) as client, ClientSession() as session:
        telemetry = Telemetry()
        supervisor = Supervisor(client, chosen, CATALOG, observer=telemetry)
        server = build(client, chosen.server, ports, supervisor, telemetry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            tasks.create_task(server.run())
            yield Scraper(supervisor, ports, session)
            await session.close()
            await server.end(at_once=True)
            supervisor.stop()
    gc.unfreeze()


async def test_a_scrape_shows_a_service_that_comes_turns_unhealthy_and_is_refused(
    cluster: Cluster, scraper: Scraper
) -> None:
    stays, backend = await cluster.add("stays"), await cluster.add("goes")
    found = await scraper.until(lambda now: now.get("services_listed{type=custom}") == 2)
    assert found["services_discovered_total{type=custom}"] == 2
    assert found["services{health=healthy,type=custom}"] == 2
    assert found["services_decided{decision=candidate}"] == 2
    assert found["service_health_checks_total{status=healthy,type=custom}"] >= 2
    assert found["probe_duration_seconds_count{status=healthy,type=custom}"] >= 2
    assert found["configmap_writes_total"] >= 1
    assert found["configmap_reconciliations_total{status=created}"] == 1
    assert found["discovery_duration_seconds_count"] >= 1
    assert found["publication_latency_seconds_count"] >= 1
    assert found["leader"] == found["lease_terms_total"] == 1
    assert found["watch_synced{watch=Services}"] == 1
    assert found["watch_last_heard_age_seconds{watch=Services}"] < 60
    assert found["http_connections{port=metrics}"] >= 1

    backend.healthy = False
    found = await scraper.until(lambda now: now["services{health=unhealthy,type=custom}"] == 1)
    await scraper.until(lambda now: now["services_listed{type=custom}"] == 1)
    assert found["service_health_checks_total{status=unhealthy,type=custom}"] >= 1

    await cluster.annotate("goes", {"kubernaut.io/toolset": "perhaps"})
    found = await scraper.until(lambda now: now["services_refused{reason=annotation}"] == 1)
    assert found["services_decided{decision=rejected}"] == 1
    assert found["services{health=unhealthy,type=custom}"] == 0
    assert stays.healthy


async def test_no_counter_goes_back_when_a_controller_is_replaced(cluster: Cluster, scraper: Scraper) -> None:
    for name in ("a", "b", "c"):
        await cluster.add(name)
        await scraper.until(lambda now: name in cluster.listed)  # noqa: B023 - awaited at once
    before = await scraper.samples()
    # Each new name is a new watch of the EndpointSlices, in the place of the one before.
    assert before["watch_lists_total{watch=EndpointSlices}"] >= 3
    assert before["watch_restarts_total{watch=EndpointSlices}"] >= 2
    first = scraper.supervisor.controller
    scraper.supervisor.replace(settings(server=SERVER), CATALOG)
    await scraper.until(lambda _: scraper.supervisor.controller is not first)
    after = await scraper.samples()
    later = await scraper.until(lambda now: now["watch_lists_total{watch=Services}"] >= 2)
    for now in (after, later):
        lost = {name for name, value in before.items() if name.partition("{")[0].endswith("_total") and name in now}
        assert not {name for name in lost if now[name] < before[name]}
    assert later["services_discovered_total{type=custom}"] == 3


async def test_requests_are_counted_by_their_route(cluster: Cluster, scraper: Scraper) -> None:
    await cluster.add("a")
    await scraper.until(lambda now: now.get("services_listed{type=custom}") == 1)
    for path in ("services", "services/shop/a", "services/shop/b", "toolset"):
        async with scraper.session.get(f"{scraper.api}/api/v1/{path}", headers={"X-Request-ID": "of-the-test"}):
            pass
    for number in range(100):
        async with scraper.session.get(f"{scraper.api}/{number}") as answer:
            assert answer.status == 404
    async with scraper.session.request("PROPFIND", f"{scraper.api}/pot"):
        pass
    async with scraper.session.post(scraper.url) as answer:
        assert answer.status == 405
    found = await scraper.samples()
    one = "{namespace}/{name}"
    assert found["http_requests_total{code=200,method=GET,route=/api/v1/services}"] == 1
    assert found[f"http_requests_total{{code=200,method=GET,route=/api/v1/services/{one}}}"] == 1
    assert found[f"http_requests_total{{code=404,method=GET,route=/api/v1/services/{one}}}"] == 1
    assert found["http_requests_total{code=404,method=GET,route=unknown}"] == 100
    assert found["http_requests_total{code=404,method=other,route=unknown}"] == 1
    assert found["http_requests_total{code=405,method=POST,route=/metrics}"] == 1
    assert found["http_request_duration_seconds_count{method=GET,route=/metrics}"] >= 1
    assert len([name for name in found if name.startswith("http_requests_total")]) < 12

    async with scraper.session.get(scraper.url, headers=OPENMETRICS) as answer:
        assert answer.content_type == "application/openmetrics-text"
        families = {family.name: family for family in read_openmetrics(await answer.text())}
    exemplars = [
        sample.exemplar.labels
        for sample in families["dynamictoolset_http_request_duration_seconds"].samples
        if sample.exemplar and sample.labels["route"] == "/api/v1/services"
    ]
    assert exemplars == [{"request_id": "of-the-test"}]


async def test_readers_of_events_are_counted_and_their_time_is_not(scraper: Scraper) -> None:
    async with scraper.session.get(f"{scraper.api}/api/v1/events") as answer:
        assert b"hello" in await answer.content.readuntil(b"\n\n")
        assert (await scraper.samples())["event_streams"] == 1
    route = "{code=200,method=GET,route=/api/v1/events}"
    found = await scraper.until(lambda now: f"http_requests_total{route}" in now)
    assert found["event_streams"] == 0
    assert "http_request_duration_seconds_count{method=GET,route=/api/v1/events}" not in found


async def test_who_is_not_let_in_is_counted(cluster: Cluster) -> None:
    chosen = msgspec.convert(
        {**SERVER, "auth": "token", "metricsAuth": "token", "address": "127.0.0.1", "rateLimit": 1}, ServerSettings
    )
    cluster.sandbox.add_token("scraper-1", "scraper", audiences=[chosen.audience])
    cluster.sandbox.allow("scraper", "/metrics", "get")
    ports = Ports(chosen)
    async with Client(static(cluster.sandbox.url)) as client, ClientSession() as session:
        telemetry = Telemetry()
        supervisor = Supervisor(client, settings(), CATALOG, observer=telemetry)
        server = build(client, chosen, ports, supervisor, telemetry)
        running = asyncio.create_task(server.run())
        headers = {"Authorization": "Bearer scraper-1"}
        for url, expected in (
            (f"{ports.metrics.url}/metrics", 401),
            (f"{ports.api.url}/api/v1/services", 401),
            (f"{ports.api.url}/api/v1/services", 429),
        ):
            async with session.get(url) as answer:
                assert answer.status == expected
        async with session.get(f"{ports.api.url}/api/v1/services", headers=headers) as answer:
            assert answer.status == 429  # a stranger's address counts until the token is known
        async with session.get(f"{ports.metrics.url}/metrics", headers=headers) as answer:
            assert answer.status == 200
            text = await answer.text()
        await session.close()
        await server.end(at_once=True)
        await running
    assert 'dynamictoolset_security_events_total{event="request_unauthenticated"} 2.0' in text
    assert 'dynamictoolset_security_events_total{event="request_forbidden"} 0.0' in text
    assert "dynamictoolset_http_requests_limited_total 2.0" in text


async def test_promtool_has_nothing_to_complain_of(cluster: Cluster, scraper: Scraper) -> None:
    promtool = system_program("promtool")
    await cluster.add("a")
    await scraper.until(lambda now: now.get("services_listed{type=custom}") == 1)
    text = await scraper.text()
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
