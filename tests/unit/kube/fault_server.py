"""A Kubernetes API that does as it is told, over real TCP: the other end of every fault that can be thought of."""

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from dynamic_toolset.kube.objects import ObjectKey
from tests.waiting import PATIENCE

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

TLS = Path(__file__).with_name("tls")


async def until(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Return the first true value of ``condition``."""
    async with asyncio.timeout(within):
        while not (value := condition()):
            await asyncio.sleep(0.002)
        return value


def server_context(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / f"{name}.crt", TLS / f"{name}.key")
    return context


# --- What the API says ----------------------------------------------------------------------------------------------


def service(name: str, version: int | str, *, namespace: str = "default", **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata | {"annotations": annotations}, "spec": {"ports": [{"port": 80}]}}


def undecodable(name: str, version: int) -> dict[str, Any]:
    broken = service(name, version)
    broken["spec"]["ports"] = [{"port": "eighty"}]
    return broken


def key(name: str, namespace: str = "default") -> ObjectKey:
    return ObjectKey(namespace, name)


def event(kind: str, content: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": content}, ensure_ascii=False).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Service", "metadata": {"resourceVersion": str(version)}})


def status(code: int, reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, **more}


def answer(body: Any, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a body: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content, status=code, content_type="application/json", headers=headers)

    return respond


def refusal(code: int, reason: str, message: str = "", *, headers: Mapping[str, str] | None = None) -> Answer:
    return answer(status(code, reason, message), code=code, headers=headers)


def listing(items: Iterable[Mapping[str, Any]], version: int | str, token: str = "") -> Answer:
    metadata = {"resourceVersion": str(version)} | ({"continue": token} if token else {})
    return answer({"kind": "ServiceList", "metadata": metadata, "items": list(items)})


def watching(*chunks: bytes) -> Answer:
    """A watch that sends this and ends."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = await _open_stream(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return respond


def reset(request: web.Request) -> None:
    """Break the connection as a crash does: RST instead of FIN."""
    transport = request.transport
    assert transport is not None
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def broken(request: web.Request) -> web.StreamResponse:
    """No answer but a reset."""
    reset(request)
    return web.Response()


async def hanging(_: web.Request) -> web.StreamResponse:
    """No answer at all, for longer than any test lasts."""
    await asyncio.sleep(60)
    return web.Response()


async def _open_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    return response


# --- The server -----------------------------------------------------------------------------------------------------


class OpenWatch:
    """The server's end of a watch that the test drives."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self.query = dict(request.query)
        self._request = request
        self._response = response
        self.ended = asyncio.Event()

    async def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            await self._response.write(chunk)

    def end(self) -> None:
        self.ended.set()

    def reset(self) -> None:
        reset(self._request)
        self.ended.set()


class FaultServer:
    """Answers lists, watches and everything else with what the test has put into the queue for it.

    Without a scripted answer a list gives ``objects`` at ``version``, and a watch stays open, to be driven through
    ``watch()``. ``requests`` keeps what was asked: ``LIST``, ``WATCH`` or the HTTP method, and the request.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: list[dict[str, Any]] = []
        self.version = 100
        self.lists: deque[Answer] = deque()
        self.watches: deque[Answer] = deque()
        self.others: deque[Answer] = deque()
        self.requests: list[tuple[str, web.Request]] = []
        self.bodies: list[bytes] = []
        self._opened: asyncio.Queue[OpenWatch] = asyncio.Queue()
        self._tls = tls
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Come up, at the same address as before."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def watch(self) -> OpenWatch:
        """Return the next watch that was opened and not answered by the script."""
        async with asyncio.timeout(PATIENCE):
            return await self._opened.get()

    def count(self, kind: str) -> int:
        return sum(asked == kind for asked, _ in self.requests)

    def queries(self, kind: str) -> list[dict[str, str]]:
        return [dict(request.query) for asked, request in self.requests if asked == kind]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        if request.method != "GET" or not request.path.endswith("/services"):
            self.requests.append((request.method, request))
            return await self.others.popleft()(request)
        if "watch" in request.query:
            self.requests.append(("WATCH", request))
            return await (self.watches.popleft() if self.watches else self._hold)(request)
        self.requests.append(("LIST", request))
        return await (self.lists.popleft() if self.lists else listing(self.objects, self.version))(request)

    async def _hold(self, request: web.Request) -> web.StreamResponse:
        opened = OpenWatch(request, await _open_stream(request))
        self._opened.put_nowait(opened)
        await opened.ended.wait()
        return opened._response
