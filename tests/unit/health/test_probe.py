"""One check of one endpoint, against real servers on the loopback."""

import asyncio
import errno
import gzip
import json
import socket
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.health import probe as probing
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import MAX_BODY_BYTES, SHORT_BODY_BYTES, Probe
from dynamic_toolset.health.trust import read_authorities
from dynamic_toolset.model import Candidate, Health, HealthCheck, Identity, Verdict
from dynamic_toolset.settings import HealthCheckSettings
from tests.unit.health.backends import Certificate, Handler, Talk, repeating, saying, serving, talking, text
from tests.unit.health.candidates import PROMETHEUS, candidate

LOOPBACK = Guard(["127.0.0.0/8"])
PATIENCE = 10
BUILD = {"status": "success", "data": {"version": "3.1.0", "revision": "abc"}}
ONLY_STATUS = HealthCheck(path="/-/healthy")
SAME_ANSWER = HealthCheck(path="/", identity=(Identity(body="I am Prometheus"),))
OK = b"HTTP/1.1 200 OK\r\n"


async def prometheus(request: web.Request) -> web.StreamResponse:
    if request.path == "/-/healthy":
        return web.Response(text="Prometheus Server is Healthy.")
    if request.path == "/api/v1/status/buildinfo":
        return web.json_response(BUILD)
    return web.Response(status=404)


def at(port: int, check: HealthCheck = PROMETHEUS, address: str | None = "127.0.0.1", **rest: Any) -> Candidate:
    return candidate(check=check, port=port, address=address, **rest)


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    async with patient() as probe:
        yield probe


def patient(guard: Guard = LOOPBACK) -> Probe:
    """A probe for backends that answer, which may take some seconds on a busy machine."""
    return Probe(HealthCheckSettings(timeout=f"{PATIENCE}s"), guard)


def impatient() -> Probe:
    """A probe for backends that do not."""
    return Probe(HealthCheckSettings(timeout="1s"), LOOPBACK)


async def health_of(
    handler: Handler, check: HealthCheck = PROMETHEUS, *, probe: Probe | None = None, **rest: Any
) -> Health:
    async with serving(handler) as port, probe or patient() as probe:
        return await probe(at(port, check, **rest))


async def health_when_said(
    *parts: bytes, check: HealthCheck = PROMETHEUS, pause: float = 0, stay: bool = False
) -> Health:
    async with talking(saying(*parts, pause=pause, stay=stay)) as port, patient() as probe:
        return await probe(at(port, check))


# --- Those that answer ----------------------------------------------------------------------------------------------


async def test_a_prometheus_that_answers_as_one_is_healthy() -> None:
    health = await health_of(prometheus)
    assert (health.verdict, health.reason) == (Verdict.HEALTHY, "answers as Prometheus")
    assert 0 < health.seconds < PATIENCE


@pytest.mark.parametrize("status", [200, 204])
async def test_without_an_identity_the_status_suffices(status: int) -> None:
    health = await health_of(text(status=status), ONLY_STATUS)
    assert (health.verdict, health.reason) == (Verdict.HEALTHY, f"answers (HTTP {status})")


@pytest.mark.parametrize("status", [201, 206, 400, 404, 429, 500, 503])
async def test_any_other_status_is_unhealthy(status: int) -> None:
    health = await health_of(text("I am Prometheus", status), SAME_ANSWER)
    assert (health.verdict, health.reason, health.needs_credentials) == (Verdict.UNHEALTHY, f"HTTP {status}", False)


@pytest.mark.parametrize("status", [401, 403])
async def test_one_that_wants_credentials_says_so_and_is_asked_no_further(status: int) -> None:
    asked: list[str] = []

    async def locked(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status)

    health = await health_of(locked)
    assert (health.verdict, health.needs_credentials) == (Verdict.UNHEALTHY, True)
    assert health.reason == f"needs credentials (HTTP {status})"
    assert asked == ["/-/healthy"]


async def test_one_whose_api_wants_credentials_though_its_health_does_not() -> None:
    async def behind_a_proxy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if request.path == "/-/healthy" else 401)

    health = await health_of(behind_a_proxy)
    assert (health.verdict, health.needs_credentials) == (Verdict.UNHEALTHY, True)
    assert health.reason == "needs credentials (HTTP 401)"


async def test_a_page_that_answers_200_to_everything_is_no_prometheus() -> None:
    health = await health_of(text("<h1>Welcome to nginx!</h1>"))
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason == "answers, but not as Prometheus: /api/v1/status/buildinfo: not JSON"


async def test_one_identity_of_several_is_enough_and_the_first_is_what_is_missed() -> None:
    check = HealthCheck(
        identity=(Identity(path="/one"), Identity(path="/two", json={"/a": "1"}), Identity(path="/two"))
    )
    asked: list[str] = []

    def only(path: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            return web.json_response({"a": 2}, status=200 if request.path in ("/", path) else 404)

        return handler

    assert (await health_of(only("/two"), check)).verdict is Verdict.HEALTHY
    assert asked == ["/", "/one", "/two"], "the same path is asked once"
    missed = await health_of(only("/"), check)
    assert missed.reason == "answers, but not as Prometheus: /one: HTTP 404"


async def test_an_identity_without_a_path_judges_the_health_answer() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="I am Prometheus")

    assert (await health_of(handler, SAME_ANSWER)).verdict is Verdict.HEALTHY
    assert asked == ["/"]


async def test_no_path_at_all_is_the_root_of_the_host() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if request.path == "/" else 404)

    assert (await health_of(handler, HealthCheck(path="", identity=(Identity(path=""),)))).verdict is Verdict.HEALTHY


async def test_what_is_asked_and_how() -> None:
    check = HealthCheck(
        path="/ready?verbose=1&name=%2F",
        method="POST",
        headers={
            "X-Scope-OrgID": "anonymous",
            "Content-Type": "application/json",
            "accept": "text/plain",
            "Host": "evil",
            "user-agent": "evil",
            "ACCEPT-ENCODING": "gzip",
            "Content-Length": "1",
            "transfer-encoding": "chunked",
            "Connection": "keep-alive",
        },
        body='{"ping": 1}',
        identity=(Identity(path="/id"), Identity(path="/top", root=True)),
    )
    seen: list[tuple[str, str, str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.raw_path, request.headers["Host"], await request.text()))
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.headers["User-Agent"].startswith("dynamic-toolset/")
        assert request.headers["X-Scope-OrgID"] == "anonymous"
        assert "Cookie" not in request.headers
        assert request.headers["Connection"] == "close"
        assert request.headers.getall("Accept") == ["text/plain"]
        response = web.Response(status=200 if request.path in ("/base/ready", "/top") else 404)
        response.set_cookie("session", "1")
        return response

    async with serving(handler) as port, Probe(HealthCheckSettings(timeout="1s"), LOOPBACK) as probe:
        for _ in range(2):
            assert (await probe(at(port, check, path="/base"))).verdict is Verdict.HEALTHY
    host = f"prometheus.monitoring.svc.cluster.local:{port}"
    assert seen[:3] == [
        ("POST", "/base/ready?verbose=1&name=%2F", host, '{"ping": 1}'),
        ("GET", "/base/id", host, ""),
        ("GET", "/top", host, ""),
    ]


async def test_each_request_has_a_connection_of_its_own_which_ends_with_it(probe: Probe) -> None:
    connections: list[asyncio.Transport] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        connections.append(request.transport)
        return await prometheus(request)

    async with serving(handler) as port:
        await probe(at(port))
        assert len(set(connections)) == 2
        async with asyncio.timeout(PATIENCE):
            while not all(connection.is_closing() for connection in connections):
                await asyncio.sleep(0.01)


async def test_anything_is_accepted_where_the_type_does_not_say_what() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if request.headers.getall("Accept") == ["*/*"] else 406)

    assert (await health_of(handler, ONLY_STATUS)).verdict is Verdict.HEALTHY


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await health_of(prometheus)).verdict is Verdict.HEALTHY


# --- Redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("http://login.example.com/sso?token=secret", "login.example.com"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ("/graph", "another path"),
        ("", "another path"),
        ("http://{{ env.SECRET }}/", "elsewhere"),
        ("http://[::1/", "elsewhere"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_only_its_host_is_shown(status: int, location: str, where: str) -> None:
    health = await health_of(text("I am Prometheus", status, Location=location), SAME_ANSWER)
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason == f"redirects to {where} (redirects are not followed)"


async def test_a_redirect_to_ourselves_is_not_followed_either() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPFound("/again")

    assert (await health_of(handler)).verdict is Verdict.UNHEALTHY
    assert asked == ["/-/healthy"]


# --- Backends from hell ---------------------------------------------------------------------------------------------


NOT_AS = "answers, but not as Prometheus: /: the text is not as expected"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MANY = b"Content-Length: 104857600\r\n\r\n"
BOMB = gzip.compress(b"I am Prometheus" * 4_000_000)
GZIPPED = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
SPLIT = b"Set-Cookie: a=b\r\nContent-Length: 15\r\n\r\nI am Prometheus"
NO_HTTP = "the answer is not HTTP"


def drop_by_drop(said: bytes) -> Talk:
    return saying(*(said[n : n + 1] for n in range(len(said))), pause=0.05)


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        pytest.param(saying(), "connection closed without an answer", id="hangs up"),
        pytest.param(saying(stay=True), "no answer within 1 s", id="silent"),
        pytest.param(saying(OK, stay=True), "no answer within 1 s", id="silent in its head"),
        pytest.param(saying(OK + b"\r\nI am", stay=True), "no complete answer within 1 s", id="silent in its body"),
        pytest.param(
            saying(OK + MANY + b"A" * 260_000, stay=True), "no complete answer within 1 s", id="255 KiB, then silent"
        ),
        pytest.param(drop_by_drop(OK * 10), "no answer within 1 s", id="one byte at a time"),
        pytest.param(
            saying(OK + b"\r\n", *[b"I"] * 100, pause=0.05),
            "no complete answer within 1 s",
            id="one byte of body at a time",
        ),
        pytest.param(repeating(OK + b"\r\n", b"A"), NOT_AS, id="endless body"),
        pytest.param(repeating(OK + MANY, b"A"), NOT_AS, id="100 MB"),
        pytest.param(repeating(CHUNKED, b"1000\r\n" + b"A" * 4096 + b"\r\n"), NOT_AS, id="endless chunks"),
        pytest.param(
            repeating(CHUNKED, b"1\r\nA\r\n"), "the answer comes in more than 1024 chunks", id="chunks of one byte"
        ),
        pytest.param(
            repeating(CHUNKED + b"1;", b"x"),
            "the chunk extensions of the answer are too long",
            id="endless chunk extension",
        ),
        pytest.param(repeating(CHUNKED + b"1\r\nA\r\n0\r\n", b"X: y\r\n"), NOT_AS, id="endless trailers"),
        pytest.param(saying(GZIPPED), NOT_AS, id="compressed bomb"),
        pytest.param(repeating(OK + b"X: ", b"x"), "the head of the answer is too long", id="endless header"),
        pytest.param(
            repeating(OK, b"X: x\r\n"), "the head of the answer is longer than 128 lines", id="endless headers"
        ),
        pytest.param(
            repeating(OK, b"X: " + b"x" * 8000 + b"\r\n"), "the head of the answer is too long", id="huge headers"
        ),
        pytest.param(
            repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            "the head of the answer is longer than 128 lines",
            id="endless 100 Continue",
        ),
        pytest.param(
            repeating(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"),
            "the head of the answer is longer than 128 lines",
            id="endless early hints",
        ),
        pytest.param(
            saying(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 100, pause=0.05), "no answer within 1 s", id="slow 102s"
        ),
        pytest.param(repeating(OK + b"Content-Length: 0\r\n\r\n", OK + b"\r\n"), NOT_AS, id="answers nobody asked for"),
        pytest.param(saying(b"SSH-2.0-OpenSSH_9.6\r\n"), NO_HTTP, id="SSH"),
        pytest.param(saying(b"J\x00\x00\x00\n8.0.36\x00", stay=True), NO_HTTP, id="MySQL"),
        pytest.param(saying(b"\x00\x01\x02\x03" * 100), NO_HTTP, id="binary"),
        pytest.param(saying(b"I am Prometheus"), NO_HTTP, id="HTTP/0.9"),
        pytest.param(saying(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", stay=True), NO_HTTP, id="HTTP/2"),
        pytest.param(saying(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), NO_HTTP, id="HTTP/2 preface"),
        pytest.param(saying(OK + b"X: a\r" + SPLIT), NO_HTTP, id="header split by CR"),
        pytest.param(saying(OK + b"X: a\x00\r\n" + SPLIT), NO_HTTP, id="header split by NUL"),
        pytest.param(saying(OK + b"X: a\r\n \r\n" + SPLIT), NO_HTTP, id="folded header"),
        pytest.param(saying(b"HTTP/1.1 404 \r\n" + OK + SPLIT), NO_HTTP, id="status line within the head"),
        pytest.param(
            saying(b"HTTP/1.1 404 Not\rFound\r\nContent-Length: 0\r\n\r\n" + OK + SPLIT),
            "HTTP 404",
            id="split status line",
        ),
        pytest.param(saying(OK + b"Bad Header: x\r\n\r\n"), NO_HTTP, id="malformed header"),
        pytest.param(saying(OK + b"Content-Length: -1\r\n\r\n"), NO_HTTP, id="negative length"),
        pytest.param(saying(OK + b"Content-Length: 100\r\n\r\nI am"), "the answer breaks off", id="too short"),
        pytest.param(saying(CHUNKED + b"zz\r\n"), NO_HTTP, id="malformed chunk"),
        pytest.param(
            saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "HTTP 101", id="another protocol"
        ),
        pytest.param(saying(b"HTTP/1.1 999 \r\n\r\n"), "HTTP 999", id="no status that exists"),
        pytest.param(
            saying(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\x1b[2J\r\n\r\n"),
            NO_HTTP,
            id="escape in Location",
        ),
        pytest.param(
            saying(b"HTTP/1.1 302 Found\r\nLocation: http://a\tb/\r\n\r\n"),
            "redirects to ab (redirects are not followed)",
            id="tab in Location",
        ),
        pytest.param(
            saying(b"HTTP/1.1 302 Found\r\nLocation: http://\xe2\x80\xae{{x}}/\r\n\r\n"),
            "redirects to elsewhere (redirects are not followed)",
            id="no ASCII in Location",
        ),
    ],
)
async def test_a_backend_from_hell_costs_one_attempt_and_is_named(talk: Talk, reason: str) -> None:
    began = time.monotonic()
    async with talking(talk) as port, impatient() if "within" in reason else patient() as probe:
        health = await probe(at(port, SAME_ANSWER))
    assert health == Health(Verdict.UNHEALTHY, reason, seconds=health.seconds)
    assert time.monotonic() - began < PATIENCE


async def test_nothing_listens(probe: Probe) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        health = await probe(at(held.getsockname()[1]))
    assert (health.verdict, health.reason) == (Verdict.UNHEALTHY, "connection refused")


async def test_there_is_no_route() -> None:
    # Linux has no route for a connection to a group: nothing is sent.
    async with Probe(HealthCheckSettings(timeout="1s"), Guard(["224.0.0.0/4"])) as probe:
        health = await probe(at(9090, address="224.0.0.1"))
    assert (health.verdict, health.reason) == (Verdict.UNHEALTHY, "network is unreachable")


async def test_the_kernel_gives_up_first(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connect call failed")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", give_up)
    assert (await probe(at(1))).reason == "connection timed out"


async def test_the_connection_is_never_accepted() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        filling = [socket.socket() for _ in range(4)]
        try:
            for one in filling:
                one.setblocking(False)
                one.connect_ex(address)
            async with impatient() as probe:
                health = await probe(at(address[1]))
        finally:
            for one in filling:
                one.close()
    assert health.reason == "no answer within 1 s"
    assert 0.9 < health.seconds < PATIENCE


async def test_an_identity_that_never_comes() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path != "/-/healthy":
            await asyncio.sleep(30)
        return web.Response()

    assert (await health_of(handler, probe=impatient())).reason == "no answer within 1 s"


@pytest.mark.parametrize("check", [SAME_ANSWER, ONLY_STATUS])
async def test_an_endless_body_is_read_to_the_bound_only(check: HealthCheck, probe: Probe) -> None:
    async with talking(repeating(OK + b"\r\n", b"A")) as port:
        tracemalloc.start()
        health = await probe(at(port, check))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert health.verdict is (Verdict.HEALTHY if check is ONLY_STATUS else Verdict.UNHEALTHY)
    assert health.seconds < PATIENCE
    assert peak < 2 * 1024 * 1024


async def test_100_megabytes_whose_beginning_proves_it(probe: Probe) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(100 * 1024 * 1024)})
        await response.prepare(request)
        await response.write(b"I am Prometheus")
        for _ in range(1600):
            await response.write(b"x" * 65536)
        return response

    async with serving(handler) as port:
        health = await probe(at(port, SAME_ANSWER))
    assert health.verdict is Verdict.HEALTHY


@pytest.mark.parametrize(("kibibytes", "verdict"), [(200, Verdict.HEALTHY), (300, Verdict.UNHEALTHY)])
async def test_a_long_document_is_read_as_long_as_it_is_not_endless(kibibytes: int, verdict: Verdict) -> None:
    async def alertmanager(request: web.Request) -> web.StreamResponse:
        return web.json_response({"config": "x" * kibibytes * 1024, "versionInfo": {"version": "0.28"}})

    check = HealthCheck(identity=(Identity(path="/api/v2/status", json={"/versionInfo/version": ".*"}),))
    assert (await health_of(alertmanager, check)).verdict is verdict


async def test_a_compressed_bomb_is_left_as_it_is(probe: Probe) -> None:
    bomb = gzip.compress(b'{"status": "success", "data": {"revision": "' + b"a" * 50_000_000 + b'"}}')

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    async with serving(handler) as port:
        tracemalloc.start()
        health = await probe(at(port))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert health.reason == "answers, but not as Prometheus: /api/v1/status/buildinfo: not JSON"
    assert peak < 4 * 1024 * 1024


LINE = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Content-Encoding: gzip", b"Mcp-Session-Id: \xff"]
)


@settings(max_examples=100)
@given(
    st.lists(st.one_of(LINE, st.binary(max_size=40)), max_size=6).map(b"\r\n".join),
    st.sampled_from([b"", b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"]),
    st.binary(max_size=40),
)
def test_whatever_it_says_there_is_a_verdict_and_a_line(head: bytes, middle: bytes, body: bytes) -> None:
    check = msgspec.structs.replace(SAME_ANSWER, session_header="Mcp-Session-Id")
    health = asyncio.run(health_when_said(head + middle + body, check=check))
    assert health.verdict in (Verdict.HEALTHY, Verdict.UNHEALTHY)
    assert health.reason.isprintable()
    assert 0 < len(health.reason) <= 200


async def test_nothing_that_a_backend_wrote_is_in_the_reason() -> None:
    poison = "{{ env.SECRET }}\u202e<script>"

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Server": poison.encode("ascii", "ignore").decode(), "Location": "http://{{x}}/"}
        return web.Response(text=json.dumps({"status": poison}), headers=headers, reason="{{ reason }}")

    health = await health_of(handler)
    assert "{" not in health.reason
    assert health.reason == "answers, but not as Prometheus: /api/v1/status/buildinfo: /status is not as expected"


async def test_the_reason_is_one_line_whatever_the_path() -> None:
    health = await health_of(prometheus, HealthCheck(path="/x\r\nHost: evil\x00" + "y" * 500))
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason.startswith("not the path of a URL: /x??Host: evil?yyy")
    assert len(health.reason) == 200
    assert health.reason.isprintable()


@pytest.mark.parametrize("path", ["@evil.example/", "/a b", "/a#b", "/\u00e4"])
async def test_a_path_that_would_leave_the_endpoint_is_not_asked(path: str) -> None:
    assert (await health_of(prometheus, HealthCheck(path=path))).reason.startswith("not the path of a URL: ")


async def test_a_host_that_is_none_is_not_asked() -> None:
    health = await health_of(prometheus, host="x\r\nX-Evil: 1")
    assert health.reason == "the host of the endpoint is not a host name"


async def test_a_header_that_cannot_be_sent_is_no_crash() -> None:
    health = await health_of(prometheus, HealthCheck(headers={"X": "a\r\nb"}))
    assert health.reason == "the check cannot be sent: its URL or one of its headers is malformed"


async def test_cancelling_is_passed_on(probe: Probe) -> None:
    async with talking(saying(stay=True)) as port:
        task = asyncio.create_task(probe(at(port)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- Many at once ---------------------------------------------------------------------------------------------------


def received(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Watch what is received on connections that are still open. Returns how to ask for the most bytes at any time."""
    loop = asyncio.get_running_loop()
    sock_recv = loop.sock_recv
    bytes_of: dict[socket.socket, int] = {}
    most = 0

    async def counting(connection: socket.socket, size: int) -> bytes:
        nonlocal most
        data = await sock_recv(connection, size)
        bytes_of[connection] = bytes_of.get(connection, 0) + len(data)
        most = max(most, sum(count for one, count in bytes_of.items() if one.fileno() >= 0))
        return data

    monkeypatch.setattr(loop, "sock_recv", counting)
    return lambda: most


@pytest.mark.parametrize(
    "said",
    [
        OK + MANY + b"A" * 250_000,
        OK + (b"X: " + b"x" * 1000 + b"\r\n") * 15,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 60,
        CHUNKED + b"1\r\nA\r\n" * 1000,
    ],
    ids=["long bodies", "huge headers", "100 Continue", "tiny chunks"],
)
async def test_what_a_crowd_can_make_us_hold_is_bounded(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LONG_BODIES", 4)
    most = received(monkeypatch)
    async with talking(saying(said, stay=True)) as port, Probe(HealthCheckSettings(timeout="2s"), LOOPBACK) as probe:
        await asyncio.gather(*(probe(at(port, SAME_ANSWER)) for _ in range(60)))
    piece = 16 * 1024
    assert most() <= 60 * (SHORT_BODY_BYTES + 3 * piece) + 4 * MAX_BODY_BYTES
    assert most() > 60 * 1000, "all of them were there at once"


async def test_who_does_not_end_a_long_answer_holds_up_a_good_one_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "LONG_BODIES", 2)
    monkeypatch.setattr(probing, "_LONG_BODY_GRACE", 0.1)

    async def alertmanager(request: web.Request) -> web.StreamResponse:
        return web.Response(text="x" * 200_000 + "I am Prometheus")

    stalling = saying(OK + MANY + b"A" * 250_000, stay=True)
    async with (
        talking(stalling) as hostile,
        serving(alertmanager) as port,
        Probe(HealthCheckSettings(timeout="10s"), LOOPBACK) as probe,
    ):
        crowd = [asyncio.create_task(probe(at(hostile, SAME_ANSWER))) for _ in range(20)]
        await asyncio.sleep(0.2)
        health = await probe(at(port, SAME_ANSWER))
        assert health.verdict is Verdict.HEALTHY
        assert health.seconds < 5
        for one in crowd:
            one.cancel()
        ended = [one.result() for one in crowd if one.done() and not one.cancelled()]
    assert {health.reason for health in ended} == {"a long answer that comes too slowly, while others wait to be read"}


# --- Addresses ------------------------------------------------------------------------------------------------------


async def test_the_services_own_address_is_dialled_and_no_name_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_dns(*_: object, **__: object) -> None:
        raise AssertionError("the name was asked for")

    async with serving(prometheus, host="127.96.3.4") as port, Probe(HealthCheckSettings(), LOOPBACK) as probe:
        monkeypatch.setattr(socket, "getaddrinfo", no_dns)
        assert (await probe(at(port, address="127.96.3.4"))).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1"])
async def test_an_address_that_the_guard_refuses_is_not_dialled(address: str) -> None:
    asked = False

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked = True
        return web.Response()

    async with serving(handler) as port, Probe(HealthCheckSettings(timeout="1s"), Guard()) as probe:
        by_address = await probe(at(port, address=address))
        by_host = await probe(at(port, address=None, host=address))
    assert by_address.verdict is Verdict.UNHEALTHY
    assert "which is not dialled" in by_address.reason
    assert (by_address.reason, by_address.refused) == (by_host.reason, True)
    assert by_host.refused
    assert not asked


async def test_the_api_server_is_not_asked_but_its_neighbours_are() -> None:
    guard = Guard(["127.0.0.0/8"])
    async with serving(prometheus) as port, Probe(HealthCheckSettings(timeout="1s"), guard) as probe:
        guard.protect([("127.0.0.1", port + 1)])
        assert (await probe(at(port))).verdict is Verdict.HEALTHY
        guard.protect([("127.0.0.1", port)])
        health = await probe(at(port))
    assert (health.verdict, health.refused) == (Verdict.UNHEALTHY, True)
    assert health.reason == "127.0.0.1 is the Kubernetes API server, which is never dialled"


# --- Without checks -------------------------------------------------------------------------------------------------


UNCHECKED = HealthCheckSettings(enabled=False, timeout="1s")


async def test_without_checks_no_backend_is_asked_and_all_are_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(saying(stay=True)) as port, Probe(UNCHECKED, LOOPBACK) as probe:
        monkeypatch.setattr(probing, "exchange", None)
        names(monkeypatch, ["127.0.0.1"], [])
        by_address = await probe(at(port))
        by_name = await probe(at(port, address=None))
        by_a_name_that_is_not_known_here = await probe(at(port, address=None))
    reason = "taken for healthy: the setting healthCheck.enabled is false"
    assert by_address == by_name == by_a_name_that_is_not_known_here == Health(Verdict.HEALTHY, reason)


async def test_without_checks_a_name_that_nobody_resolves_in_time_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Probe(UNCHECKED, LOOPBACK) as probe:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1.5))
        assert (await probe(at(1, address=None))).verdict is Verdict.HEALTHY


async def test_without_checks_the_guard_refuses_what_it_refuses_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for how in (UNCHECKED, HealthCheckSettings(timeout="1s")):
        async with Probe(how, Guard()) as probe:
            names(monkeypatch, ["169.254.169.254"])
            by_name = await probe(at(80, address=None))
            by_address = await probe(at(80, address="169.254.169.254"))
        assert (by_name.verdict, by_name.refused) == (by_address.verdict, by_address.refused)
        assert (by_name.verdict, by_name.refused) == (Verdict.UNHEALTHY, True)
        assert by_name.reason.endswith(by_address.reason)


async def test_a_failure_of_the_backend_is_no_refusal(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, [])
    assert not (await probe(at(1, address=None))).refused
    assert not (await probe(at(1))).refused


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Play the DNS: each lookup gets the next of ``answers``. Returns the names that were asked for."""
    asked: list[str] = []
    left = list(answers)

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        addresses = left.pop(0)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_is_resolved_once_and_what_was_judged_is_dialled(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Host"])
        return await prometheus(request)

    async with serving(handler, host="127.96.3.4") as port:
        # A second answer, as an attacker's DNS would give, is never asked for.
        asked = names(monkeypatch, ["127.96.3.4"], ["169.254.169.254"])
        health = await probe(at(port, address=None))
    assert health.verdict is Verdict.HEALTHY
    assert asked == ["prometheus.monitoring.svc.cluster.local"]
    assert seen == [f"prometheus.monitoring.svc.cluster.local:{port}"] * 2


async def test_a_name_that_leads_elsewhere_the_next_time_is_judged_again(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(prometheus, host="127.96.3.4") as port:
        names(monkeypatch, ["127.96.3.4"], ["169.254.169.254"], ["127.96.3.4"])
        healths = [await probe(at(port, address=None)) for _ in range(3)]
    assert [health.verdict for health in healths] == [Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.HEALTHY]
    assert [health.refused for health in healths] == [False, True, False]


async def test_a_name_with_any_refused_address_is_not_dialled(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = False

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked = True
        return web.Response()

    async with serving(handler) as port:
        names(monkeypatch, ["127.0.0.1", "169.254.169.254"])
        health = await probe(at(port, address=None, host="rebind.example"))
    assert health.refused
    assert health.reason == (
        "rebind.example resolves to 169.254.169.254: 169.254.169.254 is a link-local address, which is not dialled "
        "(policy.allowedRanges can allow it)"
    )
    assert not asked


async def test_the_next_address_is_tried_where_nothing_listens(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(prometheus, host="127.96.3.4") as port:
        names(monkeypatch, ["127.96.3.5", "127.96.3.4"])
        assert (await probe(at(port, address=None))).verdict is Verdict.HEALTHY
        names(monkeypatch, ["127.96.3.5", "127.96.3.6"])
        assert (await probe(at(port, address=None))).reason == "connection refused"


async def test_a_name_that_does_not_resolve(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, [])
    assert (await probe(at(1, address=None, host="nowhere.example"))).reason == "name does not resolve: nowhere.example"


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
async def test_a_name_that_cannot_be_one(probe: Probe, host: str) -> None:
    assert (await probe(at(1, address=None, host=host))).reason == f"name does not resolve: {host}"


async def test_slow_names_hold_up_nobody_and_end_with_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(4)

    async with serving(prometheus) as port, Probe(HealthCheckSettings(timeout="3s"), LOOPBACK) as probe:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        slow_ones = [asyncio.create_task(probe(at(port, address=None, host=f"slow-{n}.example"))) for n in range(40)]
        await asyncio.sleep(0)
        assert (await probe(at(port))).verdict is Verdict.HEALTHY
        assert await asyncio.to_thread(lambda: True)
        reasons = [(await one).reason for one in slow_ones]
    assert reasons == [f"name does not resolve: slow-{n}.example, no answer within 3 s" for n in range(40)]


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


async def health_over_tls(certificate: Certificate, how: HealthCheckSettings, **rest: Any) -> Health:
    async with (
        serving(prometheus, tls=certificate.server) as port,
        Probe(how, LOOPBACK, read_authorities(how)) as probe,
    ):
        return await probe(at(port, scheme="https", **rest))


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(certificate: Certificate) -> None:
    health = await health_over_tls(certificate, HealthCheckSettings())
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason.startswith("certificate not trusted: self-signed certificate (set healthCheck.caFile")


async def test_with_its_ca_it_is_trusted_under_the_name_of_the_endpoint(certificate: Certificate) -> None:
    how = HealthCheckSettings(ca_file=str(certificate.file))
    assert (await health_over_tls(certificate, how)).verdict is Verdict.HEALTHY
    other = await health_over_tls(certificate, how, host="grafana.monitoring.svc.cluster.local")
    assert other.reason.startswith("certificate not valid: Hostname mismatch")


async def test_an_address_as_host_is_verified_as_an_address(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path, "IP:127.0.0.1")
    how = HealthCheckSettings(ca_file=str(certificate.file))
    assert (await health_over_tls(certificate, how, host="127.0.0.1")).verdict is Verdict.HEALTHY


async def test_without_verification_any_certificate_will_do(certificate: Certificate) -> None:
    how = HealthCheckSettings(verify_tls=False)
    assert (await health_over_tls(certificate, how, host="whatever.example")).verdict is Verdict.HEALTHY


async def test_the_server_is_told_which_name_is_meant(certificate: Certificate) -> None:
    told: set[str | None] = set()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.file.with_name("key.pem"))
    context.sni_callback = lambda _socket, name, _context: told.add(name)
    async with (
        serving(prometheus, tls=context) as port,
        Probe(HealthCheckSettings(verify_tls=False), LOOPBACK) as probe,
    ):
        await probe(at(port, scheme="https"))
    assert told == {"prometheus.monitoring.svc.cluster.local"}


async def test_an_expired_certificate(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path, expired=True)
    health = await health_over_tls(certificate, HealthCheckSettings(ca_file=str(certificate.file)))
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason == (
        "certificate not valid: certificate has expired (renew it, or set healthCheck.verifyTls to false)"
    )


async def test_https_asked_of_plain_http(probe: Probe) -> None:
    async with serving(prometheus) as port:
        health = await probe(at(port, scheme="https"))
    assert (health.verdict, health.reason) == (
        Verdict.UNHEALTHY,
        "TLS failed: wrong version number; does it speak https here?",
    )


async def test_plain_http_asked_of_https(probe: Probe) -> None:
    # As Java's and OpenSSL's servers answer; Go's and nginx say HTTP 400 in plain text.
    async with talking(saying(b"\x15\x03\x01\x00\x02\x02\x50")) as port:
        health = await probe(at(port))
    assert (health.verdict, health.reason) == (
        Verdict.UNHEALTHY,
        "the answer is not HTTP but TLS; does it speak https here?",
    )


async def test_a_key_exchange_that_costs_us_much_is_not_made(certificate: Certificate, tmp_path: Path) -> None:
    """A handshake in a large finite-field group is cheap to ask for and a quarter of a second of work for us."""
    file, parameters = tmp_path / "rsa.pem", tmp_path / "dh.pem"
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -subj /CN=test -days 1 -keyout {file}.key -out {file}",
        f"genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out {parameters}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    expensive = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expensive.load_cert_chain(file, f"{file}.key")
    expensive.maximum_version = ssl.TLSVersion.TLSv1_2
    expensive.set_ciphers("DHE")
    expensive.load_dh_params(parameters)
    other_curve = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other_curve.load_cert_chain(certificate.file, certificate.file.with_name("key.pem"))
    other_curve.set_ecdh_curve("secp521r1")
    for context in (expensive, other_curve):
        async with (
            serving(prometheus, tls=context) as port,
            Probe(HealthCheckSettings(verify_tls=False, timeout="1s"), LOOPBACK) as probe,
        ):
            health = await probe(at(port, scheme="https"))
        assert health.reason.startswith("TLS failed: ")


# --- Streams and sessions -------------------------------------------------------------------------------------------

MCP = HealthCheck(
    path="/mcp",
    method="POST",
    headers={"Accept": "application/json, text/event-stream", "Content-Type": "application/json"},
    body='{"jsonrpc": "2.0", "id": 1, "method": "initialize"}',
    session_header="Mcp-Session-Id",
    identity=(Identity(body=r'"protocolVersion"'),),
)
INITIALIZED = b'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}\n\n'


class McpServer:
    """Answers ``initialize`` with a stream that stays open, and remembers the sessions that were given back."""

    def __init__(self, *events: bytes, session: str = "s-1") -> None:
        self.events = events
        self.session = session
        self.ended: list[str | None] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            self.ended.append(request.headers.get("Mcp-Session-Id"))
            return web.Response(status=405)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Mcp-Session-Id": self.session}
        )
        await response.prepare(request)
        for event in self.events:
            await response.write(event)
        await asyncio.sleep(30)
        return response


async def test_a_stream_that_stays_open_is_judged_as_soon_as_the_identity_holds() -> None:
    server = McpServer(b": ping\n\n", INITIALIZED[:40], INITIALIZED[40:])
    health = await health_of(server, MCP, title="MCP server")
    assert (health.verdict, health.reason) == (Verdict.HEALTHY, "answers as MCP server")
    assert health.seconds < PATIENCE
    assert server.ended == ["s-1"]


async def test_a_session_is_given_back_even_when_the_time_ran_out() -> None:
    server = McpServer(b": ping\n\n")
    health = await health_of(server, MCP, probe=impatient(), title="MCP server")
    assert health.reason == "nothing that shows it to be MCP server within 1 s"
    assert server.ended == ["s-1"]


async def test_a_session_is_given_back_whatever_the_later_answers_say() -> None:
    ended: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            ended.append(request.headers.get("Mcp-Session-Id"))
        return web.Response(headers={"Mcp-Session-Id": "s-1"} if request.method == "POST" else {}, text="{}")

    check = msgspec.structs.replace(MCP, identity=(Identity(path="/id"),))
    assert (await health_of(handler, check)).verdict is Verdict.HEALTHY
    assert ended == ["s-1"]


async def test_a_stream_of_other_events_is_given_up_before_it_costs_much() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: {}\n\n")
            await asyncio.sleep(0.001)

    health = await health_of(handler, MCP, title="MCP server")
    assert health.reason == "answers, but not as MCP server: /mcp: the text is not as expected"
    assert health.seconds < PATIENCE


async def test_an_answer_that_is_no_stream_will_do() -> None:
    health = await health_of(text('{"result": {"protocolVersion": "2025-06-18"}}'), MCP, title="MCP server")
    assert health.verdict is Verdict.HEALTHY


@pytest.mark.parametrize("session", ["with space", "\u00e4", "x" * 2000])
async def test_a_session_that_is_none_is_not_sent_back(session: str) -> None:
    server = McpServer(INITIALIZED, session=session)
    assert (await health_of(server, MCP)).verdict is Verdict.HEALTHY
    assert server.ended == []


async def test_one_that_never_answers_the_end_of_its_session_costs_a_second_at_most() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            await asyncio.sleep(30)
        return web.Response(text='"protocolVersion"', headers={"Mcp-Session-Id": "1"})

    started = time.monotonic()
    health = await health_of(handler, MCP)
    assert health.verdict is Verdict.HEALTHY
    assert health.seconds < PATIENCE
    assert time.monotonic() - started < PATIENCE + 5  # it takes 30 s to do so
