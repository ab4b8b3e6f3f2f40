"""A port, over real connections: what comes too slowly, too much or in a way that is no HTTP, and who is cut off."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from dynamic_toolset.server import listening
from dynamic_toolset.server.exchange import App, Receive, Scope, Send
from dynamic_toolset.server.listening import Listener
from dynamic_toolset.server.ports import Port
from dynamic_toolset.settings import TlsFiles
from tests.connection import PATIENCE, Answer, Connection

TLS = Path(__file__).parents[1] / "kube" / "tls"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Application:
    """Answers with what it is asked for: /wait until ``go``, /large with a megabyte, /endless without end."""

    def __init__(self) -> None:
        self.requests: list[Scope] = []
        self.bodies: list[bytes] = []
        self.go = asyncio.Event()
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope)
        path = scope["path"]
        if path == "/wait":
            await self.go.wait()
        if path == "/body":
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone += 1
                    return
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.bodies.append(body)
        text = b"x" * 4_000_000 if path == "/large" else path.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})


class Served:
    def __init__(
        self,
        port: Port,
        app: Application,
        cleanup: AsyncExitStack,
        tls: ssl.SSLContext | None,
        listener: Listener | None = None,
    ) -> None:
        self.app = app
        self.listener = listener
        self.number: int = port.socket.getsockname()[1]
        self._cleanup = cleanup
        self._tls = tls

    async def connect(self, data: bytes = b"", **options: Any) -> Connection:
        connection = await Connection.open(self.number, data, tls=self._tls, **options)
        self._cleanup.push_async_callback(connection.close)
        return connection


@pytest.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
    await asyncio.sleep(0)


@pytest.fixture
async def serve(cleanup: AsyncExitStack) -> Callable[..., Served]:
    def serve(app: App | None = None, *, max_connections: int = 100, tls: bool = False) -> Served:
        application = Application()
        files = TlsFiles(str(TLS / "first.crt"), str(TLS / "first.key")) if tls else TlsFiles()
        port = Port("127.0.0.1", 0, files, name="a", tls_name="b")
        listener = Listener(app or application, port, max_connections=max_connections, patience=PATIENCE)
        running = asyncio.create_task(listener.run())
        trusting = None
        if tls:
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

        async def end() -> None:
            application.go.set()
            listener.end(at_once=True)
            await running

        cleanup.push_async_callback(end)
        return Served(port, application, cleanup, trusting, listener)

    return serve


Serve = Callable[..., Served]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all times be over soon."""
    for name in ("HEADER_TIME", "BODY_TIME", "READER_TIME", "LINGER"):
        monkeypatch.setattr(listening, name, 0.2)


@pytest.fixture
def quick_after_the_header(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all times be over soon but the first one: the header comes, however late on a busy machine."""
    monkeypatch.setattr(listening, "HEADER_TIME", PATIENCE)


def problem(answer: Answer) -> int:
    """Check that an answer is a problem after which the connection is over; return its status."""
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["date"]
    content = json.loads(body)
    assert content["status"] == status
    assert content["requestId"] == headers["x-request-id"] != ""
    return status


# --- The ordinary course ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_serves_one_request_after_the_other(serve: Serve, tls: bool) -> None:
    connection = await serve(tls=tls).connect()
    for _ in range(3):
        connection.say(GET)
        status, headers, body = await connection.answer()
        assert (status, body) == (200, b"/")
        assert "connection" not in headers
    connection.say(CLOSE)
    assert (await connection.answer())[1]["connection"] == "close"
    assert await connection.end() == b""


async def test_requests_that_come_at_once_are_answered_in_their_order(serve: Serve) -> None:
    served = serve()
    paths = ["/wait", "/a", "/b", "/c"]
    connection = await served.connect(b"".join(GET.replace(b"/ ", f"{path} ".encode(), 1) for path in paths))
    while not served.app.requests:
        await asyncio.sleep(0.005)
    served.app.go.set()
    assert [(await connection.answer())[2].decode() for _ in paths] == paths


async def test_a_request_may_come_byte_by_byte(serve: Serve) -> None:
    connection = await serve().connect()
    for byte in GET:
        connection.say(bytes([byte]))
        await asyncio.sleep(0)
    assert (await connection.answer())[0] == 200


async def test_who_has_said_all_and_closed_his_side_is_still_answered(serve: Serve) -> None:
    served = serve()
    connection = await served.connect(GET.replace(b"/ ", b"/wait ", 1))
    connection.writer.write_eof()
    while not served.app.requests:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    served.app.go.set()
    assert (await connection.end()).endswith(b"/wait")


async def test_who_goes_away_in_the_middle_of_a_request_is_not_waited_for(serve: Serve) -> None:
    served = serve()
    connection = await served.connect(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    while not served.app.requests:
        await asyncio.sleep(0.005)
    connection.writer.write_eof()
    assert await connection.end() == b""
    assert served.app.gone == 1


async def test_who_wants_another_protocol_gets_http_1(serve: Serve) -> None:
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    connection = await serve().connect(upgrade)
    status, headers, body = await connection.answer()
    assert (status, headers["connection"], body) == (200, "close", b"/")
    assert await connection.end() == b""


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\na: ", b"Transfer-Encoding: chunked\r\n\r\n3\r\na: \r\n0\r\n\r\n"]
)
async def test_who_wants_another_protocol_with_a_body_is_refused(serve: Serve, framing: bytes) -> None:
    """The parser has no body of it, so the answer would be one to another request."""
    served = serve()
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    connection = await served.connect(GET + head + framing)
    assert (await connection.answer()).status == 200
    assert problem(await connection.answer()) == 400
    assert await connection.end() == b""
    assert served.app.bodies == []
    without = await served.connect(head + b"Content-Length: 0\r\n\r\n")
    assert (await without.answer()).status == 200


# --- Too much --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200_000,
        b"x" * 20 + GET[:1] + b"A" * 100_000,
    ],
)
async def test_a_header_that_is_too_large_is_refused(serve: Serve, head: bytes) -> None:
    connection = await serve().connect(head)
    assert problem(await connection.answer()) in {431, 400}  # 400 for what begins with no method
    assert await connection.end() == b""


async def test_a_header_that_is_just_large_enough_is_taken(serve: Serve) -> None:
    served = serve()
    filling = b"x" * (listening.MAX_HEADER - len(GET) - len(b"A: \r\n"))
    connection = await served.connect(GET[:-2] + b"A: " + filling + b"\r\n\r\n")
    assert (await connection.answer())[0] == 200
    connection.say(GET)
    assert (await connection.answer())[0] == 200


async def test_a_large_body_is_no_header(serve: Serve) -> None:
    served = serve()
    body = bytes(range(256)) * 2000
    head = f"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = await served.connect(head + body + GET)
    assert (await connection.answer())[2] == b"/body"
    assert (await connection.answer())[2] == b"/"
    assert served.app.bodies == [body]


async def test_a_body_in_small_chunks_is_taken(serve: Serve) -> None:
    served = serve()
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = await served.connect(head + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n" + GET)
    assert (await connection.answer())[2] == b"/body"
    assert (await connection.answer())[2] == b"/"
    assert served.app.bodies == [b"x" * 50_000]


async def test_a_trailer_is_bounded_and_no_header(serve: Serve) -> None:
    served = serve()
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    connection = await served.connect(head + b"Authorization: Bearer x\r\n\r\n" + GET)
    assert (await connection.answer())[2] == b"/body"
    assert (await connection.answer())[2] == b"/"
    assert b"authorization" not in dict(served.app.requests[0]["headers"])
    connection = await served.connect(head + b"A: b\r\n" * 20_000)
    assert problem(await connection.answer()) == 431
    assert await connection.end() == b""


async def test_a_body_that_nobody_wants_is_taken_for_a_while_and_the_answer_arrives(serve: Serve) -> None:
    served = serve()
    body = b"x" * 5_000_000
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = await served.connect(head + body + GET)
    for _ in range(2):
        assert (await connection.answer())[0] == 200


async def test_a_body_that_does_not_end_is_not_taken_for_ever(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_MESSAGE", 1_000_000)
    served = serve()
    connection = await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await connection.answer())[0] == 200

    async def say_on() -> None:
        while True:
            connection.say(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            await connection.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(say_on(), PATIENCE)


# --- Too slow --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
async def test_a_header_that_does_not_come_to_its_end_is_given_up(serve: Serve) -> None:
    connection = await serve().connect(GET[:-2])
    assert problem(await connection.answer()) == 408
    assert await connection.end() == b""


async def test_the_second_header_has_no_more_time_than_the_first(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEADER_TIME", 2.0)  # enough for the first one
    connection = await serve().connect(GET + GET[:10])
    assert (await connection.answer())[0] == 200
    assert problem(await connection.answer()) == 408


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("first", [b"", GET])
async def test_who_asks_nothing_is_answered_nothing(serve: Serve, first: bytes, data: bytes) -> None:
    connection = await serve().connect(first)
    if first:
        await connection.answer()
    if first and not data:
        return  # a connection may be idle between two requests
    connection.say(data)
    assert await connection.end() == b""


async def test_a_connection_may_be_idle_between_two_requests(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEADER_TIME", 2.0)
    connection = await serve().connect(GET)
    assert (await connection.answer())[0] == 200
    await asyncio.sleep(2.5)
    connection.say(GET)
    assert (await connection.answer())[0] == 200


@pytest.mark.usefixtures("quick_after_the_header")
@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_given_up(serve: Serve, framing: bytes) -> None:
    served = serve()
    connection = await served.connect(b"POST /body HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
    assert problem(await connection.answer()) == 408
    assert await connection.end() == b""
    assert served.app.gone == 1


@pytest.mark.usefixtures("quick_after_the_header")
async def test_a_body_that_nobody_waits_for_holds_no_connection(serve: Serve) -> None:
    connection = await serve().connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    assert (await connection.answer())[0] == 200
    assert await connection.end() == b""


@pytest.mark.usefixtures("quick_after_the_header")
@pytest.mark.parametrize("last", [GET, CLOSE])
async def test_a_reader_that_takes_nothing_is_cut_off(serve: Serve, last: bytes) -> None:
    served = serve()
    connection = await served.connect(last.replace(b"/ ", b"/large ", 1), limit=1024)
    assert served.listener is not None
    async with asyncio.timeout(PATIENCE):
        while not served.app.requests or served.listener.connections:
            await asyncio.sleep(0.005)
    got = 0
    with suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            while piece := await connection.reader.read(65536):
                got += len(piece)
    assert got < 4_000_000


async def test_a_reader_that_is_slow_but_reads_gets_all(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "READER_TIME", 3.0)
    served = serve()
    connection = await served.connect(GET.replace(b"/ ", b"/large ", 1), limit=1024)
    got = 0
    async with asyncio.timeout(60):
        while got < 4_000_000:
            got += len(await connection.reader.read(100_000))
            await asyncio.sleep(0.1)  # four seconds in all


@pytest.mark.usefixtures("quick")
async def test_who_does_not_shake_hands_is_not_waited_for(serve: Serve) -> None:
    served = serve(tls=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.number)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


# --- Too many --------------------------------------------------------------------------------------------------------


async def test_when_all_connections_have_a_request_under_way_a_further_one_is_refused(serve: Serve) -> None:
    served = serve(max_connections=3)
    busy = [await served.connect(GET.replace(b"/ ", b"/wait ", 1)) for _ in range(3)]
    while len(served.app.requests) < 3:
        await asyncio.sleep(0.005)
    for _ in range(3):
        answer = await (await served.connect(GET)).answer()
        assert problem(answer) == 503
        assert answer[1]["retry-after"] == "1"
    served.app.go.set()
    for connection in busy:
        assert (await connection.answer())[0] == 200
    assert (await (await served.connect(GET)).answer())[0] == 200


async def test_who_needs_a_connection_takes_the_place_of_who_does_not_use_his(serve: Serve) -> None:
    served = serve(max_connections=3)
    idle = [await served.connect(GET) for _ in range(2)]
    for connection in idle:
        await connection.answer()
    silent = await served.connect()
    newcomers = [await served.connect(GET.replace(b"/ ", b"/wait ", 1)) for _ in range(3)]
    for connection in (*idle, silent):
        assert await connection.end() == b""
    while len(served.app.requests) < 5:
        await asyncio.sleep(0.005)
    served.app.go.set()
    for connection in newcomers:
        assert (await connection.answer())[0] == 200


async def test_a_connection_that_was_closed_makes_room(serve: Serve) -> None:
    served = serve(max_connections=1)
    for _ in range(20):
        connection = await served.connect(GET)
        assert (await connection.answer())[0] == 200
        connection.writer.close()


# --- No HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_what_is_no_http_is_answered_with_a_problem(serve: Serve, data: bytes) -> None:
    served = serve()
    connection = await served.connect(data)
    assert problem(await connection.answer()) == 400
    assert await connection.end() == b""
    assert (await (await served.connect(GET)).answer())[0] == 200


async def test_garbage_after_a_request_does_not_touch_its_answer(serve: Serve) -> None:
    served = serve()
    connection = await served.connect(GET.replace(b"/ ", b"/wait ", 1) + GET + b"garbage\r\n\r\n" + GET)
    while not served.app.requests:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    served.app.go.set()
    assert (await connection.answer())[2] == b"/wait"
    assert (await connection.answer())[2] == b"/"
    assert problem(await connection.answer()) == 400
    assert await connection.end() == b""


async def test_what_anybody_can_cause_is_no_line_on_stderr(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    served = serve()
    for data in (b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"):
        connection = await served.connect(data)
        await connection.answer()
        await connection.end()
    assert capfd.readouterr().err == ""


# --- The end ---------------------------------------------------------------------------------------------------------


async def test_a_request_under_way_is_answered_and_then_the_connection_is_over(cleanup: AsyncExitStack) -> None:
    application = Application()
    port = Port("127.0.0.1", 0, TlsFiles(), name="a", tls_name="b")
    listener = Listener(application, port, max_connections=10, patience=PATIENCE)
    running = asyncio.create_task(listener.run())
    served = Served(port, application, cleanup, None)
    busy, idle = await served.connect(GET.replace(b"/ ", b"/wait ", 1)), await served.connect(GET)
    await idle.answer()
    while len(application.requests) < 2:
        await asyncio.sleep(0.005)
    listener.end()
    assert await idle.end() == b""
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    assert not running.done()
    application.go.set()
    status, headers, _ = await busy.answer()
    assert (status, headers["connection"]) == (200, "close")
    await asyncio.wait_for(running, PATIENCE)


async def test_what_does_not_end_is_broken_off_when_patience_is_over(cleanup: AsyncExitStack) -> None:
    application = Application()
    port = Port("127.0.0.1", 0, TlsFiles(), name="a", tls_name="b")
    listener = Listener(application, port, max_connections=10, patience=1)
    running = asyncio.create_task(listener.run())
    busy = await Served(port, application, cleanup, None).connect(GET.replace(b"/ ", b"/wait ", 1))
    while not application.requests:
        await asyncio.sleep(0.005)
    listener.end()
    await asyncio.wait_for(running, PATIENCE)
    assert b"200" not in await busy.end()


async def test_at_once_means_at_once(cleanup: AsyncExitStack) -> None:
    application = Application()
    port = Port("127.0.0.1", 0, TlsFiles(), name="a", tls_name="b")
    listener = Listener(application, port, max_connections=10, patience=600)
    running = asyncio.create_task(listener.run())
    busy = await Served(port, application, cleanup, None).connect(GET.replace(b"/ ", b"/wait ", 1))
    while not application.requests:
        await asyncio.sleep(0.005)
    listener.end(at_once=True)
    with suppress(ConnectionResetError):
        assert await busy.end() == b""
    application.go.set()
    await asyncio.wait_for(running, PATIENCE)
