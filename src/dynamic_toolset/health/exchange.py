"""One request and its answer over HTTP/1.1 (RFC 9112), with a server that nobody trusts.

Nothing is received that was not asked for, and nothing is asked for beyond a bound. That is why this does not go
through aiohttp, which speaks to the Kubernetes API: a general client parses what has come before anybody wants it, and
bounds single lines but not what they add up to. Five hundred servers that answered with an endless row of
``100 Continue``, of answers that nobody had asked for, or with a megabyte of headers, held up to 3.6 GB of memory and
the event loop for half a minute. Here each of them holds what fits into a few pieces of 16 KiB.

Each exchange has a connection of its own. What one answer leaves behind cannot get into the next.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from msgspec import Struct

from dynamic_toolset.health.reasons import Failed

MAX_HEAD_BYTES = 16 * 1024
"""Status line and headers, with all interim answers before them. nginx, too, gives up on answers above 4 to 8 KiB."""

MAX_HEAD_LINES = 128

MAX_CHUNKS = 1024
"""Of a body that comes in chunks: 256 KiB are some 130 as Go's servers send them. Each costs time, however small."""

MAX_FRAMING_BYTES = 16 * 1024
"""Chunk sizes and chunk extensions."""

MAX_RECEIVED = 512 * 1024
"""Bytes of one answer in all, TLS included."""

_PIECE = 16 * 1024
"""What is received at once; also the size of a TLS record."""

_RECEIVE_BUFFER = 32 * 1024
"""What the kernel keeps for us; Linux takes twice that for its own bookkeeping. Otherwise it keeps up to 6 MiB for a
server that sends fast, which count against the memory of our container."""

_TURN = 64
"""Chunks after which the other exchanges get their turn."""

_NOT_HTTP = "the answer is not HTTP"
_BREAKS_OFF = "the answer breaks off"

_VERSION = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\t -~\x80-\xff]*")
_TARGET = re.compile(r"/[!-~]*")

_T = TypeVar("_T")


class Request(Struct, frozen=True):
    """What is asked of the server at an address. ``headers`` holds all of them but those that frame the message."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: str | None = None

    def encoded(self) -> bytes:
        """Return its bytes. Raises ValueError if they would not be the one request that it looks like."""
        body = (self.body or "").encode()
        fields = {**self.headers, "Connection": "close"}
        if self.body is not None:
            fields["Content-Length"] = str(len(body))
        if not (_TOKEN.fullmatch(self.method) and _TARGET.fullmatch(self.target)):
            raise ValueError("the request line is malformed")
        if not all(_TOKEN.fullmatch(name) and _TEXT.fullmatch(value) for name, value in fields.items()):
            raise ValueError("a header is malformed")
        lines = (f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()))
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body


@asynccontextmanager
async def exchange(
    address: str, port: int, request: Request, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> AsyncIterator["Response"]:
    """Send a request and yield the answer, whose head has come. The connection ends with the context.

    ``address`` is dialled as it stands. With ``tls`` the certificate must be that of ``server_name``. Raises Failed for
    what is no answer, OSError (ssl.SSLError among them) for a connection that fails, ValueError for a request that
    cannot be sent. Whoever calls it sets the deadline.
    """
    message = request.encoded()
    async with _connected(address, port) as connection:
        wire: _Wire = connection
        if tls is not None:
            wire = await _Tls(connection, tls, server_name).handshake()
        await wire.send(message)
        yield await _response(_Input(wire))


class Response:
    """An answer. ``headers`` has names in lower case; the values of one name are joined by commas (RFC 9110, 5.3)."""

    def __init__(self, status: int, headers: Mapping[str, str], source: "_Input") -> None:
        self.status = status
        self.headers = headers
        self._source = source
        self._chunks: _Chunks | None = None
        self._left: int | None = None  # bytes of the body, or of the chunk; None until the connection ends
        if status in {204, 304}:
            self._left = 0
        elif "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise Failed("the answer has a transfer encoding that was not asked for")
            self._chunks, self._left = _Chunks(source), 0
        elif "content-length" in headers:
            if not _LENGTH.fullmatch(headers["content-length"]):
                raise Failed(_NOT_HTTP)
            self._left = int(headers["content-length"])

    async def read(self) -> bytes:
        """Return what has come of the body, 16 KiB at most; wait if there is nothing yet. Empty at the end."""
        if self._left == 0 and self._chunks is not None:
            self._left = await self._chunks.next()
        if self._left == 0:
            return b""
        part = await self._source.some(_PIECE if self._left is None else min(self._left, _PIECE))
        if self._left is not None:
            if not part:
                raise Failed(_BREAKS_OFF)
            self._left -= len(part)
        return part


class _Chunks:
    """The framing of a chunked body (RFC 9112, section 7.1). Trailers are not waited for: nobody wants them."""

    def __init__(self, source: "_Input") -> None:
        self._source = source
        self._count = 0
        self._bytes_left = MAX_FRAMING_BYTES
        self._ended = False

    async def next(self) -> int:
        """Return the size of the next chunk, 0 at the end."""
        if self._ended:
            return 0
        if self._count and await self._source.line(1, _NOT_HTTP) != b"":  # each chunk ends with an empty line
            raise Failed(_NOT_HTTP)
        self._count += 1
        if self._count > MAX_CHUNKS:
            raise Failed(f"the answer comes in more than {MAX_CHUNKS} chunks")
        if self._count % _TURN == 0:
            await asyncio.sleep(0)
        line = await self._source.line(self._bytes_left, "the chunk extensions of the answer are too long")
        self._bytes_left -= len(line)
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise Failed(_NOT_HTTP)
        size = int(found[1], 16)
        self._ended = size == 0
        return size


async def _response(source: "_Input") -> Response:
    """Read the head, and what interim answers (RFC 9110, section 15.2) come before it."""
    bytes_left = MAX_HEAD_BYTES
    status = 0
    headers: dict[str, str] = {}
    await _expect_http(source)
    for _ in range(MAX_HEAD_LINES):
        line = await source.line(bytes_left, "the head of the answer is too long")
        bytes_left -= len(line)
        if not status:
            status = _status(line)
        elif line:
            name, value = _field(line)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        elif 100 <= status < 200 and status != 101:
            status, headers = 0, {}
        else:
            return Response(status, headers, source)
    raise Failed(f"the head of the answer is longer than {MAX_HEAD_LINES} lines")


async def _expect_http(source: "_Input") -> None:
    """Look at what comes first. Who speaks something else need not end a line, nor say more before we do."""
    beginning = await source.peek(len(_VERSION))
    if not beginning:
        raise Failed("connection closed without an answer")
    if beginning[:2] in {b"\x15\x03", b"\x16\x03"}:  # a record with an alert, or of a handshake (RFC 8446, section 5.1)
        raise Failed(f"{_NOT_HTTP} but TLS; does it speak https here?")
    if not _VERSION.startswith(beginning):
        raise Failed(_NOT_HTTP)


def _status(line: bytes) -> int:
    found = _STATUS.fullmatch(line)
    if found is None:
        raise Failed(_NOT_HTTP)
    return int(found[1])


def _field(line: bytes) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Failed(_NOT_HTTP)
    return found[1].decode("ascii").lower(), found[2].rstrip(b" \t").decode("latin-1")


class _Input:
    """What has been received and not been used yet: a piece, or two while a line is looked for."""

    def __init__(self, wire: "_Wire") -> None:
        self._wire = wire
        self._buffer = bytearray()

    async def peek(self, size: int) -> bytes:
        """Return what comes next, up to ``size`` bytes, without using it; wait if there is nothing yet."""
        if not self._buffer:
            await self._more()
        return bytes(self._buffer[:size])

    async def line(self, longest: int, too_long: str) -> bytes:
        """Return the next line without its end. Raises Failed for one of more than ``longest`` bytes."""
        while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) <= longest:
            if not await self._more():
                raise Failed(_BREAKS_OFF)
        if not 0 <= end <= longest:
            raise Failed(too_long)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    async def some(self, most: int) -> bytes:
        """Return what has come, up to ``most`` bytes; wait if there is nothing. Empty at the end."""
        if not self._buffer:
            await self._more()
        part = bytes(self._buffer[:most])
        del self._buffer[:most]
        return part

    async def _more(self) -> bool:
        received = await self._wire.receive()
        self._buffer += received
        return bool(received)


class _Wire(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """Return what has come, a piece at most; wait if there is nothing. Empty at the end."""


@asynccontextmanager
async def _connected(address: str, port: int) -> AsyncIterator["_Tcp"]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
        yield _Tcp(connection)


class _Tcp:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = MAX_RECEIVED

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._connection, _PIECE)
        self._left -= len(data)
        if self._left < 0:
            raise Failed(f"the answer is longer than {MAX_RECEIVED // 1024} KiB")
        return data


class _Tls:
    """TLS over a connection. asyncio's own keeps 256 KiB for each, and up to as much again that nobody reads."""

    def __init__(self, connection: _Tcp, context: ssl.SSLContext, server_name: str | None) -> None:
        self._connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    async def handshake(self) -> "_Tls":
        await self._step(self._tls.do_handshake)
        return self

    async def send(self, data: bytes) -> None:
        await self._step(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        try:
            return await self._step(lambda: self._tls.read(_PIECE))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # with or without a word, it hung up
            return b""

    async def _step(self, step: Callable[[], _T]) -> _T:
        """Take a step that may need to hear from the server first."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the server is told what is wrong, such as its certificate
                raise
            else:
                await self._flush()
                return result
            if received := await self._connection.receive():
                self._incoming.write(received)
            else:
                self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._connection.send(self._outgoing.read())
