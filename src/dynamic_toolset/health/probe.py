"""One HTTP check of one endpoint: no redirects, pinned address, bounded body.

A backend is not trusted. Whatever it does costs one attempt of bounded time, a bounded number of bytes, and a line of
our own words.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address
from types import MappingProxyType, TracebackType
from typing import Self

import aiohttp
from msgspec.structs import replace
from yarl import URL

from dynamic_toolset import __version__
from dynamic_toolset.health import reasons
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.identity import Answer, mismatch
from dynamic_toolset.model import Candidate, Endpoint, Health, Identity, Verdict
from dynamic_toolset.settings import HealthCheckSettings, SettingsError, seconds

MAX_BODY_BYTES = 256 * 1024
"""What is read of an answer. An Alertmanager's status holds its whole configuration, a VictoriaMetrics' metrics come to
100 KiB and more, and JSON that is cut off proves nothing."""

MAX_EVENTS = 32
"""How many events of a stream are waited for: the judgement after each costs time."""

MAX_ADDRESSES = 4
"""How many addresses of one name are tried in one attempt, as long as none of them accepts a connection."""

_NAME_LOOKUPS = 16
"""Threads for getaddrinfo, which cannot be cancelled. They are our own: slow names must not hold up whoever else uses
the event loop's threads."""

_KEEP_ALIVE = 0.5
"""Seconds. Connections are used again within an attempt, but not from one attempt to the next: an established one
stays with one Pod behind the ClusterIP, a new one goes where the agent's would go."""

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


class _Failure(Exception):
    """The attempt is over. The message is the reason."""


class Probe:
    """Checks endpoints: ``await probe(candidate)`` is one attempt. Used as an async context manager.

    The address that the guard has judged is the one that is dialled: the Service's own where it has one, otherwise
    what its name resolves to at this moment, once. Host header and TLS server name are those of the endpoint.

    Raises SettingsError for a CA file that cannot be used.
    """

    def __init__(self, settings: HealthCheckSettings, guard: Guard) -> None:
        self._guard = guard
        self._timeout = seconds(settings.timeout)
        self._tls = _tls(settings)

    async def __aenter__(self) -> Self:
        self._names = ThreadPoolExecutor(_NAME_LOOKUPS, thread_name_prefix="name-lookup")
        self._http = aiohttp.ClientSession(
            # How much runs at once is the checker's business.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            # One deadline spans the requests of an attempt.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            # Compression is not asked for, so what comes compressed is a bomb or a mistake, and is left as it is.
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()
        self._names.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, candidate: Candidate) -> Health:
        """Make one attempt: the health request, then identity requests until one identity holds.

        Takes ``settings.timeout`` at most, and a second more where a session must be given back. Raises nothing for
        what a backend does: the Health says it.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        visit = _Visit(self._http, candidate, tls=self._tls)
        try:
            async with asyncio.timeout_at(started + self._timeout):
                health = await visit.judge(await self._addresses(candidate.endpoint))
        except _Failure as failure:
            health = _unhealthy(str(failure))
        except TimeoutError:
            health = _unhealthy(f"{visit.outstanding} within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            health = _unhealthy(reasons.of_error(error))
        duration = loop.time() - started
        await visit.give_back_session()
        return replace(health, seconds=duration)

    async def _addresses(self, endpoint: Endpoint) -> list[str]:
        """Return the addresses to dial, all of which the guard lets pass."""
        host = endpoint.address or endpoint.host
        addresses = [host] if _is_address(host) else await self._resolve(host)
        for address in addresses:
            if refusal := self._guard.refusal(address):
                raise _Failure(refusal if address == host else f"{host} resolves to {address}: {refusal}")
        return addresses[:MAX_ADDRESSES]

    async def _resolve(self, host: str) -> list[str]:
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._names, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        except (socket.gaierror, UnicodeError):  # UnicodeError: a label is empty or too long
            raise _Failure(f"name does not resolve: {host}") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _Visit:
    """The requests of one attempt. ``outstanding`` says what is being waited for, should the time run out."""

    def __init__(self, http: aiohttp.ClientSession, candidate: Candidate, *, tls: ssl.SSLContext | bool) -> None:
        self._http = http
        self._tls = tls
        self._candidate = candidate
        self._check = candidate.check
        self._health_path = candidate.endpoint.resolve(self._check.path, root=self._check.root) or "/"
        self._address = ""
        self._session: str | None = None
        # Before the first request only a name can keep us waiting.
        self.outstanding = f"name does not resolve: {candidate.endpoint.host}, no answer"

    async def judge(self, addresses: list[str]) -> Health:
        """Ask, and judge the answers. Raises _Failure, ClientError, OSError and ValueError."""
        answer = await self._health_request(addresses)
        if answer.status in _NEEDS_CREDENTIALS:
            return _needs_credentials(answer.status)
        if 300 <= answer.status < 400:
            raise _Failure(reasons.of_redirect(answer.headers.get("Location", "")))
        if answer.status not in _SUCCESS:
            raise _Failure(f"HTTP {answer.status}")
        if not self._check.identity:
            return Health(Verdict.HEALTHY, f"answers (HTTP {answer.status})")
        return await self._identify(answer)

    async def give_back_session(self) -> None:
        """End the session that the backend opened for us, if it did. That it may not want to is its own business."""
        if self._session is None or not _SESSION_ID.fullmatch(self._session):
            return
        header = {str(self._check.session_header): self._session}
        with contextlib.suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            async with asyncio.timeout(_END_OF_SESSION), self._request("DELETE", self._health_path, header):
                pass

    async def _health_request(self, addresses: list[str]) -> Answer:
        """Ask the first address that accepts a connection."""
        wanted = tuple(identity for identity in self._check.identity if identity.path is None)
        *others, last = addresses
        for self._address in others:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                return await self._ask(self._check.method, self._health_path, wanted)
        self._address = last
        return await self._ask(self._check.method, self._health_path, wanted)

    async def _identify(self, health_answer: Answer) -> Health:
        title = self._candidate.title
        answers: dict[str, Answer] = {}
        problems: list[str] = []
        for identity in self._check.identity:
            path = self._path(identity)
            if identity.path is None:
                answer = health_answer
            elif path in answers:
                answer = answers[path]
            else:
                same = tuple(one for one in self._check.identity if one.path is not None and self._path(one) == path)
                answer = answers[path] = await self._ask("GET", path, same)
            problem = mismatch(identity, answer)
            if problem is None:
                return Health(Verdict.HEALTHY, f"answers as {title}")
            problems.append(f"{path}: {problem}")
        for answer in answers.values():
            if answer.status in _NEEDS_CREDENTIALS:
                return _needs_credentials(answer.status)
        raise _Failure(f"answers, but not as {title}: {problems[0]}")

    def _path(self, identity: Identity) -> str:
        if identity.path is None:
            return self._health_path
        return self._candidate.endpoint.resolve(identity.path, root=identity.root) or "/"

    async def _ask(self, method: str, path: str, wanted: tuple[Identity, ...]) -> Answer:
        """Return the answer, with as much of the body as it takes to judge the identities that are ``wanted``."""
        self.outstanding = "no answer"
        async with self._request(method, path) as response:
            answer = Answer(response.status, response.headers)
            if self._check.session_header:
                self._session = self._session or response.headers.get(self._check.session_header)
            if any(answer.status in identity.status for identity in wanted):
                return await self._read(response, answer, wanted)
            return answer

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer, wanted: tuple[Identity, ...]) -> Answer:
        """Read until the answer ends, or the bound; a stream of events, which need not end, until an identity holds."""
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        streams = media_type == "text/event-stream"
        self.outstanding = f"nothing that shows it to be {self._candidate.title}" if streams else "no complete answer"
        body = bytearray()
        looked_through = events = 0
        while len(body) < MAX_BODY_BYTES and events < MAX_EVENTS and (chunk := await response.content.readany()):
            body += chunk
            if not streams:
                continue
            if _END_OF_EVENT.search(body, max(0, looked_through - 3)):
                events += 1
                so_far = replace(answer, body=bytes(body[:MAX_BODY_BYTES]))
                if any(mismatch(identity, so_far) is None for identity in wanted):
                    return so_far
            looked_through = len(body)
        return replace(answer, body=bytes(body[:MAX_BODY_BYTES]))

    def _request(
        self, method: str, path: str, extra: Mapping[str, str] = MappingProxyType({})
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        endpoint = self._candidate.endpoint
        if not _HOST.fullmatch(endpoint.host):
            raise _Failure("the host of the endpoint is not a host name")
        if not _URL_PATH.fullmatch(path):
            raise _Failure(f"not the path of a URL: {path}")
        address = f"[{self._address}]" if ":" in self._address else self._address
        return self._http.request(
            method,
            URL(f"{endpoint.scheme}://{address}:{endpoint.port}{path}", encoded=True),
            headers={**self._check.headers, **extra, **_HEADERS, "Host": _authority(endpoint)},
            data=self._check.body.encode() if self._check.body is not None and method == "POST" else None,
            allow_redirects=False,
            ssl=self._tls,
            server_hostname=endpoint.host if endpoint.scheme == "https" else None,
        )


_HEADERS = {"User-Agent": f"dynamic-toolset/{__version__}", "Accept-Encoding": "identity"}


def _authority(endpoint: Endpoint) -> str:
    """Return the Host header: the port is left out where it is the scheme's own (RFC 9110, section 7.2)."""
    authority = endpoint.origin.partition("://")[2]
    return authority.removesuffix({"http": ":80", "https": ":443"}[endpoint.scheme])


def _tls(settings: HealthCheckSettings) -> ssl.SSLContext | bool:
    """Return what aiohttp is to verify with. Without a CA file its own context serves, which is made already."""
    if not settings.verify_tls or settings.ca_file is None:
        return settings.verify_tls
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(settings.ca_file)
    except OSError as error:  # ssl.SSLError, for a file that holds no certificate, is one
        raise SettingsError(f"healthCheck.caFile {settings.ca_file}: {error.strerror or error}") from None
    return context


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
