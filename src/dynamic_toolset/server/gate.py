"""What every request passes, whoever answers it: identity, bounds, who may call, how often, log and metrics.

Everything needs leave that is not on the short list of what is open to all: the probes, and the page, which holds
nothing but itself. The list is of exact paths, so that no spelling of another path gets by. A path is judged as it is
routed: the router would also take one with a slash too many, for which other rules of the cluster may hold, so such
paths lead nowhere.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address
from typing import Protocol

import structlog

from dynamic_toolset import tracing
from dynamic_toolset.server import exchange, problems
from dynamic_toolset.server.access import (
    TOKEN_HEADER,
    Access,
    AccessError,
    Unauthenticated,
    Unavailable,
    bearer_token,
)
from dynamic_toolset.server.exchange import App, Exchange, Receive, Scope, Send
from dynamic_toolset.server.limits import Allowance, CallerKey, Limiter, caller_key
from dynamic_toolset.server.problems import Refusal

log = structlog.get_logger()

PROBES = frozenset({"/healthz", "/readyz"})

OPEN = PROBES | {"/openapi.json"}
"""The paths of the API's port that need no leave. They hold nothing of a cluster."""

TIME = 30.0
"""Seconds for a request, a stream of events aside."""

AGAIN = 60.0
"""Seconds after which it is asked again whether somebody may still follow the events."""

MAX_PATH = 1024
"""Characters of a path: a namespace, a name and what stands before them have 400."""

LOGGED_PATH = 300
"""Characters of a path that go into the log."""

_API = "/api/"
"""What the paths begin with whose requests are logged and traced: of all others there are too many."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing (RFC 9110, section 9.2.1)."""

_TOKEN_HEADER = TOKEN_HEADER.lower().encode()

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_EXPOSED = b"ETag, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"


class Meter(Protocol):
    """Is told of every request that was answered."""

    def requested(self, route: str, method: str, status: int, seconds: float, request_id: str) -> None: ...


async def _at_once() -> None:
    """Wait for nothing."""


class Gate:
    """An ASGI application around another one.

    ``access`` decides who may call; without it everybody may. ``open_to_all`` are the paths that need no leave.
    ``is_ending`` says whether connections are to be closed after their next answer. ``local_only``: only names of this
    machine are answered to. Where nobody is asked for a token it is what keeps out a page from elsewhere that has its
    name resolve to loopback (DNS rebinding). ``give_way`` is awaited before a request to the API costs anything: it
    lets go first what cannot wait.
    """

    def __init__(
        self,
        app: App,
        *,
        access: Access | None,
        limiter: Limiter,
        open_to_all: Collection[str] = (),
        origins: Collection[str] = (),
        meter: Meter,
        is_ending: Callable[[], bool] = lambda: False,
        local_only: bool = False,
        give_way: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self._app = app
        self._access = access
        self._limiter = limiter
        self._open = frozenset(open_to_all)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._meter = meter
        self._is_ending = is_ending
        self._local_only = local_only
        self._give_way = give_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        one = Exchange(scope, send)
        one.add(*_SECURITY)
        if self._is_ending():
            one.add((b"connection", b"close"))
        scope.setdefault("state", {})["exchange"] = one
        if one.method == "HEAD" and one.path != exchange.STREAM:
            scope = {**scope, "method": "GET"}  # for who answers; the body goes no further than to uvicorn
        traced = tracing.request(one.header) if one.path.startswith(_API) else tracing.nothing
        with structlog.contextvars.bound_contextvars(request_id=one.id), traced:
            try:
                await self._pass(one, scope, receive)
            except Refusal as refusal:
                await self._refuse(one, scope, receive, refusal)
            except Exception:
                log.exception("request_failed", method=one.method, path=one.path[:LOGGED_PATH])
                await self._refuse(one, scope, receive, Refusal(500, problems.INTERNAL))
            finally:
                self._note(one, scope)
                del scope["state"]["exchange"]  # it holds what sends, which holds the scope

    async def _pass(self, one: Exchange, scope: Scope, receive: Receive) -> None:
        self._check_target(one, scope)
        if self._share(one):
            await one.answer(204, ())
            return
        if one.path.startswith(_API):
            await self._give_way()
        if one.path not in self._open:
            await self._admit(one)
        answer = self._app(scope, one.bounded(receive), one.send)
        await (self._follow(one, scope, answer) if one.path == exchange.STREAM else exchange.within(TIME, answer))

    def _check_target(self, one: Exchange, scope: Scope) -> None:
        if len(one.path) > MAX_PATH:
            raise Refusal(414, f"a path may have {MAX_PATH} characters")
        if not one.path.startswith("/"):
            raise Refusal(404, "there is nothing here: this is no path")
        if "//" in one.path or (one.path.endswith("/") and one.path != "/"):
            raise Refusal(404, "there is nothing here: the path has a slash too many")
        if one.count(b"host") != 1 and scope.get("http_version", "1.1") != "1.0":
            raise Refusal(400, "there must be one Host header")  # RFC 9112, section 3.2
        if self._local_only and one.path not in PROBES and not _is_local(one.header(b"host") or ""):
            raise Refusal(403, "this is answered under a name of this machine only, such as localhost")
        if self._access is None and one.method not in _SAFE and not self._is_own_site(one):
            raise Refusal(403, "a page of another site may not ask for this")

    def _is_own_site(self, one: Exchange) -> bool:
        """Whether no page of another site had a browser send this: without a token to show that takes no more.

        A form or a script may send such a request to anywhere; CORS only keeps it from the answer.
        """
        origin = one.header(b"origin")
        if origin is not None and origin.encode("latin-1") in self._origins:
            return True
        site = one.header(b"sec-fetch-site")  # the browser's own word, where it gives it (W3C, Fetch Metadata)
        if site is not None:
            return site in {"same-origin", "none"}
        return origin is None or origin.partition("://")[2].lower() == (one.header(b"host") or "").lower()

    # --- Who may call -----------------------------------------------------------------------------------------------

    async def _admit(self, one: Exchange) -> None:
        """Find out who calls, and whether that one may. A flood is refused before anybody else has work with it."""
        stranger = caller_key(None, one.address)
        if self._access is None:
            one.caller = one.address
            self._count(one, stranger)
            return
        # HEAD tells nothing that GET does not.
        token, verb = _token(one), one.method.lower().replace("head", "get")
        if not self._access.knows(token):
            self._check(one, self._limiter.peek(stranger))
        try:
            caller = await self._access.authenticate(token, one.path, verb, remote=one.address)
        except Unauthenticated as error:
            self._count(one, stranger)
            raise _refusal(error) from None
        except AccessError as error:
            raise _refusal(error) from None
        one.caller = caller.username
        self._count(one, caller_key(caller.username, one.address))
        try:
            await self._access.authorize(caller, one.path, verb, remote=one.address)
        except AccessError as error:
            raise _refusal(error) from None

    async def _follow(self, one: Exchange, scope: Scope, answer: Awaitable[None]) -> None:
        """Wait for an answer that has no end by itself, for as long as its caller may have it."""
        if self._access is None:
            await answer
            return
        watching = asyncio.create_task(self._lose(self._access, one), name="admission")
        watching.add_done_callback(lambda task: None if task.cancelled() else scope["state"]["cut"]())
        try:
            await answer
        finally:
            watching.cancel()

    async def _lose(self, access: Access, one: Exchange) -> None:
        """Wait until a caller who was let in may call no longer. While nobody can be asked he still may."""
        token, verb = _token(one), one.method.lower()
        while True:
            await asyncio.sleep(AGAIN)
            try:
                caller = await access.authenticate(token, one.path, verb, remote=one.address)
                await access.authorize(caller, one.path, verb, remote=one.address)
            except Unavailable:
                continue
            except AccessError:
                return

    def _count(self, one: Exchange, caller: CallerKey) -> None:
        self._check(one, self._limiter.take(caller))

    def _check(self, one: Exchange, allowance: Allowance) -> None:
        one.add(*((name.lower().encode(), value.encode()) for name, value in allowance.headers.items()))
        if not allowance.allowed:
            raise Refusal(
                429, f"{allowance.limit} requests a minute are allowed; try again in {allowance.retry_after} s"
            )

    # --- Other origins ----------------------------------------------------------------------------------------------

    def _share(self, one: Exchange) -> bool:
        """Let pages of the listed origins read the answer (WHATWG Fetch, CORS). Return whether they only ask if so."""
        origin = (one.header(b"origin") or "").encode("latin-1")
        if not self._origins:
            return False
        one.add((b"vary", b"Origin"))
        if origin not in self._origins:
            return False
        one.add((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED))
        if one.method != "OPTIONS" or one.header(b"access-control-request-method") is None:
            return False
        one.add(
            (b"access-control-allow-methods", b"GET, POST"),
            (
                b"access-control-allow-headers",
                b"Authorization, Content-Type, If-None-Match, Last-Event-ID, X-Request-ID",
            ),
            (b"access-control-max-age", b"600"),
        )
        return True

    # --- What is said of it -----------------------------------------------------------------------------------------

    async def _refuse(self, one: Exchange, scope: Scope, receive: Receive, refusal: Refusal) -> None:
        if one.status:  # of another answer at least half has gone out: nobody may take that for the whole
            scope["state"]["cut"]()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        body = problems.encode(refusal, instance=one.target, request_id=one.id)
        await one.answer(refusal.status, problems.headers(refusal, body), body)

    def _note(self, one: Exchange, scope: Scope) -> None:
        route = scope.get("path_template") or "unknown"
        self._meter.requested(route, one.method, one.status, one.seconds, one.id)
        is_api = one.path.startswith(_API)
        if is_api:
            tracing.answered(one.method, route, one.path[:LOGGED_PATH], one.status, one.id)
        log.log(
            logging.INFO if is_api else logging.DEBUG,
            "request",
            method=one.method,
            path=one.path[:LOGGED_PATH],
            status=one.status,
            duration=round(one.seconds, 4),
            caller=one.caller,
        )


def _token(one: Exchange) -> str | None:
    """Return the token that was shown, in one header or the other. Raises Refusal where two were."""
    for name in ("Authorization", TOKEN_HEADER):
        if one.count(name.lower().encode()) > 1:
            raise Refusal(400, f"there are several {name} headers")
    token, own = bearer_token(one.header(b"authorization")), one.header(_TOKEN_HEADER)
    if own is None:
        return token
    if token is not None:
        raise Refusal(400, f"there are two tokens: show one, in Authorization or in {TOKEN_HEADER}")
    return own.strip(" ")


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine: ``localhost``, or an address of loopback, with or without a port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    try:
        return ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _refusal(error: AccessError) -> Refusal:
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return Refusal(error.status, str(error), headers=headers)
