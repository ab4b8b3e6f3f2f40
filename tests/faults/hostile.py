"""Backends that do what no backend should, and some that are well; any number of them, in one thread::

    with Servers() as servers:
        selector = own_selector("bad")
        service = cluster.create_service(namespace, "bad", ports=[servers.port], selector=selector)
        create_pod(cluster, namespace, ["bad"])
        address = service["spec"]["clusterIP"]
        servers.put(address, silent)
        eventually(lambda: servers.visits(address))

A thousand Services have a thousand addresses, but need no thousand sockets: one listens on a port of every address of
the loopback interface, and what happens on a connection depends on the address that it came to.
"""

import asyncio
import gzip
import json
import secrets
import socket
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pod
from tests.cluster.programs import system_program
from tests.faults.loop import LoopThread
from tests.waiting import eventually

_BACKLOG = 4096
"""Of connections that are not accepted yet: a thousand come at once."""

_PIECE = b"x" * 65536

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass
class Visit:
    """One connection: when it came (monotonic, in seconds), and what it asked for, once it has."""

    time: float
    path: str | None = None


class Connection:
    """What a backend has of a connection to its ``port``. ``number`` is how many came to its address before it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit, number: int) -> None:
        self.number = number
        self.port: int = writer.get_extra_info("sockname")[1]
        self._reader = reader
        self._writer = writer
        self._visit = visit

    async def asked(self) -> str:
        """Wait for a request, and return its path."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        self._visit.path = head.split(b" ", 2)[1].decode()
        return self._visit.path

    async def hear(self) -> bytes:
        """Wait for anything to be said; empty when the other side has hung up."""
        return await self._reader.read(4096)

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer as a decent server would."""
        fields = {"Content-Length": str(len(body)), "Connection": "close"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await self.say("\r\n".join(lines).encode() + body)

    async def stay(self) -> None:
        """Wait until the other side hangs up."""
        while await self.hear():
            pass

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self._writer.start_tls(context)


Behaviour = Callable[[Connection], Awaitable[None]]
"""What a backend does on each connection. It hangs up when this returns."""


class Servers:
    """Backends on ``port`` of every loopback address, for as long as the ``with`` block. One that was not put hangs up.

    On ``closed_port`` nobody listens. On ``deaf_port`` no SYN is answered: the queue of connections that nobody accepts
    is full.
    """

    def __enter__(self) -> Self:
        self._behaviours: dict[str, Behaviour] = {}
        self._visits: defaultdict[str, list[Visit]] = defaultdict(list)
        with ExitStack() as cleanup:
            listener, closed, deaf = (cleanup.enter_context(_on_every_loopback_address()) for _ in range(3))
            self.port, self.closed_port, self.deaf_port = (one.getsockname()[1] for one in (listener, closed, deaf))
            deaf.listen(0)
            for _ in range(4):
                unheard = cleanup.enter_context(socket.socket())
                unheard.setblocking(False)
                unheard.connect_ex(("127.0.0.1", self.deaf_port))
            self._loop = cleanup.enter_context(LoopThread())
            server = self._loop.run(asyncio.start_server(self._accept, sock=listener, backlog=_BACKLOG))
            cleanup.callback(lambda: self._loop.call(server.close))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def put(self, address: str, behaviour: Behaviour) -> None:
        """Let the backend at an address behave so, from the next connection on."""
        self._behaviours[address] = behaviour

    def visits(self, address: str) -> Sequence[Visit]:
        """Return the connections to the backend at an address so far, in order."""
        return tuple(self._visits[address])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        visits = self._visits[address]
        visits.append(Visit(time.monotonic()))
        connection = Connection(reader, writer, visits[-1], len(visits) - 1)
        try:
            await self._behaviours.get(address, hanging_up)(connection)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the visitor has hung up, or does not like the certificate; or it is the end of all
        finally:
            writer.close()


def _on_every_loopback_address() -> socket.socket:
    """Return a socket with a port on all addresses, though only of that interface: nobody else gets to see it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("0.0.0.0", 0))
    return listener


def own_selector(service: str) -> dict[str, str]:
    """Return a selector as no other Service has it: those with the same one would be duplicates of each other."""
    return {service: "here"}


def create_pod(cluster: Cluster, namespace: str, services: Iterable[str]) -> None:
    """Have one ready Pod behind many Services, each with its own selector, and wait until their slices say so."""
    labels = {label: value for service in services for label, value in own_selector(service).items()}
    Pod(cluster, namespace, f"pod-{secrets.token_hex(4)}", labels).create()
    eventually(lambda: labels.keys() <= _with_endpoints(cluster, namespace), within=60, every=0.2)


def _with_endpoints(cluster: Cluster, namespace: str) -> set[str]:
    slices = cluster.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")["items"]
    return {one["metadata"]["labels"]["kubernetes.io/service-name"] for one in slices if one["endpoints"]}


class Authority:
    """A certificate authority. ``file`` is its own certificate, for those who trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        self._folder = folder
        self._openssl(
            *("req", "-x509", *_NEW_KEY, "-subj", "/CN=authority", "-days", "1", "-keyout", self._key),
            *("-addext", "keyUsage=critical,keyCertSign", "-out", self.file),
        )

    def issue(self, name: str, *, expired: bool = False) -> ssl.SSLContext:
        """Return what a server with a certificate for a DNS name shows."""
        with TemporaryDirectory(dir=self._folder) as folder:
            key, request, extensions, certificate = (Path(folder, one) for one in ("key", "request", "ext", "pem"))
            extensions.write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid\n")
            self._openssl("req", "-new", *_NEW_KEY, "-subj", "/CN=server", "-keyout", key, "-out", request)
            self._openssl(
                *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
                *("-days", "-1" if expired else "1", "-extfile", extensions, "-out", certificate),
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            return context

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run([system_program("openssl"), *arguments], check=True, capture_output=True, timeout=60)


# --- Those that are well ---------------------------------------------------------------------------------------------

_BUILD = {"status": "success", "data": {"version": "3.1.0", "branch": "HEAD", "goVersion": "go1.26"}}


async def prometheus(connection: Connection) -> None:
    """Answer as a Prometheus does."""
    path = await connection.asked()
    await connection.answer(200, json.dumps(_BUILD).encode() if path == "/api/v1/status/buildinfo" else b"healthy")


def answering(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer everything with the same."""

    async def answer(connection: Connection) -> None:
        await connection.asked()
        await connection.answer(status, body, **headers)

    return answer


healthy = answering(200)
"""All that a type of somebody's own has to do."""


def in_turn(*statuses: int) -> Behaviour:
    """Answer with these, one after the other, and then from the beginning."""

    async def answer(connection: Connection) -> None:
        await connection.asked()
        await connection.answer(statuses[connection.number % len(statuses)])

    return answer


def over_tls(context: ssl.SSLContext, behaviour: Behaviour) -> Behaviour:
    """Behave so within TLS."""

    async def speak(connection: Connection) -> None:
        await connection.start_tls(context)
        await behaviour(connection)

    return speak


# --- Those that say nothing, or hardly anything -----------------------------------------------------------------------


async def hanging_up(connection: Connection) -> None:
    await connection.asked()


async def silent(connection: Connection) -> None:
    await connection.stay()


def dripping(at_once: bytes = b"") -> Behaviour:
    """Say this, and then one byte a second."""

    async def drip(connection: Connection) -> None:
        await connection.asked()
        await connection.say(at_once)
        for byte in b"HTTP/1.1 200 OK\r\n" * 1000:
            await connection.say(bytes([byte]))
            await asyncio.sleep(1)

    return drip


# --- Those that say too much -----------------------------------------------------------------------------------------

_OK = b"HTTP/1.1 200 OK\r\n"


def endless(beginning: bytes, again: bytes) -> Behaviour:
    """Say the beginning, and then the same again and again, as fast as it is taken."""
    piece = again * (len(_PIECE) // len(again))

    async def talk(connection: Connection) -> None:
        await connection.asked()
        await connection.say(beginning)
        while True:
            await connection.say(piece)

    return talk


endless_body = endless(_OK + b"\r\n", b"x")
endless_head = endless(_OK, b"X-More: more\r\n")
endless_interim_answers = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")
endless_chunks = endless(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")


async def hundred_megabytes(connection: Connection) -> None:
    """Answer as a Prometheus would, but for 100 MB in the middle of it."""
    before, after = json.dumps(_BUILD | {"padding": "|"}).encode().split(b"|")
    size = 100_000_000
    await connection.asked()
    await connection.say(_OK + b"Content-Length: %d\r\n\r\n" % (len(before) + size + len(after)) + before)
    while size > 0:
        await connection.say(_PIECE[:size])
        size -= len(_PIECE)
    await connection.say(after)


async def bomb(connection: Connection) -> None:
    """Answer as a Prometheus would, compressed a thousandfold."""
    await connection.asked()
    await connection.answer(200, _bomb(), Content_Encoding="gzip")


@cache
def _bomb() -> bytes:
    return gzip.compress(json.dumps(_BUILD | {"padding": "x" * 50_000_000}).encode())


deep = answering(200, b"[" * 100_000)

breaking_off = answering(200, b"I am", Content_Length="1000")


# --- Those that say something else -----------------------------------------------------------------------------------


async def ssh(connection: Connection) -> None:
    await connection.say(b"SSH-2.0-OpenSSH_9.6\r\n")
    await connection.stay()


async def plain_http(connection: Connection) -> None:
    """Answer to whatever is said that it is no HTTP."""
    await connection.hear()
    await connection.answer(400)


async def tls_alert(connection: Connection) -> None:
    """Answer to whatever is said that it is no TLS (an alert of TLS 1.2, unexpected message)."""
    await connection.hear()
    await connection.say(b"\x15\x03\x03\x00\x02\x02\x0a")


async def redirecting_in_a_circle(connection: Connection) -> None:
    path = await connection.asked()
    await connection.answer(302, Location="/b" if path == "/a" else "/a")


def redirecting(location: str) -> Behaviour:
    return answering(302, Location=location)


def redirecting_to(address: str) -> Behaviour:
    """Redirect to the backend at another address."""

    async def redirect(connection: Connection) -> None:
        path = await connection.asked()
        await connection.answer(302, Location=f"http://{address}:{connection.port}{path}")

    return redirect
