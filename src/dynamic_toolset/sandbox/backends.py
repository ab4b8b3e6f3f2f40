"""Small HTTP servers that answer like the products that we look for, as far as a health check looks.

The paths and bodies are those of the products' own documentation: Prometheus ``/-/healthy`` and buildinfo, Grafana
``/api/health``, Loki ``/ready``, the MCP transport "Streamable HTTP" (2025-06-18), and so on.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiohttp import web
from msgspec import Struct

Mode = Literal["serve", "fail", "hang", "unauthorized"]
"""How a backend answers: as its product does, with 503, never, or with 401."""

_GO_BUILD = {
    "version": "3.5.0",
    "revision": "8be3a9560fbdd18a94dedec4b747c35178177202",
    "branch": "HEAD",
    "buildUser": "root@sandbox",
    "buildDate": "20250714-12:00:00",
    "goVersion": "go1.24.5",
}


class _Page(Struct, frozen=True):
    """One answer: text, or a value that is sent as JSON."""

    body: Any
    headers: Mapping[str, str] = {}


def _success(data: object) -> _Page:
    return _Page({"status": "success", "data": data})


def _elastic(tagline: str, **version: str) -> _Page:
    body = {"name": "node-0", "cluster_name": "sandbox", "version": {"number": "2.19.0", **version}, "tagline": tagline}
    return _Page(body)


_CLUSTER_HEALTH = _Page({"cluster_name": "sandbox", "status": "green", "number_of_nodes": 1})

_PAGES: Mapping[str, Mapping[str, _Page]] = {
    "prometheus": {
        "/-/healthy": _Page("Prometheus Server is Healthy.\n"),
        "/-/ready": _Page("Prometheus Server is Ready.\n"),
        "/api/v1/status/buildinfo": _success(_GO_BUILD),
        "/api/v1/query": _success({"resultType": "vector", "result": []}),
    },
    "thanos": {
        "/-/healthy": _Page("OK"),
        "/-/ready": _Page("OK"),
        "/api/v1/status/buildinfo": _success(_GO_BUILD),
        "/api/v1/stores": _success({"sidecar": []}),
    },
    "victoriametrics": {
        "/health": _Page("OK"),
        "/-/healthy": _Page("VictoriaMetrics is Healthy.\n"),
        "/api/v1/status/buildinfo": _success({"version": "2.24.0"}),
        "/metrics": _Page('vm_app_version{version="victoria-metrics-20250714-v1.122.0", short_version="v1.122.0"} 1\n'),
        "/": _Page("<h2>Single-node VictoriaMetrics</h2>"),
    },
    "victorialogs": {
        "/health": _Page("OK"),
        "/metrics": _Page('vm_app_version{version="victoria-logs-20250714-v1.26.0", short_version="v1.26.0"} 1\n'),
        "/": _Page("<h2>Single-node VictoriaLogs</h2>"),
    },
    "mimir": {
        "/ready": _Page("ready\n"),
        "/api/v1/status/buildinfo": _success({**_GO_BUILD, "application": "Grafana Mimir", "features": {}}),
        "/prometheus/api/v1/status/buildinfo": _success({**_GO_BUILD, "application": "Grafana Mimir", "features": {}}),
    },
    "grafana": {
        "/api/health": _Page(
            {"database": "ok", "version": "12.0.2", "commit": "5bda17e7c1cb313eb96266f2fdda73a6b35c3977"}
        ),
    },
    "loki": {
        "/ready": _Page("ready\n"),
        "/loki/api/v1/status/buildinfo": _Page(_GO_BUILD),
        "/loki/api/v1/labels": _success(["namespace", "pod"]),
    },
    "tempo": {
        "/ready": _Page("ready\n"),
        "/api/echo": _Page("echo"),
        "/api/status/buildinfo": _Page(_GO_BUILD),
    },
    "jaeger": {
        "/": _Page("<!doctype html><html><head><title>Jaeger UI</title></head><body></body></html>"),
        "/api/services": _Page({"data": ["checkout"], "total": 1, "limit": 0, "offset": 0, "errors": None}),
        "/api/v3/services": _Page({"services": ["checkout"]}),
    },
    "alertmanager": {
        "/-/healthy": _Page("OK"),
        "/-/ready": _Page("OK"),
        "/api/v2/status": _Page(
            {
                "cluster": {"name": "01SANDBOX", "peers": [], "status": "ready"},
                "config": {"original": "route:\n  receiver: none\nreceivers:\n- name: none\n"},
                "uptime": "2025-07-14T12:00:00.000Z",
                "versionInfo": _GO_BUILD,
            }
        ),
    },
    "elasticsearch": {
        "/": _Page(
            _elastic("You Know, for Search", build_flavor="default", number="8.18.3").body,
            {"X-elastic-product": "Elasticsearch"},
        ),
        "/_cluster/health": _Page(_CLUSTER_HEALTH.body, {"X-elastic-product": "Elasticsearch"}),
    },
    "opensearch": {
        "/": _elastic("The OpenSearch Project: https://opensearch.org/", distribution="opensearch"),
        "/_cluster/health": _CLUSTER_HEALTH,
    },
    "rabbitmq": {
        "/": _Page("<!doctype html><html><head><title>RabbitMQ Management</title></head><body></body></html>"),
        "/api/health/checks/alarms": _Page({"status": "ok"}),
        "/api/overview": _Page(
            {
                "rabbitmq_version": "4.1.2",
                "management_version": "4.1.2",
                "product_name": "RabbitMQ",
                "cluster_name": "sandbox",
            }
        ),
    },
    "custom": {
        "/": _Page({"service": "orders", "links": ["/orders", "/healthz"]}),
        "/healthz": _Page({"status": "ok"}),
        "/health": _Page({"status": "ok"}),
        "/orders": _Page([{"id": 1, "state": "paid"}]),
    },
}

_WELCOME = _Page("<!doctype html><html><body><h1>It works!</h1></body></html>")
_SESSION = "Mcp-Session-Id"

KINDS = (*_PAGES, "mcp", "mcp-sse", "welcome")
"""What a backend can be: a product; an MCP server that answers in JSON, or in a stream of events; or a page that
answers 200 to everything."""


class Backend:
    """A server that answers like ``kind``, on real HTTP; use it with ``async with``.

    ``mode`` and ``healthy`` may be changed at any time, and hold for the next request. ``requests`` counts the
    requests by path, ``sessions`` holds the ids of the MCP sessions that are open. Port 0 takes a free port.
    """

    def __init__(self, kind: str, *, host: str = "127.0.0.1", port: int = 0, mode: Mode = "serve") -> None:
        if kind not in KINDS:
            raise ValueError(f"no backend answers like {kind!r}; there are {', '.join(KINDS)}")
        self.kind = kind
        self.host = host
        self.port = port
        self.mode: Mode = mode
        self.requests: Counter[str] = Counter()
        self.sessions: set[str] = set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{self.host}:{self.port}"

    @property
    def healthy(self) -> bool:
        """Whether it serves. Set it to False to have every request answered with 503."""
        return self.mode == "serve"

    @healthy.setter
    def healthy(self, healthy: bool) -> None:
        self.mode = "serve" if healthy else "fail"

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests[request.path] += 1
        match self.mode:
            case "hang":
                await asyncio.Event().wait()
            case "fail":
                return web.Response(status=503, text="Service Unavailable\n")
            case "unauthorized":
                return web.Response(status=401, text="Unauthorized\n", headers={"WWW-Authenticate": "Basic"})
        if self.kind == "welcome":
            return _response(_WELCOME)
        if self.kind.startswith("mcp"):
            return await self._mcp(request)
        page = _PAGES[self.kind].get(request.path)
        if page is None or request.method not in {"GET", "HEAD"}:
            return web.Response(status=404, text="404 page not found\n")
        return _response(page)

    # --- MCP: modelcontextprotocol.io/specification/2025-06-18/basic/transports, "Streamable HTTP" -------------------

    async def _mcp(self, request: web.Request) -> web.Response:
        if request.path.rstrip("/") != "/mcp":
            return web.Response(status=404, text="Not Found")
        session = request.headers.get(_SESSION, "")
        match request.method:
            case "POST":
                return await self._mcp_message(request, session)
            case "DELETE" if session in self.sessions:
                self.sessions.discard(session)
                return web.Response(status=204)
            case "DELETE":
                return web.Response(status=404, text="Session not found")
        return web.Response(status=405, text="Method Not Allowed", headers={"Allow": "POST, DELETE"})

    async def _mcp_message(self, request: web.Request, session: str) -> web.Response:
        accepted = request.headers.get("Accept", "")
        if not all(kind in accepted for kind in ("application/json", "text/event-stream")):
            return web.Response(status=406, text="Client must accept both application/json and text/event-stream")
        try:
            message = msgspec.json.decode(await request.read(), type=_Message)
        except msgspec.DecodeError:
            return web.Response(status=400, text="Parse error")
        if message.method == "initialize":
            session = secrets.token_hex(16)
            self.sessions.add(session)
            return self._mcp_result(message, _MCP_SERVER, {_SESSION: session})
        if session not in self.sessions:
            return web.Response(status=400, text="Bad Request: no valid session ID provided")
        if message.id is None:
            return web.Response(status=202)
        if message.method == "tools/list":
            return self._mcp_result(message, {"tools": [_MCP_TOOL]}, {})
        return self._mcp_result(message, {}, {})

    def _mcp_result(self, message: "_Message", result: object, headers: Mapping[str, str]) -> web.Response:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "result": result})
        if self.kind == "mcp-sse":
            stream = b"event: message\ndata: " + body + b"\n\n"
            return web.Response(body=stream, content_type="text/event-stream", headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)


class _Message(Struct):
    method: str
    id: int | str | None = None


_MCP_SERVER = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {"listChanged": False}},
    "serverInfo": {"name": "runbooks", "version": "1.0.0"},
}
_MCP_TOOL = {
    "name": "find_runbook",
    "description": "Finds the runbook for an alert",
    "inputSchema": {"type": "object", "properties": {"alert": {"type": "string"}}},
}


def _response(page: _Page) -> web.Response:
    if isinstance(page.body, str):
        content_type = "text/html" if page.body.startswith("<") else "text/plain"
        return web.Response(text=page.body, content_type=content_type, headers=page.headers)
    return web.Response(body=msgspec.json.encode(page.body), content_type="application/json", headers=page.headers)
