"""A port: uvicorn in our own event loop, with the bounds that it leaves to others.

uvicorn bounds neither the size of a request's header, nor the time in which a request may come, nor the number of
connections, nor how long an answer may wait for a reader that does not read (encode/uvicorn, "Server limits"): whoever
can reach the port could hold it with a handful of bytes a minute. So its protocol is extended here:

- A request has :data:`HEADER_TIME` for its header and :data:`BODY_TIME` for its body, also where nobody wants the body.
- :data:`MAX_HEADER` bytes may come without anything coming of it: a header, or the framing and trailer of a body.
- A reader that takes next to nothing for :data:`READER_TIME` is cut off.
- Where too many connections are open, those make room that nobody uses, the longest unused one first. So a probe gets
  in as long as not every connection has a request under way; otherwise it is answered 503.
- What is no HTTP is answered with a problem, after the requests that came before it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dynamic_toolset.server import problems
from dynamic_toolset.server.exchange import App
from dynamic_toolset.server.ports import BACKLOG, Port
from dynamic_toolset.server.problems import Refusal

log = structlog.get_logger()

MAX_HEADER = 32 * 1024
"""Bytes of a request's first line and header."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a whole request that are taken from the wire, be it to throw them away: one that was refused for its body
hears of it only if we listen to the end."""

HEADER_TIME = 10.0
"""Seconds in which the header must have come, and the TLS handshake before it."""

BODY_TIME = 20.0
"""Seconds in which the body must have come."""

IDLE = 75.0
"""Seconds for which a connection is kept for another request."""

READER_TIME = 20.0
"""Seconds in which a reader must take :data:`MIN_TAKEN` bytes of what waits for it, or all of it."""

MIN_TAKEN = 16 * 1024

LINGER = 2.0
"""Seconds for which we go on listening, for nothing, after the last answer: hanging up on somebody who still talks
would take the answer away from him (RFC 9112, section 9.6)."""

_PIECE = 8 * 1024
"""Bytes that are parsed between two looks at the bounds."""


class _Protocol(HttpToolsProtocol):
    """One connection."""

    max_connections = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._idle_since = self.loop.time()
        self._fruitless = 0
        """Bytes since anything came of them: since a header began, or since the last piece of a body."""
        self._message = 0
        self._arrival: asyncio.TimerHandle | None = None
        self._departure: asyncio.TimerHandle | None = None
        self._last: Refusal | None = None
        """What is answered last; nothing is read any more."""

    # --- What comes ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections and not self._find_room():
            self._refuse(Refusal(503, "too many connections are open", headers={"Retry-After": "1"}))
        else:
            self._arrive_within(HEADER_TIME, self.transport.close)  # nothing was asked, so nothing is answered

    def _find_room(self) -> bool:
        """Close a connection that nobody uses. Return whether there is room."""
        others = [one for one in self.connections if isinstance(one, _Protocol) and not one.transport.is_closing()]
        if len(others) <= self.max_connections:
            return True
        unused = [one for one in others if one is not self and one.is_unused]
        if unused:
            min(unused, key=lambda one: one._idle_since).transport.close()  # noqa: SLF001 - one of us
        return bool(unused)

    @property
    def is_unused(self) -> bool:
        """Whether no request is under way, as far as is known."""
        return self._last is None and (self.cycle is None or self.cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm_arrival()
        self._disarm_departure()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._arrival is None and self.is_unused:
            self._arrive_within(HEADER_TIME, self.transport.close)  # until it is clear that this begins a request
        for start in range(0, len(data), _PIECE):
            if self._last is not None or self.transport.is_closing():
                return
            self._feed(data[start : start + _PIECE])

    def _feed(self, piece: bytes) -> None:
        self._fruitless += len(piece)
        self._message += len(piece)
        super().data_received(piece)
        if self._last is not None:
            return
        if self._fruitless > MAX_HEADER:
            self._refuse(Refusal(431, f"the header may have {MAX_HEADER} bytes"))
        elif self._message > MAX_MESSAGE:
            self._refuse(Refusal(413, f"a request may have {MAX_MESSAGE} bytes in all"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["cut"] = self._cut
        self._in_head = True
        self._fruitless = self._message = 0
        self._arrive_within(
            HEADER_TIME, lambda: self._refuse(Refusal(408, f"the header must come within {HEADER_TIME:g} s"))
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer after the body is no header, and must not pass for one (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self._has_body():
            # The parser takes what follows for the other protocol, and the request for one without a body.
            self._refuse(Refusal(400, "a request with a body cannot ask for another protocol: leave out Upgrade"))
            return
        super().on_headers_complete()
        self._in_head = False
        self._arrive_within(BODY_TIME, lambda: self._refuse(Refusal(408, f"the body must come within {BODY_TIME:g} s")))
        if self.parser.should_upgrade():  # to what we do not speak: the answer is in HTTP/1.1, and nothing comes after
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
            for name, value in self.headers
        )

    def on_message_complete(self) -> None:
        if self._last is not None:
            return  # it was refused
        self._in_head = True
        self._fruitless = self._message = 0
        self._disarm_arrival()
        super().on_message_complete()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer what was asked in full by somebody who will ask no more. Over TLS there is no such thing."""
        cycle = self.cycle
        if self._last is not None or cycle is None or cycle.more_body or cycle.response_started:
            return None
        cycle.keep_alive = False
        return self.transport.can_write_eof()

    def _arrive_within(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._disarm_arrival()
        self._arrival = self.loop.call_later(seconds, otherwise)

    def _disarm_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    # --- What goes ----------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        if self.transport.is_closing():
            self._depart_within(READER_TIME)
        elif self._last is not None and self.cycle.response_complete:
            self._hang_up(self._last)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._depart_within(READER_TIME)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm_departure()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self._cut()  # it has not even taken the last answer
        else:
            super().timeout_keep_alive_handler()

    def _depart_within(self, seconds: float) -> None:
        waiting = self.transport.get_write_buffer_size()

        def look() -> None:
            if waiting - self.transport.get_write_buffer_size() < MIN_TAKEN:
                self._cut()
            else:
                self._depart_within(seconds)

        self._disarm_departure()
        if waiting:
            self._departure = self.loop.call_later(seconds, look)

    def _disarm_departure(self) -> None:
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None

    # --- The end ------------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - all it ever says is that it is invalid
        self._refuse(Refusal(400, "this is no HTTP/1.1 request"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what has not become a request, or never came to its end, and hang up."""
        self._disarm_arrival()
        if self._last is not None or self.transport.is_closing():
            return
        self._last = refusal
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and self._in_head):
            self._hang_up(refusal)
        elif self._in_head:
            return  # those that came before are answered first
        elif not cycle.response_started and not self.pipeline:
            cycle.disconnected = True  # the application's answer, if there is one yet, would be the second one
            cycle.message_event.set()
            self._hang_up(refusal)
        elif cycle.response_complete:
            self.transport.close()
        else:
            self._cut()

    def _hang_up(self, refusal: Refusal) -> None:
        """Answer, though no application has seen a request, and say no more."""
        self._unset_keepalive_if_required()
        request_id = secrets.token_hex(8)
        log.debug("connection_refused", status=refusal.status, reason=refusal.detail, request_id=request_id)
        body = problems.encode(refusal, instance="", request_id=request_id)
        lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode(), b"connection: close"]
        lines += [name + b": " + value for name, value in self.server_state.default_headers]
        lines += [name + b": " + value for name, value in problems.headers(refusal, body)]
        lines += [b"x-request-id: " + request_id.encode()]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._departure = self.loop.call_later(LINGER, self._cut)
        else:
            self.transport.close()
            self._depart_within(READER_TIME)

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn without its own signals, and without a look around ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, as uvicorn does, but with a bound on the TLS handshake."""
        config, loop = self.config, asyncio.get_running_loop()
        patience = HEADER_TIME if config.ssl is not None else None

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )

        self.servers = [
            await loop.create_server(
                protocol, sock=one, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=patience
            )
            for one in sockets or ()
        ]
        self.started = True

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    def cut(self) -> None:
        for connection in tuple(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # sets the Date header, too
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._ending.wait()


class Listener:
    """Serves an application on a port: ``run`` does, until ``end`` ends it in order.

    ``patience`` is how many seconds the requests under way have to end by themselves then.
    """

    def __init__(self, app: App, port: Port, *, max_connections: int, patience: float) -> None:
        self._port = port
        config = uvicorn.Config(
            app,
            http=type("Protocol", (_Protocol,), {"max_connections": max_connections}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=round(IDLE),
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, round(patience)),
        )
        config.load()
        config.ssl = port.certificate.context if port.certificate is not None else None
        self._server = _Server(config)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    async def run(self) -> None:
        """Serve until ``end``, and then until every request under way is answered."""
        if self._port.certificate is None:
            await self._server.serve([self._port.socket])
            return
        watching = asyncio.create_task(self._port.certificate.watch(), name="certificate")
        try:
            await self._server.serve([self._port.socket])
        finally:
            watching.cancel()

    def end(self, *, at_once: bool = False) -> None:
        """Take no further connection, and end ``run`` when those that are open are done, or break them off."""
        self._server.end()
        if at_once:
            self._server.cut()
