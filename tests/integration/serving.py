"""The whole service in this process: sandbox, supervisor and server, on ports of its own.

In an async test::

    async def test_a_service_is_shown(served: Served) -> None:
        await served.cluster.add("orders")
        ...  # served.base_url, await served.get("/api/v1/services")

In one that is not, such as one of a browser, it runs in a thread::

    with in_thread() as served:
        served.run(served.cluster.add("orders"))
        page.goto(served.base_url)
"""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.sources import Fixed
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.server.ports import Ports
from dynamic_toolset.server.server import Server
from dynamic_toolset.server.source import Source
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import Settings
from tests.integration.sandboxed import CATALOG, NAMESPACE, TARGET, Cluster, settings, until
from tests.waiting import PATIENCE

T = TypeVar("T")

AUDIENCE = "dynamic-toolset"

SERVER: Mapping[str, Any] = {
    "address": "127.0.0.1", "port": 0, "metricsPort": 0, "auth": "none", "rateLimit": 0, "shutdownDelay": "0s"
}  # fmt: skip


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    data: Any
    id: str | None


class Served:
    """The service at work, and a client of it."""

    def __init__(self, cluster: Cluster, how: Settings, client: Client, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.settings = how
        self.telemetry = Telemetry()
        self.supervisor = Supervisor(client, how, CATALOG, observer=self.telemetry)
        self.ports = Ports(how.server)
        self.source = Source(self.supervisor, self.telemetry)
        sources = Fixed(how, CATALOG)
        self.configuration = Configuration(sources, sources.read(), self.supervisor)
        self.server = Server(client, how.server, self.ports, self.source, self.telemetry, self.configuration)
        self.session = session
        self.base_url = self.ports.api.url
        self.metrics_url = self.ports.metrics.url

    def start(self) -> None:
        self.working = asyncio.create_task(self.supervisor.run(), name="supervisor")
        self.serving = asyncio.create_task(self.server.run(), name="server")

    async def stop(self) -> None:
        """End in the order of the command; once is enough."""
        await self.server.end(at_once=True)
        async with asyncio.timeout(20):
            await self.serving
            self.supervisor.stop()
            await self.working

    # --- A client ----------------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request for a path, which is sent as it stands."""
        async with self.session.request(method, URL(self.base_url + path, encoded=True), **options) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    @asynccontextmanager
    async def events(self, path: str = "/api/v1/events", **options: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Follow the events, for as long as the block takes."""
        async with self.session.get(self.base_url + path, timeout=_NO_TIMEOUT, **options) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            yield _events(answer)

    async def following(self, events: AsyncIterator[Event], name: str) -> Event:
        """Return the next event of this name; others before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while (event := await anext(events)).name != name:
                pass
            return event


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text.startswith(":"):
            continue
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}


@asynccontextmanager
async def serving(cluster: Cluster, *, started: bool = True, **changes: Any) -> AsyncIterator[Served]:
    """Serve with these settings, ``server=`` merged into what a test needs, for as long as the block takes.

    ``started``: wait until the first pass is over.
    """
    how = settings(**{**changes, "server": {**SERVER, **changes.get("server", {})}})
    connector = aiohttp.TCPConnector(limit=0)
    async with Client(static(cluster.sandbox.url)) as client, aiohttp.ClientSession(connector=connector) as session:
        served = Served(cluster, how, client, session)
        served.start()
        try:
            if started:
                await until(lambda: served.supervisor.controller.statistics().passes or served.working.done())
            yield served
        finally:
            await served.stop()
            gc.unfreeze()  # what the service has done for the life of its process


# --- In a thread -----------------------------------------------------------------------------------------------------


class Background:
    """The service in a thread of its own. ``run`` lets a coroutine run there, and returns what it does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, served: Served) -> None:
        self._loop = loop
        self.served = served
        self.cluster = served.cluster
        self.base_url = served.base_url

    def get(self, path: str, **options: Any) -> Answer:
        return self.run(self.served.get(path, **options))

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        return self.run(self.served.ask(method, path, **options))

    def run(self, coroutine: Coroutine[Any, Any, T], within: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(within)


@contextmanager
def in_thread(**changes: Any) -> Iterator[Background]:
    """Serve from a thread, with a cluster of its own, for as long as the block takes."""
    ready: list[Background] = []
    failure: list[BaseException] = []
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with Sandbox() as sandbox, AsyncExitStack() as backends:
            cluster = Cluster(sandbox, backends)
            for name in (NAMESPACE, TARGET.namespace):
                await cluster.add_namespace(name)
            async with serving(cluster, **changes) as served:
                ready.append(Background(asyncio.get_running_loop(), served))
                begun.set()
                await asyncio.to_thread(over.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            failure.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="served")
    thread.start()
    begun.wait(60)
    try:
        if not failure:
            yield ready[0]
    finally:
        over.set()
        thread.join(60)
    if failure:
        raise failure[0]
