"""Backends for the tests of the probe: real servers on the loopback, and certificates made on the spot."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer every request with ``handler``; yields the port."""
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def talking(
    talk: Talk, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AbstractAsyncContextManager[int]:
    """Let ``talk`` do as it likes with each connection, once a request's head has come in; yields the port."""

    async def listen_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await talk(reader, writer)

    return accepting(listen_first, host=host, tls=tls)


@asynccontextmanager
async def accepting(talk: Talk, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Let ``talk`` do as it likes with each connection; yields the port."""
    talks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def saying(*parts: bytes, pause: float = 0.0, stay: bool = False) -> Talk:
    """Say ``parts``, ``pause`` seconds apart, and hang up, or ``stay`` connected."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if stay:
            await reader.read()

    return talk


def repeating(head: bytes, part: bytes) -> Talk:
    """Say ``head``, and then ``part`` for ever, as fast as it is taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part * max(1, 16384 // len(part)))
            await writer.drain()
            await asyncio.sleep(0)

    return talk


class Certificate:
    """A self-signed certificate for some names, and the server context that shows it."""

    def __init__(
        self, folder: Path, names: str = "DNS:prometheus.monitoring.svc.cluster.local", *, expired: bool = False
    ) -> None:
        self.file = folder / "certificate.pem"
        key, request, extensions = folder / "key.pem", folder / "request.pem", folder / "extensions"
        extensions.write_text(f"subjectAltName={names}")
        new = f"req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -keyout {key}"
        sign = f"x509 -req -in {request} -signkey {key} -days {-1 if expired else 1} -extfile {extensions}"
        for command, result in ((new, request), (sign, self.file)):
            subprocess.run(["openssl", *command.split(), "-out", result], check=True, capture_output=True)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.file, key)


def text(body: str = "", status: int = 200, **headers: str) -> Handler:
    """Answer everything with one text."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler
