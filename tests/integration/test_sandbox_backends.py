"""The sample backends pass the health checks of the products that they play, and only those."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.model import Candidate, Endpoint, Health, Verdict
from dynamic_toolset.sandbox.backends import KINDS, Backend, Mode
from dynamic_toolset.settings import HealthCheckSettings

CATALOG = load_catalog()
TYPES = sorted(CATALOG.types)
PRODUCTS = sorted(set(TYPES) - {"custom"})
"""The types whose health check proves which product answers."""


def asking(timeout: str) -> Probe:
    return Probe(HealthCheckSettings(timeout=timeout), Guard(["127.0.0.0/8"]))


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    async with asking("10s") as probe:
        yield probe


async def check(probe: Probe, backend: Backend, name: str) -> Health:
    service_type = CATALOG.types[name]
    path = "/mcp" if name == "mcp" else ""
    endpoint = Endpoint("http", "backend.test.svc", backend.port, path, backend.host)
    return await probe(
        Candidate(
            ObjectKey("test", "backend"),
            name,
            "backend",
            endpoint,
            service_type.health,
            service_type.holmesgpt,
            service_type.title,
            service_type.description,
        )
    )


@pytest.mark.parametrize("name", TYPES)
async def test_every_type_of_the_catalog_has_a_backend_that_passes(probe: Probe, name: str) -> None:
    async with Backend(name) as backend:
        assert (await check(probe, backend, name)).verdict is Verdict.HEALTHY


async def test_an_mcp_server_may_answer_in_a_stream_and_gets_its_session_back(probe: Probe) -> None:
    async with Backend("mcp-sse") as backend:
        assert (await check(probe, backend, "mcp")).verdict is Verdict.HEALTHY
        assert backend.sessions == set()


@pytest.mark.parametrize("name", PRODUCTS)
async def test_a_page_that_answers_200_to_everything_is_no_product(probe: Probe, name: str) -> None:
    async with Backend("welcome") as backend:
        assert (await check(probe, backend, name)).verdict is Verdict.UNHEALTHY


@pytest.mark.parametrize("name", PRODUCTS)
async def test_no_product_passes_for_another(probe: Probe, name: str) -> None:
    for kind in KINDS:
        if {name, kind} == {"prometheus", "thanos"} or kind.partition("-")[0] == name:
            continue  # Thanos speaks Prometheus' API down to the build information
        async with Backend(kind) as backend:
            assert (await check(probe, backend, name)).verdict is Verdict.UNHEALTHY, kind


@pytest.mark.parametrize(("mode", "needs_credentials"), [("fail", False), ("hang", False), ("unauthorized", True)])
async def test_a_backend_can_go_wrong_and_recover(probe: Probe, mode: Mode, needs_credentials: bool) -> None:
    async with Backend("prometheus", mode=mode) as backend, asking("1s") as impatient:
        wrong = await check(impatient if mode == "hang" else probe, backend, "prometheus")
        assert not backend.healthy
        backend.healthy = True
        right = await check(probe, backend, "prometheus")
    assert (wrong.verdict, wrong.needs_credentials) == (Verdict.UNHEALTHY, needs_credentials)
    assert (right.verdict, right.needs_credentials) == (Verdict.HEALTHY, False)


async def test_it_counts_what_it_is_asked() -> None:
    async with Backend("custom") as backend, aiohttp.ClientSession() as http:
        for path in ("/orders", "/orders", "/none"):
            async with http.get(backend.url + path) as response:
                assert response.status == (404 if path == "/none" else 200)
        async with http.post(f"{backend.url}/orders") as response:
            assert response.status == 404
        assert backend.requests == {"/orders": 3, "/none": 1}


def test_a_kind_that_nobody_plays_is_refused() -> None:
    with pytest.raises(ValueError, match="'toaster'"):
        Backend("toaster")


# --- MCP -------------------------------------------------------------------------------------------------------------

BOTH = {"Accept": "application/json, text/event-stream"}


def message(method: str, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **more}


async def test_an_mcp_session_from_its_beginning_to_its_end() -> None:
    async with Backend("mcp") as backend, aiohttp.ClientSession() as http:
        url = f"{backend.url}/mcp"
        async with http.post(url, json=message("initialize", id=1), headers=BOTH) as response:
            session = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
            assert (await response.json())["result"]["protocolVersion"] == "2025-06-18"
        async with http.post(url, json=message("notifications/initialized"), headers=BOTH | session) as response:
            assert response.status == 202
        async with http.post(url, json=message("tools/list", id=2), headers=BOTH | session) as response:
            assert [tool["name"] for tool in (await response.json())["result"]["tools"]] == ["find_runbook"]
        async with http.post(url, json=message("ping", id=3), headers=BOTH | session) as response:
            assert (await response.json())["result"] == {}
        for status in (204, 404):
            async with http.delete(url, headers=session) as response:
                assert response.status == status


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/mcp", BOTH, None, 405),
        ("POST", "/", BOTH, b"{}", 404),
        ("POST", "/mcp", {"Accept": "application/json"}, b"{}", 406),
        ("POST", "/mcp", BOTH, b"{", 400),
        ("POST", "/mcp", BOTH, b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', 400),
    ],
)
async def test_what_an_mcp_server_refuses(
    method: str, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    async with (
        Backend("mcp") as backend,
        aiohttp.request(method, backend.url + path, headers=headers, data=body) as response,
    ):
        assert response.status == status
