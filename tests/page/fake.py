"""A server with the page and an API of the contract's shapes, which does what a real one does seldom.

::

    with Fake() as fake:
        ...  # fake.base_url
        fake.change("monitoring/grafana", health="unhealthy", listed=False)
        fake.go_away()
        fake.come_back()

It runs in a thread of its own; every method may be called from any thread, and returns when it is done.
``python -m tests.page.fake`` serves it on a port, to look at.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

import dynamic_toolset
from tests.page import data
from tests.page.data import Item

FOLDER = Path(dynamic_toolset.__file__).parent / "server" / "page"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
T = TypeVar("T")


def _key(item: Item) -> str:
    whose = f"{item['cluster']}:" if item["cluster"] else ""
    return f"{whose}{item['namespace']}/{item['name']}"


class Fake:
    """The server, as long as the ``with`` block. ``requests`` are the paths that were asked for, with their query."""

    def __init__(self, *, port: int = 0) -> None:
        self.requests: list[str] = []
        self._services = {_key(item): dict(item) for item in data.SERVICES}
        self._details: dict[str, Item] = {}
        self._history = [dict(entry) for entry in data.HISTORY]
        self._problems: list[Item] = []
        self._overrides: Item = {"text": data.OVERRIDES, "effects": list(data.EFFECTS)}
        self._published = True
        self._leads = True
        self._start = "a"
        self._number = itertools.count(100)
        self._revision = 0
        self._token: str | None = None
        self._refusals: dict[str, tuple[int, int]] = {}  # path -> status, Retry-After
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake", daemon=True)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def streams(self) -> int:
        """How many follow the events now."""
        return len(self._streams)

    # --- Scenarios ---------------------------------------------------------------------------------------------------

    def change(self, key: str, **fields: Any) -> None:
        """Change a Service, or add one."""
        whose, _, name = key.partition("/")
        cluster, _, namespace = whose.rpartition(":")

        def edit() -> None:
            item = self._services.get(key) or data.service(namespace, name, "prometheus", cluster=cluster)
            self._services[key] = item | fields
            self._services = dict(sorted(self._services.items(), key=lambda pair: pair[0].split("/")))
            self._tell(key, "service_listed" if self._services[key]["listed"] else "service_not_listed")

        self._call(edit)

    def remove(self, key: str) -> None:
        def edit() -> None:
            self._tell(key, "service_gone")
            del self._services[key]

        self._call(edit)

    def hold(self, number: int) -> None:
        """Know as many candidates as this, instead of what was known."""
        types = ("prometheus", "grafana", "loki", "tempo", "opensearch")
        items = [
            data.service(f"team-{place % 40:02}", f"backend-{place:05}", types[place % 5], 9090)
            for place in range(number)
        ]

        def edit() -> None:
            self._services = {_key(item): item for item in sorted(items, key=lambda one: _key(one).split("/"))}
            self._report()

        self._call(edit)

    def add(self, item: Item, **more: Any) -> None:
        """Add a Service of whatever shape; ``more`` are fields of its detail."""

        def edit() -> None:
            self._services[_key(item)] = item
            self._details[_key(item)] = more
            self._tell(_key(item), "service_listed")

        self._call(edit)

    def tell(self, **fields: Any) -> None:
        """Add an entry to the history."""
        self._call(lambda: self._enter(fields))

    def complain(self, reason: str, message: str, *, published: bool = False) -> None:
        """Have a problem."""

        def edit() -> None:
            self._problems.append({"reason": reason, "message": message})
            self._published = published
            self._report()

        self._call(edit)

    def recover(self) -> None:
        def edit() -> None:
            self._problems.clear()
            self._published = True
            self._report()

        self._call(edit)

    def override(self, text: str | None, effects: tuple[Item, ...] = ()) -> None:
        def edit() -> None:
            self._overrides = {"text": text, "effects": list(effects)}
            self._report()

        self._call(edit)

    def stand_by(self) -> None:
        def edit() -> None:
            self._leads = False
            self._report()

        self._call(edit)

    def require_token(self, token: str | None) -> None:
        """Answer 401 to everybody who does not bring this token."""
        self._call(lambda: setattr(self, "_token", token))

    def refuse(self, path: str, status: int, retry_after: int = 0) -> None:
        """Answer so to requests below a path of the API; status 200 ends it."""
        self._call(lambda: self._refusals.update({path: (status, retry_after)}))

    def reset(self) -> None:
        """Tell the streams that what was missed is not known any more."""
        self._call(lambda: self._send("reset", {}))

    def drop_connections(self) -> None:
        """Cut every connection that is open; new ones are accepted."""
        self._call(self._cut)

    def go_away(self) -> None:
        """Cut every connection, and accept none."""
        self._do(self._leave())

    def come_back(self, *, new: bool = False) -> None:
        """Accept connections again, at the same port; ``new``: as a server that has just started."""
        if new:
            self._call(lambda: setattr(self, "_start", self._start + "b"))
        self._do(self._site_up())

    # --- How it works ------------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, work: Callable[[], object]) -> None:
        async def run() -> None:
            work()

        self._do(run())

    async def _listen(self) -> None:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self._file("index.html")),
                *(web.get(f"/{name}", self._file(name)) for name in ("page.css", "page.js", "favicon.svg")),
                *(
                    web.get(f"/page/{file.name}", self._file(file.name))
                    for file in FOLDER.glob("*.js")
                    if file.name != "page.js"
                ),
                web.get("/api/v1/statistics", self._statistics),
                web.get("/api/v1/toolset", self._toolset),
                web.get("/api/v1/services", self._list),
                web.get("/api/v1/services/{namespace}/{name}", self._detail),
                web.get("/api/v1/history", self._past),
                web.get("/api/v1/events", self._events),
                web.post("/api/v1/discover", self._discover),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._site_up()

    async def _site_up(self) -> None:
        assert self._runner
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _leave(self) -> None:
        assert self._site
        await self._site.stop()
        self._cut()

    async def _end(self) -> None:
        for queue in self._streams:
            queue.put_nowait(None)
        assert self._runner
        await self._runner.cleanup()

    def _cut(self) -> None:
        assert self._runner
        assert self._runner.server
        for queue in self._streams:
            queue.put_nowait(None)
        for connection in list(self._runner.server.connections):
            if connection.transport:
                connection.transport.abort()

    def _file(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.FileResponse(FOLDER / name, headers=SECURITY_HEADERS | {"Cache-Control": "no-cache"})

        return answer

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        if not request.path.startswith("/api/"):
            return await handler(request)
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return _problem(request, 401, "Unauthorized", "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        for path, (status, seconds) in self._refusals.items():
            if request.path.startswith(path) and status != 200:
                more = {"Retry-After": str(seconds)} if seconds else {}
                return _problem(request, status, "Refused", "the fake was told to", more)
        return await handler(request)

    async def _statistics(self, request: web.Request) -> web.Response:
        return _json(data.statistics(self._services.values(), version="0.1.0", leads=self._leads))

    async def _toolset(self, request: web.Request) -> web.Response:
        etag = f'"{self._start}{self._revision}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        answer = {
            "configMap": {"namespace": "holmes", "name": "kubernaut-toolset-config"},
            "published": self._published,
            "documents": [
                {"key": "custom_toolset.yaml", "text": data.CUSTOM_TOOLSET},
                {"key": "toolset.json", "text": data.TOOLSET_JSON},
            ],
            "overrides": self._overrides,
            "problems": self._problems,
        }
        return _json(answer, {"ETag": etag})

    async def _list(self, request: web.Request) -> web.Response:
        decisions = request.query.getall("decision", [])
        items = [item for item in self._services.values() if not decisions or item["decision"] in decisions]
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", "50"))
        more = str(start + limit) if start + limit < len(items) else None
        return _json({"items": items[start : start + limit], "total": len(items), "continue": more})

    async def _detail(self, request: web.Request) -> web.Response:
        key = _key({"cluster": request.query.get("cluster", ""), **request.match_info})
        item = self._services.get(key)
        if item is None:
            return _problem(request, 404, "Not Found", "there is no such Service")
        return _json(data.detail(item) | self._details.get(key, {}))

    async def _past(self, request: web.Request) -> web.Response:
        return _json({"items": self._history[:100]})

    async def _discover(self, request: web.Request) -> web.Response:
        self._report()
        return web.json_response({"message": "looking again"}, status=202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        last = self._history[0]["id"] if self._history else f"{self._start}-0"
        newest = f"{self._start}-{last.split('-')[1]}"
        after = request.headers.get("Last-Event-ID")
        queue.put_nowait(_event("hello", {"version": "0.1.0", "lastEventId": newest}, "" if after else newest))
        if after and after.split("-")[0] != self._start:
            queue.put_nowait(_event("reset", {}, newest))
        self._streams.add(queue)
        try:
            while (piece := await queue.get()) is not None:
                await response.write(piece)
        except ConnectionError:
            pass  # the page went away
        finally:
            self._streams.discard(queue)
        return response

    def _send(self, name: str, value: Item, identity: str = "") -> None:
        for queue in self._streams:
            queue.put_nowait(_event(name, value, identity))

    def _report(self) -> None:
        self._revision += 1
        self._send("report", {"etag": f'"{self._start}{self._revision}"'})

    def _enter(self, fields: Item) -> None:
        number = next(self._number)
        entry = data.change(number, 0, "published") | fields | {"id": f"{self._start}-{number}"}
        self._history.insert(0, entry)
        self._send("change", entry, entry["id"])

    def _tell(self, key: str, event: str) -> None:
        item = self._services[key]
        told = {name: item[name] or "" for name in ("type", "endpoint", "health", "reason")}
        about = {part: item[part] for part in ("namespace", "name", "cluster")}
        self._enter({"event": event, "service": about, "cause": f"Service {key} changed"} | told)
        self._report()


def _event(name: str, value: Item, identity: str = "") -> bytes:
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def _json(value: Item, headers: dict[str, str] | None = None) -> web.Response:
    quota = {"RateLimit-Policy": '"default";q=100;w=60', "Cache-Control": "no-store"}
    return web.json_response(value, headers=quota | (headers or {}))


def _problem(
    request: web.Request, status: int, title: str, detail: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": request.path}
    return web.json_response(
        body | {"requestId": "0123456789"}, status=status, content_type="application/problem+json", headers=headers
    )


def main() -> None:
    """Serve until interrupted."""
    with Fake(port=8787) as fake:
        fake.complain(data.PROBLEM["reason"], data.PROBLEM["message"], published=True)
        print(fake.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
