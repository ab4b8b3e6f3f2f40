"""One HTTP check of one endpoint: no redirects, pinned address, bounded body.

A backend is not trusted. Whatever it does costs one attempt of bounded time, a bounded number of bytes, and a line of
our own words.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset import __version__
from dynamic_toolset.health import reasons
from dynamic_toolset.health.exchange import Request, Response, exchange
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.identity import Answer, mismatch
from dynamic_toolset.health.reasons import Failed
from dynamic_toolset.health.shares import Shares
from dynamic_toolset.health.trust import trust
from dynamic_toolset.model import Candidate, Endpoint, Health, Identity, Verdict
from dynamic_toolset.settings import HealthCheckSettings, seconds

MAX_BODY_BYTES = 256 * 1024
"""What is read of an answer. An Alertmanager's status holds its whole configuration, a VictoriaMetrics' metrics come to
100 KiB and more, and JSON that is cut off proves nothing."""

SHORT_BODY_BYTES = 16 * 1024
"""What every attempt may read. Most answers that identify a product are shorter than 4 KiB."""

LONG_BODIES = 128
"""How many attempts at once may read more, and so fill 32 MiB at most. Without this bound it would be 128 MiB with 512
attempts at once."""

_LONG_BODY_GRACE = 0.5
"""Seconds that the rest of a long body may take while others wait to read theirs: 512 that never end theirs hold up
one that does for two seconds at most."""

MAX_EVENTS = 32
"""How many events of a stream are waited for: the judgement after each costs time."""

MAX_ADDRESSES = 4
"""How many addresses of one name are tried in one attempt, as long as none of them accepts a connection."""

_NAME_LOOKUPS = 16
"""Threads for getaddrinfo, which cannot be cancelled. They are our own: slow names must not hold up whoever else uses
the event loop's threads."""

_END_OF_SESSION = 1.0
"""Seconds that giving back a session may take."""

_SUCCESS = frozenset({200, 204})
_NEEDS_CREDENTIALS = frozenset({401, 403})

_URL_PATH = re.compile(r'/[!"$-~]*')
"""A path with a query: printable ASCII from the first slash on, no fragment."""

_HOST = re.compile(r"[A-Za-z0-9._:-]+")

_SESSION_ID = re.compile(r"[!-~]{1,1024}")
"""Visible ASCII only (MCP 2025-06-18, Streamable HTTP, session management)."""

_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")


UNASKED = Health(Verdict.HEALTHY, "taken for healthy: the setting healthCheck.enabled is false")


class _Refused(Failed):
    """The guard does not let the attempt be made."""


class Probe:
    """Checks endpoints: ``await probe(candidate)`` is one attempt. Used as an async context manager.

    The address that the guard has judged is the one that is dialled: the Service's own where it has one, otherwise
    what its name resolves to at this moment, once. Host header and TLS server name are those of the endpoint.

    If checks are not ``enabled``, no backend is asked anything, and each is UNASKED, a healthy one. Names are looked up
    all the same: the guard still refuses an address that must not be published.

    ``authorities`` are the certificates that are trusted besides the system's, see ``read_authorities``.
    """

    def __init__(self, settings: HealthCheckSettings, guard: Guard, authorities: str = "") -> None:
        self._guard = guard
        self._settings = settings
        self._authorities = authorities
        self._timeout = seconds(settings.timeout)
        self._long_bodies = Shares(LONG_BODIES, _LONG_BODY_GRACE)

    async def __aenter__(self) -> Self:
        self._names = ThreadPoolExecutor(_NAME_LOOKUPS, thread_name_prefix="name-lookup")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._names.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, candidate: Candidate) -> Health:
        """Make one attempt: the health request, then identity requests until one identity holds.

        Takes ``settings.timeout`` at most, and a second more where a session must be given back. Raises nothing for
        what a backend does: the Health says it. If the guard does not let it be made, the Health is ``refused``.
        """
        if not self._settings.enabled:
            return await self._unasked(candidate.endpoint)
        loop = asyncio.get_running_loop()
        started = loop.time()
        tls = self._tls if candidate.endpoint.scheme == "https" else None
        visit = _Visit(candidate, tls=tls, long_bodies=self._long_bodies)
        try:
            async with asyncio.timeout_at(started + self._timeout):
                health = await visit.judge(await self._addresses(candidate.endpoint))
        except Failed as failure:
            health = replace(_unhealthy(str(failure)), refused=isinstance(failure, _Refused))
        except TimeoutError as error:
            # The kernel gives up on a connection with the same exception, but with an errno.
            late = f"{visit.outstanding} within {self._timeout:g} s"
            health = _unhealthy(late if error.errno is None else reasons.of_error(error))
        except (OSError, ValueError) as error:
            health = _unhealthy(reasons.of_error(error))
        duration = loop.time() - started
        await visit.give_back_session()
        return replace(health, seconds=duration)

    async def _unasked(self, endpoint: Endpoint) -> Health:
        """Return what can be said without a request. A name that does not resolve here may do so for the agent."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._addresses(endpoint)
        except _Refused as refusal:
            return replace(_unhealthy(str(refusal)), refused=True)
        except (Failed, OSError):  # TimeoutError is one
            return UNASKED
        return UNASKED

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """What certificates are verified with. Made when it is first needed: reading the system's takes 50 ms."""
        return trust(self._settings, self._authorities)

    async def _addresses(self, endpoint: Endpoint) -> list[str]:
        """Return the addresses to dial. The guard lets all pass: a name that also leads to loopback is an attack."""
        host = endpoint.address or endpoint.host
        addresses = [host] if _is_address(host) else await self._resolve(host)
        for address in addresses:
            if refusal := self._guard.refusal(address, endpoint.port):
                raise _Refused(refusal if address == host else f"{host} resolves to {address}: {refusal}")
        return addresses[:MAX_ADDRESSES]

    async def _resolve(self, host: str) -> list[str]:
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._names, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        except (socket.gaierror, UnicodeError):  # UnicodeError: a label is empty or too long
            raise Failed(f"name does not resolve: {host}") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _Reply(Struct, frozen=True):
    """What an answer came to.

    ``mismatch`` is None if one of the identities that were wanted of it holds, or none was wanted; otherwise it says
    what the first of them misses.
    """

    status: int
    location: str
    mismatch: str | None


class _Visit:
    """The requests of one attempt. ``outstanding`` says what is being waited for, should the time run out."""

    def __init__(self, candidate: Candidate, *, tls: ssl.SSLContext | None, long_bodies: Shares) -> None:
        self._candidate = candidate
        self._tls = tls
        self._long_bodies = long_bodies
        self._check = candidate.check
        self._health_path = candidate.endpoint.resolve(self._check.path, root=self._check.root) or "/"
        self._address = ""
        self._session: str | None = None
        # Before the first request only a name can keep us waiting.
        self.outstanding = f"name does not resolve: {candidate.endpoint.host}, no answer"

    async def judge(self, addresses: list[str]) -> Health:
        """Ask, and judge the answers. Raises Failed, OSError and ValueError."""
        reply = await self._health_request(addresses)
        if reply.status in _NEEDS_CREDENTIALS:
            return _needs_credentials(reply.status)
        if 300 <= reply.status < 400:
            raise Failed(reasons.of_redirect(reply.location))
        if reply.status not in _SUCCESS:
            raise Failed(f"HTTP {reply.status}")
        if not self._check.identity:
            return Health(Verdict.HEALTHY, f"answers (HTTP {reply.status})")
        return await self._identify(reply)

    async def give_back_session(self) -> None:
        """End the session that the backend opened for us, if it did. That it may not want to is its own business."""
        if self._session is None or not _SESSION_ID.fullmatch(self._session):
            return
        header = {str(self._check.session_header): self._session}
        with contextlib.suppress(Failed, OSError, ValueError):  # TimeoutError is an OSError
            async with asyncio.timeout(_END_OF_SESSION), self._request("DELETE", self._health_path, header):
                pass

    async def _health_request(self, addresses: list[str]) -> _Reply:
        """Ask the first address that accepts a connection."""
        wanted = tuple(identity for identity in self._check.identity if identity.path is None)
        *others, last = addresses
        for self._address in others:
            with contextlib.suppress(OSError):
                return await self._ask(self._check.method, self._health_path, wanted)
        self._address = last
        return await self._ask(self._check.method, self._health_path, wanted)

    async def _identify(self, health_reply: _Reply) -> Health:
        """Ask each path once, in order, until one identity of what it answers holds."""
        title = self._candidate.title
        by_path: dict[str | None, list[Identity]] = {}
        for identity in self._check.identity:
            by_path.setdefault(self._path(identity), []).append(identity)
        problems: list[str] = []
        statuses: list[int] = []
        for path, wanted in by_path.items():
            reply = health_reply if path is None else await self._ask("GET", path, tuple(wanted))
            if reply.mismatch is None:
                return Health(Verdict.HEALTHY, f"answers as {title}")
            problems.append(f"{path or self._health_path}: {reply.mismatch}")
            statuses.append(reply.status)
        for status in statuses:
            if status in _NEEDS_CREDENTIALS:
                return _needs_credentials(status)
        raise Failed(f"answers, but not as {title}: {problems[0]}")

    def _path(self, identity: Identity) -> str | None:
        """Return what is asked to see whether an identity holds, or None for the health request."""
        if identity.path is None:
            return None
        return self._candidate.endpoint.resolve(identity.path, root=identity.root) or "/"

    async def _ask(self, method: str, path: str, wanted: tuple[Identity, ...]) -> _Reply:
        """Return what the answer came to, having read as much of it as it takes to judge those that are ``wanted``."""
        self.outstanding = "no answer"
        async with self._request(method, path) as response:
            if self._check.session_header:
                self._session = self._session or response.headers.get(self._check.session_header.lower())
            answer = Answer(response.status, response.headers)
            if any(answer.status in identity.status for identity in wanted):
                problem = await self._judged(response, answer, wanted)
            else:
                problem = _mismatch(wanted, answer)
            return _Reply(answer.status, response.headers.get("location", ""), problem)

    async def _judged(self, response: Response, answer: Answer, wanted: tuple[Identity, ...]) -> str | None:
        """Read as much as it takes, or the bound allows, and judge it."""
        reading = _Reading(response, answer, wanted)
        awaited = f"nothing that shows it to be {self._candidate.title}" if reading.streams else "no complete answer"
        self.outstanding = awaited
        if await reading.reaches(SHORT_BODY_BYTES):
            self.outstanding = "no turn to read so long an answer"
            try:
                async with self._long_bodies.hold():
                    self.outstanding = awaited
                    await reading.reaches(MAX_BODY_BYTES)
                    return reading.mismatch()
            except TimeoutError:
                raise Failed("a long answer that comes too slowly, while others wait to be read") from None
        return reading.mismatch()

    @asynccontextmanager
    async def _request(self, method: str, path: str, extra: dict[str, str] | None = None) -> AsyncIterator[Response]:
        endpoint = self._candidate.endpoint
        if not _HOST.fullmatch(endpoint.host):
            raise Failed("the host of the endpoint is not a host name")
        if not _URL_PATH.fullmatch(path):
            raise Failed(f"not the path of a URL: {path}")
        theirs = {name: value for name, value in self._check.headers.items() if name.lower() not in _OURS}
        accept = {} if any(name.lower() == "accept" for name in theirs) else {"Accept": "*/*"}
        headers = {"Host": _authority(endpoint), **_HEADERS, **accept, **theirs, **(extra or {})}
        request = Request(method, path, headers, self._check.body if method == "POST" else None)
        async with exchange(
            self._address, endpoint.port, request, tls=self._tls, server_name=endpoint.host
        ) as response:
            yield response


class _Reading:
    """The body of an answer, as far as it has been read, and what of the identities it shows."""

    def __init__(self, response: Response, answer: Answer, wanted: tuple[Identity, ...]) -> None:
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.streams = media_type == "text/event-stream"
        self._response = response
        self._answer = answer
        self._wanted = wanted
        self._body = bytearray()
        self._events = 0

    async def reaches(self, size: int) -> bool:
        """Read on. Return whether the body is as long as ``size``, and goes on.

        A stream of events need not end. Reading stops as well when its events show one of the identities.
        """
        while len(self._body) < size:
            part = await self._response.read()
            looked_through = len(self._body)
            self._body += part
            if not part or (self.streams and self._is_settled(looked_through)):
                return False
        return True

    def mismatch(self) -> str | None:
        return _mismatch(self._wanted, replace(self._answer, body=bytes(self._body)))

    def _is_settled(self, looked_through: int) -> bool:
        """Whether what came after ``looked_through`` settles it: an event that shows an identity, or one too many."""
        if not _END_OF_EVENT.search(self._body, max(0, looked_through - 3)):
            return False
        self._events += 1
        return self._events >= MAX_EVENTS or self.mismatch() is None


_HEADERS = {"User-Agent": f"dynamic-toolset/{__version__}", "Accept-Encoding": "identity"}
"""Compression is not asked for. What comes compressed all the same is a bomb or a mistake, and is left as it is."""

_OURS = frozenset({"host", "user-agent", "accept-encoding", "connection", "content-length", "transfer-encoding"})
"""Headers that a service type cannot set."""


def _authority(endpoint: Endpoint) -> str:
    """Return the Host header: the port is left out where it is the scheme's own (RFC 9110, section 7.2)."""
    authority = endpoint.origin.partition("://")[2]
    return authority.removesuffix({"http": ":80", "https": ":443"}[endpoint.scheme])


def _mismatch(wanted: Iterable[Identity], answer: Answer) -> str | None:
    """Return None if one of the identities holds, or there is none, otherwise what the first of them misses."""
    first: str | None = None
    for identity in wanted:
        problem = mismatch(identity, answer)
        if problem is None:
            return None
        first = first or problem
    return first


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _unhealthy(reason: str) -> Health:
    return Health(Verdict.UNHEALTHY, reasons.one_line(reason))


def _needs_credentials(status: int) -> Health:
    return Health(Verdict.UNHEALTHY, f"needs credentials (HTTP {status})", needs_credentials=True)
