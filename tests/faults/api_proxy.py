"""A reverse proxy for the Kubernetes API, on which a test puts faults::

    with ApiProxy(cluster) as proxy:
        subject = program(server=proxy)
        with proxy.refusing(503, verb="list", resource="services", times=3) as refused:
            eventually(lambda: len(refused) == 3)
        with proxy.editing(twice, verb="watch"):
            ...
        proxy.wire.cut()

It passes requests on with the caller's own credentials, and remembers them (``requests``). Faults on bytes are those of
its ``wire``, a TCP proxy in front of it.
"""

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.cluster.cluster import Cluster
from tests.cluster.programs import system_program
from tests.faults.loop import LoopThread
from tests.faults.tcp_proxy import TcpProxy

Parts = AsyncIterator[bytes]
"""An answer on its way: a watch line by line, each of them an event; anything else as one part, its whole body."""

Edit = Callable[[Parts], Parts]
"""Changes an answer on its way. What has the state of one answer has it in its own variables."""

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
# These speak of one connection (RFC 9110, section 7.6.1), or of bytes that the proxy writes anew.
_NOT_PASSED_ON = {"connection", "host", "accept-encoding", "content-length", "content-encoding", "transfer-encoding"}


class Cut(Exception):
    """Raised by an edit: the connection breaks here."""


@dataclass
class Request:
    """A request as it came in. ``verb`` and ``resource`` are those of RBAC, ``time`` is monotonic, in seconds.

    ``status`` is that of the answer once there is one.
    """

    time: float
    verb: str
    resource: str
    namespace: str
    name: str
    query: Mapping[str, str]
    token: str
    status: int | None = None


@dataclass
class _Fault:
    """What happens to some requests: waiting until ``opened``, a refusal in the API's place, an edit of its answer."""

    concerns: Callable[[Request], bool]
    times: int | None
    opened: asyncio.Event | None = None
    refusal: tuple[int, Mapping[str, str]] | None = None
    edit: Edit | None = None
    requests: list[Request] = field(default_factory=list)

    def takes(self, request: Request) -> bool:
        if self.times is not None and len(self.requests) >= self.times:
            return False
        if not self.concerns(request):
            return False
        self.requests.append(request)
        return True


class ApiProxy:
    """An API server at ``url``, with the certificate in ``ca_file``, for as long as the ``with`` block.

    ``delay`` is how long each answer is held back, in seconds. ``page_size`` makes the pages of lists so small, so that
    a list of few objects has several; None leaves them.

    Each kind of fault is a context manager. It concerns requests of a ``verb``, a ``resource``, a ``namespace`` (empty
    for a list or watch of all namespaces), a ``name``, and ``where`` a function says so, at most so many ``times``;
    it gives the list of those that it has concerned so far. A watch that is open goes on as it began.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.delay = 0.0
        self.page_size: int | None = None
        self.requests: list[Request] = []
        self._cluster = cluster
        self._faults: list[_Fault] = []
        self._watches: dict[web.StreamResponse, Request] = {}
        self._loop = LoopThread()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            cleanup.enter_context(self._loop)
            port = self._loop.run(self._start())
            cleanup.callback(lambda: self._loop.run(self._stop()))
            self.wire = cleanup.enter_context(TcpProxy(("127.0.0.1", port)))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.wire.address[1]}"

    @property
    def ca_file(self) -> Path:
        return self._cluster.folder / "api-proxy.crt"

    def asked(self, *, since: float = 0.0, **which: Any) -> list[Request]:
        """Return the requests so far that these words choose, from a (monotonic) time on."""
        chosen = _choice(**which)
        return [request for request in self.requests if request.time >= since and chosen(request)]

    # --- Faults ------------------------------------------------------------------------------------------------------

    @contextmanager
    def refusing(self, code: int, *, retry_after: int | None = None, **which: Any) -> Iterator[list[Request]]:
        """Answer with an error in the API's place."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        with self._fault(refusal=(code, headers), **which) as requests:
            yield requests

    @contextmanager
    def holding(self, **which: Any) -> Iterator[list[Request]]:
        """Pass requests on only at the end of the block."""
        opened = asyncio.Event()
        try:
            with self._fault(opened=opened, **which) as requests:
                yield requests
        finally:
            self._loop.call(opened.set)

    @contextmanager
    def editing(self, edit: Edit, **which: Any) -> Iterator[list[Request]]:
        """Change the answers of the API, save its errors."""
        with self._fault(edit=edit, **which) as requests:
            yield requests

    def inject(self, line: bytes, **which: Any) -> int:
        """Send a line to the watches that are open now, of those that these words choose, and return to how many."""
        return self._loop.run(self._inject(line, _choice(**which)))

    @contextmanager
    def _fault(
        self,
        *,
        times: int | None = None,
        opened: asyncio.Event | None = None,
        refusal: tuple[int, Mapping[str, str]] | None = None,
        edit: Edit | None = None,
        **which: Any,
    ) -> Iterator[list[Request]]:
        fault = _Fault(_choice(**which), times, opened, refusal, edit)
        self._loop.call(lambda: self._faults.append(fault))
        try:
            yield fault.requests
        finally:
            self._loop.call(lambda: self._faults.remove(fault))

    async def _inject(self, line: bytes, chosen: Callable[[Request], bool]) -> int:
        watches = [response for response, request in self._watches.items() if chosen(request)]
        for response in watches:
            await response.write(line)
        return len(watches)

    # --- The server --------------------------------------------------------------------------------------------------

    async def _start(self) -> int:
        self._session = aiohttp.ClientSession(
            self._cluster.url,
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self._cluster.ca_file), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls()).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def _tls(self) -> ssl.SSLContext:
        key = self.ca_file.with_suffix(".key")
        if not key.exists():
            command = (
                *(str(system_program("openssl")), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=api-proxy"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.ca_file)),
            )
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, key)
        return context

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        request = _read(incoming)
        self.requests.append(request)
        faults = [fault for fault in tuple(self._faults) if fault.takes(request)]
        try:
            for fault in faults:
                if fault.opened:
                    await fault.opened.wait()
            refusals = (fault.refusal for fault in faults if fault.refusal)
            if refusal := next(refusals, None):
                return await self._refuse(request, *refusal)
            edits = [fault.edit for fault in faults if fault.edit]
            return await self._pass_on(incoming, request, edits)
        except (Cut, aiohttp.ClientError, OSError):
            # The API server is gone in the middle of it, or was never there; a caller who is gone does not notice.
            if incoming.transport:
                incoming.transport.abort()
            return web.Response()

    async def _refuse(self, request: Request, code: int, headers: Mapping[str, str]) -> web.StreamResponse:
        await asyncio.sleep(self.delay)
        request.status = code
        return web.json_response(status(code), status=code, headers=headers)

    async def _pass_on(self, incoming: web.BaseRequest, request: Request, edits: list[Edit]) -> web.StreamResponse:
        url = URL(incoming.raw_path, encoded=True)
        if self.page_size and "limit" in request.query:
            url = url.update_query(limit=self.page_size)
        async with self._session.request(
            incoming.method,
            url,
            data=await incoming.read(),
            headers=_passed_on(incoming.headers) | {"Accept-Encoding": "identity"},
            allow_redirects=False,
        ) as answer:
            await asyncio.sleep(self.delay)
            request.status = answer.status
            parts = _lines(answer) if request.verb == "watch" else _whole(answer)
            if answer.status < 300:
                for edit in edits:
                    parts = edit(parts)
            response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await response.prepare(incoming)
            if request.verb == "watch":
                self._watches[response] = request
            try:
                async for part in parts:
                    await response.write(part)
            finally:
                self._watches.pop(response, None)
                if answer.connection and answer.connection.transport:
                    answer.connection.transport.abort()  # an orderly end of TLS could outlast the proxy
            await response.write_eof()
            return response


# --- What edits are made of ------------------------------------------------------------------------------------------


def status(code: int) -> dict[str, Any]:
    """Return the object that the API describes an error with."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"so says the test: {code}",
        "reason": _REASONS[code],
        "code": code,
    }


def event(kind: str, content: Mapping[str, Any]) -> bytes:
    """Return one line of a watch."""
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"


async def lost(parts: Parts) -> Parts:
    """Lose the answer: the API has done what was asked, but nobody hears of it."""
    async for _ in parts:
        raise Cut
    yield b""


async def halved(parts: Parts) -> Parts:
    """Break the connection in the middle of the first part: of the body, or of a watch's first line."""
    async for part in parts:
        yield part[: len(part) // 2]
        raise Cut


async def withheld(parts: Parts) -> Parts:
    """Let nothing through, though the connection lives."""
    async for _ in parts:
        pass
    yield b""


async def doubled(parts: Parts) -> Parts:
    """Send everything twice."""
    async for part in parts:
        yield part
        yield part


# --- Which requests, and how they are read ---------------------------------------------------------------------------


def _choice(*, where: Callable[[Request], bool] = lambda _request: True, **wanted: str) -> Callable[[Request], bool]:
    """Return what says whether a request is one of those, by the values of its fields and a function."""
    return lambda request: all(getattr(request, name) == value for name, value in wanted.items()) and where(request)


def _read(incoming: web.BaseRequest) -> Request:
    """Say what a request is in the words of RBAC, as the API server does (k8s.io/apiserver, requestinfo.go)."""
    _, *path = incoming.path.split("/")
    rest = path[2:] if path[0] == "api" else path[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        _, namespace, *rest = rest
    resource, name, *sub = (*rest, "", "")[: max(2, len(rest))]
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(incoming.method, "get")
    if verb == "get" and not name:
        verb = "watch" if "watch" in incoming.query else "list"
    token = incoming.headers.get("Authorization", "").removeprefix("Bearer ")
    return Request(time.monotonic(), verb, "/".join((resource, *sub)), namespace, name, dict(incoming.query), token)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON}


async def _whole(answer: aiohttp.ClientResponse) -> Parts:
    yield await answer.read()


async def _lines(answer: aiohttp.ClientResponse) -> Parts:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
