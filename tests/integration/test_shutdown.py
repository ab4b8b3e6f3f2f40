"""The end, in the order that Kubernetes needs: nobody who does what endpoints do notices it."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dynamic_toolset.sandbox.resources import LEASES
from tests.connection import PATIENCE, Connection
from tests.integration.processes import running
from tests.integration.sandboxed import TARGET, Cluster, until
from tests.integration.serving import Served

Serve = Callable[..., Awaitable[Served]]

SERVICES, EVENTS = "/api/v1/services", "/api/v1/events"

LONG_ENOUGH = "6s"
"""The delay within which all clients have learnt of it, though the machine stands still for a moment."""

BODY = b"toolsets: {}\n"
BEGUN = (
    b"POST /api/v1/validate?kind=overrides HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/yaml\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)
"""A request that is under way until its body comes."""


@asynccontextmanager
async def connected(port: int, data: bytes = b"") -> AsyncIterator[Connection]:
    connection = await Connection.open(port, data)
    try:
        yield connection
    finally:
        await connection.close()


async def status_of(port: int, path: str) -> int:
    async with connected(port) as connection:
        return (await connection.get(path)).status


async def until_status(port: int, path: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await status_of(port, path) != status:
            await asyncio.sleep(0.01)


async def until_refused(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await (await Connection.open(port)).close()
            except OSError:
                return
            await asyncio.sleep(0.01)


class Clients:
    """Clients that fire all the time, each over a connection that it keeps, until readiness has been 503 for a while.

    That is what endpoints do: who follows them learns of it, a moment later. ``failures`` is what nobody may notice.
    """

    GRACE = 0.5

    def __init__(self, port: int, count: int = 12) -> None:
        self.port = port
        self.answered = 0
        self.failures: list[str] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._fire(number)) for number in range(count)]
        self._tasks.append(asyncio.create_task(self._follow()))

    async def stopped(self) -> None:
        """Wait until readiness has said to stop, and everybody has."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)

    async def _follow(self) -> None:
        while await status_of(self.port, "/readyz") == 200:
            await asyncio.sleep(0.02)
        await asyncio.sleep(self.GRACE)
        self._stop.set()

    async def _fire(self, number: int) -> None:
        path = (SERVICES, "/api/v1/toolset", "/healthz")[number % 3]
        connection: Connection | None = None
        while not self._stop.is_set():
            try:
                connection = connection or await Connection.open(self.port)
                answer = await connection.get(path)
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"{path}: {error!r}")
                return
            self.answered += 1
            if answer.status != 200:
                self.failures.append(f"{path}: {answer.status}")
            if answer.headers.get("connection") == "close":
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()


def port_of(served: Served) -> int:
    number: int = served.ports.api.socket.getsockname()[1]
    return number


# --- In this process -------------------------------------------------------------------------------------------------


async def test_the_service_is_unready_at_once_and_serves_until_the_endpoints_have_learnt_of_it(serve: Serve) -> None:
    served = await serve(server={"shutdownDelay": "4s"})
    port = port_of(served)
    ending = asyncio.create_task(served.server.end())
    await asyncio.sleep(0)
    assert not ending.done()
    unready = await served.get("/readyz")
    assert unready.status == 503
    assert "[-]not ending failed: it has been told to end" in unready.body.decode()
    for path in ("/healthz", SERVICES, "/"):
        answer = await served.get(path)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert not ending.done()
    await ending
    await asyncio.wait_for(served.serving, PATIENCE)
    await until_refused(port)


async def test_streams_are_told_and_then_they_end(serve: Serve) -> None:
    served = await serve(server={"shutdownDelay": "200ms"})
    async with served.events() as events:
        assert (await anext(events)).name == "hello"
        ending = asyncio.create_task(served.server.end())
        async with asyncio.timeout(PATIENCE):
            names = [event.name async for event in events]
        assert (names[-1], names.count("bye")) == ("bye", 1)
        await ending
    await asyncio.wait_for(served.serving, PATIENCE)


async def test_a_request_under_way_is_answered_however_late_it_comes_to_its_end(serve: Serve) -> None:
    served = await serve()
    async with connected(port_of(served), BEGUN) as connection:
        await under_way(served)
        await served.server.end()
        await until_refused(port_of_listener(served))
        assert not served.serving.done()
        connection.say(BODY)
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    await asyncio.wait_for(served.serving, PATIENCE)


async def under_way(served: Served) -> None:
    """Wait until what was said before has been heard: who comes later is answered later."""
    assert await status_of(port_of(served), "/healthz") == 200


def port_of_listener(served: Served) -> int:
    return int(served.base_url.rpartition(":")[2])


async def test_a_request_that_does_not_end_is_broken_off_in_time(serve: Serve) -> None:
    served = await serve(server={"shutdownDelay": "0s", "shutdownDeadline": "2s"})
    async with connected(port_of(served), BEGUN) as connection:
        await under_way(served)
        began = time.monotonic()
        await served.server.end()
        await asyncio.wait_for(served.serving, PATIENCE)
        assert time.monotonic() - began < 10
        assert b" 200 " not in await connection.end()


async def test_a_request_that_does_not_end_holds_nobody_up_who_is_in_a_hurry(serve: Serve) -> None:
    served = await serve(server={"shutdownDelay": "0s", "shutdownDeadline": "10m"})
    async with connected(port_of(served), BEGUN):
        await under_way(served)
        await served.server.end()
        served.server.break_off()
        await asyncio.wait_for(served.serving, PATIENCE)


async def test_no_request_is_lost_while_it_ends(cluster: Cluster, serve: Serve) -> None:
    for name in ("a", "b", "c"):
        await cluster.add(name)
    served = await serve(server={"shutdownDelay": LONG_ENOUGH})
    clients = Clients(port_of(served))
    await until(lambda: clients.answered > 100)
    before = clients.answered
    await served.server.end()
    await asyncio.wait_for(served.serving, PATIENCE)
    await clients.stopped()
    assert clients.failures == []
    assert clients.answered > before


# --- As a process ----------------------------------------------------------------------------------------------------


class Program:
    """The process, with everything that it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.events.append(json.loads(line))

    def said(self, name: str) -> dict[str, Any] | None:
        return next((event for event in self.events if event["event"] == name), None)

    async def port(self) -> int:
        serving = await until(lambda: self.said("serving"), 30)
        return int(serving["api"].rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Return its exit code, once it has ended."""
        async with asyncio.timeout(30):
            code = await self.process.wait()
            await self._reading
        return code


@asynccontextmanager
async def program(cluster: Cluster, folder: Path, **settings: str) -> AsyncIterator[Program]:
    assignments = [f"server.{name}={value}" for name, value in {"rateLimit": "0", **settings}.items()]
    async with running(cluster.sandbox.url, folder, *assignments) as process:
        yield Program(process)


def holder(cluster: Cluster) -> str | None:
    lease = cluster.sandbox._store.objects(LEASES).get(TARGET)
    return lease["spec"].get("holderIdentity") if lease else None


async def test_the_process_ends_in_order_and_loses_no_request(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.add("a")
    async with program(cluster, tmp_path, shutdownDelay=LONG_ENOUGH) as subject:
        port = await subject.port()
        await until_status(port, "/readyz", 200)
        clients = Clients(port, 6)
        async with connected(port, f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) as stream, \
                connected(port, BEGUN) as busy:  # fmt: skip
            await until(lambda: clients.answered > 50)
            subject.send(signal.SIGTERM)
            await until_status(port, "/readyz", 503)
            assert await status_of(port, "/healthz") == 200
            await clients.stopped()
            assert clients.failures == []
            assert b"event: bye\ndata: {}\n\n" in await stream.end()
            assert holder(cluster), "while a request is under way the lease is not given back"
            busy.say(BODY)
            assert (await busy.answer()).status == 200
        assert await subject.ended() == 0
        assert holder(cluster) == ""
        assert not subject.said("died")
        assert subject.events[-1]["event"] == "stopped"
        names = [event["event"] for event in subject.events]
        assert names.index("stopping") < names.index("standing_by") < names.index("stopped")


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]]
)
async def test_who_cannot_wait_need_not(cluster: Cluster, tmp_path: Path, signals: list[signal.Signals]) -> None:
    async with program(cluster, tmp_path, shutdownDelay="5m", shutdownDeadline="10m") as subject:
        port = await subject.port()
        await until_status(port, "/readyz", 200)
        for number in signals[:-1]:
            subject.send(number)
            await until_status(port, "/readyz", 503)
        subject.send(signals[-1])
        assert await subject.ended() == 0
        assert holder(cluster) == ""


async def test_a_second_signal_breaks_off_what_is_under_way(cluster: Cluster, tmp_path: Path) -> None:
    async with program(cluster, tmp_path, shutdownDelay="0s", shutdownDeadline="10m") as subject:
        port = await subject.port()
        await until_status(port, "/readyz", 200)
        async with connected(port, BEGUN):
            await until_status(port, "/healthz", 200)
            subject.send(signal.SIGTERM)
            await until_refused(port)
            subject.send(signal.SIGTERM)
            assert await subject.ended() == 0
        assert holder(cluster) == ""
        assert subject.events[-1]["event"] == "stopped"


async def test_a_signal_before_the_ports_are_served_is_not_lost(cluster: Cluster, tmp_path: Path) -> None:
    async with program(cluster, tmp_path, shutdownDelay="0s") as subject:
        await until(lambda: subject.said("starting"), 30)
        subject.send(signal.SIGTERM)
        assert await subject.ended() == 0
        assert not subject.said("died")
