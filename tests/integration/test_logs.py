"""The log of the service at work."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dynamic_toolset.sandbox import Sandbox
from tests.integration.processes import ended, events_until, running
from tests.integration.sandboxed import Cluster, until
from tests.waiting import PATIENCE

QUICK = ("healthCheck.interval=300ms", "healthCheck.timeout=10s", "healthCheck.failureThreshold=1")


async def lines_within(process: asyncio.subprocess.Process, seconds: float) -> list[dict[str, Any]]:
    """Return what is written from now on, for so many seconds."""
    assert process.stderr is not None
    events = []
    try:
        async with asyncio.timeout(seconds):
            while line := await process.stderr.readline():
                events.append(json.loads(line))
    except TimeoutError:
        pass
    return events


async def at_rest(process: asyncio.subprocess.Process) -> None:
    """Wait until it has said what there is to be said of its start."""
    async with asyncio.timeout(2 * PATIENCE):
        while await lines_within(process, 1.5):
            pass


async def test_at_rest_there_is_no_line(sandbox: Sandbox, cluster: Cluster, tmp_path: Path) -> None:
    """Though it checks, is asked how it is, is scraped, and gets what is no HTTP."""
    await cluster.add("good")
    bad = await cluster.add("bad", mode="fail")
    async with running(sandbox.url, tmp_path, *QUICK) as process, aiohttp.ClientSession() as session:
        (*_, serving) = await events_until(process, "serving")
        await until(lambda: cluster.listed == {"good"})
        await at_rest(process)
        before = bad.requests.total()

        async def ask() -> None:
            while True:
                for url in (f"{serving['api']}/healthz", f"{serving['api']}/readyz", f"{serving['metrics']}/metrics"):
                    async with session.get(url) as answer:
                        assert answer.status == 200, await answer.text()
                host, port = serving["api"].removeprefix("http://").split(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(b"no such thing\r\n\r\n")
                    await reader.read()
                finally:  # one that is left open is an error of whichever test comes after it
                    writer.close()
                await asyncio.sleep(0.1)

        asking = asyncio.create_task(ask())
        assert await lines_within(process, 3) == []
        await until(lambda: bad.requests.total() > before)
        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])


async def test_a_request_is_one_line_with_its_id(sandbox: Sandbox, cluster: Cluster, tmp_path: Path) -> None:
    async with running(sandbox.url, tmp_path) as process, aiohttp.ClientSession() as session:
        (*_, serving) = await events_until(process, "serving")
        await until(lambda: cluster.config_map)
        await at_rest(process)
        async with session.get(f"{serving['api']}/api/v1/services") as answer:
            request_id = answer.headers["X-Request-ID"]
        (event,) = await events_until(process, "request") + await lines_within(process, 0.5)
        assert (event["event"], event["level"], event["request_id"]) == ("request", "info", request_id)
        assert (event["method"], event["path"], event["status"]) == ("GET", "/api/v1/services", 200)
        assert 0 < event["duration"] < 5
        events = await ended(process)
    assert [event["event"] for event in events if event["event"].startswith("stop")] == ["stopping", "stopped"]


@pytest.mark.parametrize("path", ["/api/v1/services/%1b%5b2J/a", "/api/v1/eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"])
async def test_what_a_caller_sends_is_written_as_what_it_is(
    sandbox: Sandbox, cluster: Cluster, tmp_path: Path, path: str
) -> None:
    async with (
        running(sandbox.url, tmp_path) as process,
        aiohttp.ClientSession(requote_redirect_url=False) as session,
    ):
        (*_, serving) = await events_until(process, "serving")
        await at_rest(process)
        async with session.get(f"{serving['api']}{path}", headers={"Authorization": "Bearer hunter2hunter2"}):
            pass
        events = await events_until(process, "request") + await lines_within(process, 0.5)
    said = json.dumps(events, ensure_ascii=False)
    assert said.isprintable()
    assert "eyJ" not in said
    assert "hunter2" not in said
    assert [event["event"] for event in events] == ["request"]
