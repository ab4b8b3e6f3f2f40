"""One request and its answer, with real servers on the loopback."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.health.exchange import (
    MAX_CHUNKS,
    MAX_FRAMING_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEAD_LINES,
    MAX_RECEIVED,
    Request,
    Response,
    exchange,
)
from dynamic_toolset.health.reasons import Failed
from tests.unit.health.backends import Certificate, accepting, repeating, saying, serving, talking

GET = Request("GET", "/", {"Host": "x"})
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def body_of(response: Response) -> bytes:
    body = b""
    while part := await response.read():
        body += part
    return body


async def answer_to(*said: bytes, pause: float = 0) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body when a server says this and hangs up."""
    async with (
        asyncio.timeout(10),
        talking(saying(*said, pause=pause)) as port,
        exchange("127.0.0.1", port, GET) as response,
    ):
        return response.status, dict(response.headers), await body_of(response)


async def failure_of(*said: bytes) -> str:
    with pytest.raises(Failed) as caught:
        await answer_to(*said)
    return str(caught.value)


# --- The request ----------------------------------------------------------------------------------------------------


async def request_as_sent(request: Request) -> bytes:
    sent = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.extend(await reader.read(1000))
        writer.write(OK + b"\r\n")

    async with accepting(listen) as port, exchange("127.0.0.1", port, request):
        return bytes(sent)


async def test_a_request_is_sent_as_it_stands_and_is_the_only_one_of_its_connection() -> None:
    request = Request("GET", "/ready?x=%20", {"Host": "prometheus:9090", "X-Scope-OrgID": "t\xe9"})
    assert await request_as_sent(request) == (
        b"GET /ready?x=%20 HTTP/1.1\r\nHost: prometheus:9090\r\nX-Scope-OrgID: t\xe9\r\nConnection: close\r\n\r\n"
    )


async def test_a_body_is_sent_with_its_length_in_bytes() -> None:
    sent = await request_as_sent(Request("POST", "/mcp", {"Host": "x"}, '{"a": "\u20ac"}'))
    assert sent.endswith(b'Connection: close\r\nContent-Length: 12\r\n\r\n{"a": "\xe2\x82\xac"}')


@pytest.mark.parametrize(
    "request_",
    [
        *(Request("GET", target, {}) for target in ("", "x", "/a b", "/a\r\nX: 1", "/\n", "/\u00e4", "/\x00", "//\t")),
        *(Request(method, "/", {}) for method in ("", "GET /", "GET\r\n", "G\x00T")),
        *(Request("GET", "/", {name: "x"}) for name in ("", "A B", "A:", "A\r\nB", "A\n", "\u00e4", "A\x00")),
        *(Request("GET", "/", {"A": value}) for value in ("a\r\nB: c", "a\n", "\r", "a\x00", "\u20ac", "\x7f")),
    ],
    ids=repr,
)
async def test_a_request_that_would_not_be_one_is_not_sent(request_: Request) -> None:
    with pytest.raises(ValueError, match="malformed"):
        async with exchange("127.0.0.1", 1, request_):
            pass


# --- The head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "headers"),
    [
        (OK + b"\r\n", 200, {}),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", 404, {}),
        (b"HTTP/1.1 999\r\n\r\n", 999, {}),
        (b"HTTP/1.1 204 \r\n\r\n", 204, {}),
        (b"HTTP/1.1 200 \xff\xfe\x00\r\n\r\n", 200, {}),
        (b"HTTP/1.1 200 OK\nA: b\n\n", 200, {"a": "b"}),
        (OK + b"A:b\r\nB:\r\nC: \t d e \t\r\n\r\n", 200, {"a": "b", "b": "", "c": "d e"}),
        (OK + b"a: 1\r\nA: 2\r\nB: x\r\na:\t3\r\n\r\n", 200, {"a": "1, 2, 3", "b": "x"}),
        (OK + b"A: \xe4\r\n\r\n", 200, {"a": "\xe4"}),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n", 200, {}),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nA: 1\r\n\r\n" * 3 + OK + b"A: 2\r\n\r\n", 200, {"a": "2"}),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101, {"upgrade": "x"}),
    ],
    ids=repr,
)
async def test_what_a_head_says(said: bytes, status: int, headers: dict[str, str]) -> None:
    assert (await answer_to(said))[:2] == (status, headers)
    assert (await answer_to(*(said[n : n + 1] for n in range(len(said)))))[:2] == (status, headers)


NO_HTTP = "the answer is not HTTP"
BREAKS_OFF = "the answer breaks off"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "connection closed without an answer"),
        (b"\r\n" + OK, NO_HTTP),
        (b"<html>Welcome</html>", NO_HTTP),  # HTTP/0.9
        (b"SSH-2.0-OpenSSH_9.6\r\n", NO_HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NO_HTTP),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", NO_HTTP),  # SETTINGS of HTTP/2
        (b"\x15\x03\x01\x00\x02\x02\x50", "the answer is not HTTP but TLS; does it speak https here?"),
        (b"\x16\x03\x01\x00\xff", "the answer is not HTTP but TLS; does it speak https here?"),
        (b"HTTP/2 200\r\n\r\n", NO_HTTP),
        (b"HTTP/1.2 200 OK\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 20\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 2000 OK\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 099 OK\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1  200 OK\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK\r\n\r\n", NO_HTTP),
        (b"HTTP", BREAKS_OFF),
        (b"HTTP/1.1 200", BREAKS_OFF),
        (OK, BREAKS_OFF),
        (OK + b"A: b\r\n", BREAKS_OFF),
        (b"HTTP/1.1 100 Continue\r\n\r\n", BREAKS_OFF),
        (b"HTTP/1.1 100 Continue\r\n\r\nnothing\r\n\r\n", NO_HTTP),
        (OK + b"no colon\r\n\r\n", NO_HTTP),
        (OK + b": no name\r\n\r\n", NO_HTTP),
        (OK + b"Bad Name: x\r\n\r\n", NO_HTTP),
        (OK + b"Name : x\r\n\r\n", NO_HTTP),
        (OK + b"A: b\r\n folded\r\n\r\n", NO_HTTP),
        (OK + b"A: b\rB: c\r\n\r\n", NO_HTTP),
        (OK + b"A: b\x00\r\n\r\n", NO_HTTP),
        (OK + b"A: \x1b[31m\r\n\r\n", NO_HTTP),
        (OK + b"Content-Length: -1\r\n\r\n", NO_HTTP),
        (OK + b"Content-Length: x\r\n\r\n", NO_HTTP),
        (OK + b"Content-Length: 1_0\r\n\r\n", NO_HTTP),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", NO_HTTP),
        (OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", NO_HTTP),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "the answer has a transfer encoding that was not asked for"),
        (OK + b"Transfer-Encoding: identity\r\n\r\n", "the answer has a transfer encoding that was not asked for"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_what_is_no_answer_is_named(said: bytes, reason: str) -> None:
    assert await failure_of(said) == reason


@pytest.mark.parametrize("said", [b"J\x00\x00\x00\n8.0.36\x00", b"+OK", b"\x00", b"H\x00"])
async def test_who_speaks_another_protocol_is_known_before_he_says_more(said: bytes) -> None:
    async with talking(saying(said, stay=True)) as port, asyncio.timeout(5):
        with pytest.raises(Failed, match=NO_HTTP):
            async with exchange("127.0.0.1", port, GET):
                pass


def head_of(size: int, lines: int) -> bytes:
    """Return a head of so many bytes (line ends do not count) in so many lines, with the empty one."""
    line = b"A: " + b"x" * 100
    head = [OK.strip(), *[line] * (lines - 3), b"B:"]
    head[-1] += b"x" * (size - sum(map(len, head)))
    return b"\r\n".join([*head, b"", b""])


async def test_a_head_may_be_so_long_and_no_longer() -> None:
    longest = MAX_HEAD_BYTES - 20  # what the line end and the empty line take
    assert (await answer_to(head_of(longest, 100)))[0] == 200
    assert await failure_of(head_of(MAX_HEAD_BYTES + 20, 100)) == "the head of the answer is too long"
    assert await failure_of(head_of(MAX_HEAD_BYTES + 20, 4)) == "the head of the answer is too long"


async def test_a_head_may_have_so_many_lines_and_no_more() -> None:
    assert (await answer_to(head_of(14_000, MAX_HEAD_LINES)))[0] == 200
    reason = f"the head of the answer is longer than {MAX_HEAD_LINES} lines"
    assert await failure_of(head_of(14_000, MAX_HEAD_LINES + 1)) == reason
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await answer_to(interim * (MAX_HEAD_LINES // 2 - 1) + OK + b"\r\n"))[0] == 200
    assert await failure_of(interim * (MAX_HEAD_LINES // 2) + OK + b"\r\n") == reason


@pytest.mark.parametrize(
    ("head", "part", "reason"),
    [
        (OK, b"A: b\r\n", "the head of the answer is longer than 128 lines"),
        (OK, b"A: " + b"b" * 5000 + b"\r\n", "the head of the answer is too long"),
        (OK + b"A: ", b"b", "the head of the answer is too long"),
        (OK, b"b", "the head of the answer is too long"),
        (b"HTTP/1.1 200 ", b"b", "the head of the answer is too long"),
        (b"", b"HTTP/1.1 100 \r\n\r\n", "the head of the answer is longer than 128 lines"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "the head of the answer is longer than 128 lines"),
        (CHUNKED, b"1\r\nA\r\n", f"the answer comes in more than {MAX_CHUNKS} chunks"),
        (CHUNKED + b"1;", b"x", "the chunk extensions of the answer are too long"),
        (CHUNKED, b"1;" + b"x" * 900 + b"\r\nA\r\n", "the chunk extensions of the answer are too long"),
        (CHUNKED, b"0", "the chunk extensions of the answer are too long"),
        (CHUNKED + b"1\r\nA", b"x", NO_HTTP),
        (CHUNKED, b"\n", NO_HTTP),
        (OK + b"\r\n", b"x", f"the answer is longer than {MAX_RECEIVED // 1024} KiB"),
        (OK + b"Content-Length: 104857600\r\n\r\n", b"x", f"the answer is longer than {MAX_RECEIVED // 1024} KiB"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_never_ends_ends_at_a_bound(head: bytes, part: bytes, reason: str) -> None:
    async with talking(repeating(head, part)) as port, asyncio.timeout(10):
        with pytest.raises(Failed) as caught:
            async with exchange("127.0.0.1", port, GET) as response:
                await body_of(response)
    assert str(caught.value) == reason


# --- The body -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (OK + b"\r\nuntil the end", b"until the end"),
        (OK + b"Content-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\n", b"body"),
        (OK + b"Content-Length: 0\r\n\r\nbody", b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody", b""),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", b""),
        (CHUNKED + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", b"body"),
        (CHUNKED + b"000A \r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (CHUNKED + b'4;name="\xff;\x00"\r\nbody\r\n0;x\r\nTrailer: x\r\n\r\n', b"body"),
        (CHUNKED + b"4\nbody\n0\n\n", b"body"),
        (CHUNKED + b"0\r\n", b""),
        (OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 1\r\n\r\n4\r\nbody\r\n0\r\n\r\n", b"body"),
    ],
    ids=lambda value: repr(value)[-40:],
)
async def test_where_a_body_ends(said: bytes, body: bytes) -> None:
    assert (await answer_to(said))[2] == body
    assert (await answer_to(*(said[n : n + 1] for n in range(len(said)))))[2] == body


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (OK + b"Content-Length: 5\r\n\r\nbody", BREAKS_OFF),
        (CHUNKED, BREAKS_OFF),
        (CHUNKED + b"5\r\nbody", BREAKS_OFF),
        (CHUNKED + b"4\r\nbody", BREAKS_OFF),
        (CHUNKED + b"4\r\nbody\r\n", BREAKS_OFF),
        (CHUNKED + b"4\r\nbody0\r\n\r\n", NO_HTTP),
        (CHUNKED + b"\r\n", NO_HTTP),
        (CHUNKED + b"-1\r\n", NO_HTTP),
        (CHUNKED + b"0x4\r\nbody\r\n0\r\n\r\n", NO_HTTP),
        (CHUNKED + b" 4\r\nbody\r\n0\r\n\r\n", NO_HTTP),
        (CHUNKED + b"FFFFFFFFF\r\nbody", NO_HTTP),
        (CHUNKED + b"zz\r\n", NO_HTTP),
    ],
    ids=lambda value: repr(value)[-40:],
)
async def test_a_body_that_does_not_end_as_it_should_is_none(said: bytes, reason: str) -> None:
    assert await failure_of(said) == reason


async def test_the_end_stays_the_end() -> None:
    said = CHUNKED + b"1\r\nA\r\n0\r\n\r\n4\r\nmore\r\n"
    async with talking(saying(said)) as port, exchange("127.0.0.1", port, GET) as response:
        assert [await response.read() for _ in range(4)] == [b"A", b"", b"", b""]


async def test_a_body_may_have_so_many_chunks() -> None:
    chunk, end = b"1\r\nA\r\n", b"0\r\n\r\n"
    assert len((await answer_to(CHUNKED + chunk * (MAX_CHUNKS - 1) + end))[2]) == MAX_CHUNKS - 1
    assert await failure_of(CHUNKED + chunk * MAX_CHUNKS + end) == f"the answer comes in more than {MAX_CHUNKS} chunks"


async def test_many_chunks_leave_the_others_their_turns() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    said = CHUNKED + b"1\r\nA\r\n" * 1000 + b"0\r\n\r\n"
    async with talking(saying(said)) as port, exchange("127.0.0.1", port, GET) as response:
        await response.read()
        await asyncio.sleep(0.1)  # the rest has come meanwhile, and nothing has to be waited for
        task = asyncio.create_task(others())
        await body_of(response)
        task.cancel()
    assert turns >= 10


async def test_what_has_come_is_given_before_the_rest() -> None:
    talk = saying(OK + b"\r\ndata: 1\n\n", stay=True)
    async with asyncio.timeout(5), talking(talk) as port, exchange("127.0.0.1", port, GET) as response:
        assert await response.read() == b"data: 1\n\n"


async def test_chunk_sizes_and_extensions_add_up() -> None:
    chunk = b"1;" + b"x" * 98 + b"\r\nA\r\n"
    fits = MAX_FRAMING_BYTES // 100
    assert (await answer_to(CHUNKED + chunk * fits + b"0\r\n\r\n"))[2] == b"A" * fits
    assert await failure_of(CHUNKED + chunk * (fits + 1) + b"0\r\n\r\n") == (
        "the chunk extensions of the answer are too long"
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=60).map(lambda part: part * 50), max_size=12),
    st.sampled_from(["length", "chunks", "end"]),
    st.integers(1, 4000),
)
def test_a_body_is_read_as_it_was_sent_however_it_was_cut(parts: list[bytes], framing: str, cut: int) -> None:
    body = b"".join(parts)
    said = {
        "length": OK + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        "chunks": CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n",
        "end": OK + b"\r\n" + body,
    }[framing]
    pieces = [said[start : start + cut] for start in range(0, len(said), cut)]
    assert asyncio.run(answer_to(*pieces))[2] == body


SAID = st.lists(
    st.one_of(
        st.sampled_from(
            [OK, b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n", b"4\r\n", b"0\r\n"]
        ),
        st.sampled_from([b"Content-Length: 3\r\n", b"Content-Length: 10\r\n", b"A: b\r\n", b" b\n", b"body", b";x"]),
        st.binary(max_size=20),
    ),
    max_size=10,
).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(SAID)
def test_whatever_is_said_is_an_answer_or_a_failure(said: bytes) -> None:
    try:
        status, headers, body = asyncio.run(answer_to(said))
    except (Failed, ConnectionResetError):
        return
    assert 100 <= status <= 999
    assert all(name == name.lower() and "\n" not in value and "\x00" not in value for name, value in headers.items())
    assert body in said or b"chunked" in said


# --- The connection -------------------------------------------------------------------------------------------------


async def test_a_server_gets_rid_of_little_more_than_is_read() -> None:
    """Linux keeps up to 6 MiB for a connection that is read fast: memory of ours, to a container's limit."""
    written = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loop = asyncio.get_running_loop()
        raw = socket.socket(fileno=os.dup(sock.fileno()))
        raw.setblocking(False)
        with raw:
            for _ in range(4096):
                await loop.sock_sendall(raw, (OK + b"\r\n").ljust(256, b"x"))
                written += 256

    async with talking(talk) as port, exchange("127.0.0.1", port, GET) as response:
        read = 0
        while read < 128 * 1024:
            read += len(await response.read())
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.1)
    assert written - read <= 112 * 1024


async def test_an_answer_over_ipv6() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text="six")

    try:
        async with serving(handler, host="::1") as port, exchange("::1", port, GET) as response:
            assert await body_of(response) == b"six"
    except OSError as error:
        if error.errno is not None:
            pytest.skip(f"no IPv6 here: {error}")
        raise


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("said", [b"", OK, OK + b"\r\n" + b"x" * 50_000], ids=["silent", "in the head", "in the body"])
@pytest.mark.parametrize("over", ["http", "https"])
async def test_nothing_is_left_of_an_exchange_that_is_given_up(
    said: bytes, over: str, certificate: Certificate
) -> None:
    server, tls = (certificate.server, trusting(certificate)) if over == "https" else (None, None)
    async with talking(saying(said, stay=True), tls=server) as port:
        before = descriptors()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), exchange("127.0.0.1", port, GET, tls=tls, server_name=NAME) as response:
                await body_of(response)
        async with asyncio.timeout(20):
            while descriptors() > before:  # fewer, if something of an earlier test was collected meanwhile
                await asyncio.sleep(0.01)  # the server has to notice, too


# --- TLS ------------------------------------------------------------------------------------------------------------

NAME = "prometheus.monitoring.svc.cluster.local"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.file)


async def test_a_long_body_over_tls(certificate: Certificate) -> None:
    body = os.urandom(300_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    async with serving(handler, tls=certificate.server) as port:
        tls = trusting(certificate)
        async with exchange("127.0.0.1", port, GET, tls=tls, server_name=NAME) as response:
            assert await body_of(response) == body


@pytest.mark.parametrize("framing", [b"\r\n", b"Content-Length: 100\r\n\r\n"])
async def test_a_server_that_hangs_up_without_ending_tls(certificate: Certificate, framing: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + framing + b"body")
        await writer.drain()
        writer.transport.abort()

    async with talking(talk, tls=certificate.server) as port:
        tls = trusting(certificate)
        async with exchange("127.0.0.1", port, GET, tls=tls, server_name=NAME) as response:
            if framing == b"\r\n":
                assert await body_of(response) == b"body"
            else:
                with pytest.raises(Failed, match=BREAKS_OFF):
                    await body_of(response)


@asynccontextmanager
async def shaking_hands(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[str]]]:
    """Do handshakes, and nothing after them. Yields the port, and a list of the errors that ended them.

    asyncio's own server keeps to itself what is wrong; others send it as an alert, and read ours.
    """
    errors: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_side=True)
        while received := await reader.read(10_000):
            incoming.write(received)
            try:
                connection.do_handshake()
                connection.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                errors.append(error.reason)
            writer.write(outgoing.read())

    async with accepting(listen) as port:
        yield port, errors


async def test_a_server_that_wants_a_certificate_of_ours_gets_none(certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.file.with_name("key.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    async with asyncio.timeout(5), shaking_hands(context) as (port, _):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            async with exchange("127.0.0.1", port, GET, tls=trusting(certificate), server_name=NAME):
                pass


async def test_what_went_wrong_first_is_what_counts(certificate: Certificate) -> None:
    """That a server which speaks nonsense has hung up, and cannot be told so any more, does not matter."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00")  # an empty ServerHello
        writer.transport.abort()

    async with accepting(talk) as port:
        with pytest.raises(ssl.SSLError, match="LENGTH"):
            async with exchange("127.0.0.1", port, GET, tls=trusting(certificate), server_name=NAME):
                pass


async def test_the_server_is_told_what_is_wrong_with_its_certificate(certificate: Certificate) -> None:
    async with asyncio.timeout(5), shaking_hands(certificate.server) as (port, errors):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with exchange("127.0.0.1", port, GET, tls=ssl.create_default_context(), server_name=NAME):
                pass
        while not errors:
            await asyncio.sleep(0.01)
    assert errors == ["TLSV1_ALERT_UNKNOWN_CA"]
