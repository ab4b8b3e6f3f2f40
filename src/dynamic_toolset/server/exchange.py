"""One request and its answer, as the gate sees them: identity, bounds, what is added to the answer."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import quote

from dynamic_toolset.server.problems import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

STREAM = "/api/v1/events"
"""The path whose answer has no end, for which no time is set or measured."""

MAX_BODY = 1024 * 1024
"""Bytes of a request's body."""

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


class Exchange:
    """A request on its way, from the arrival of its header to the end of its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = time.monotonic()
        self.status = 0
        """The status of the answer, 0 while there is none."""
        self.caller = ""
        """Who asks, as far as that was found out."""
        self.is_broken_off = False
        """Whether the caller hung up, or was hung up on, before the end of its body: nobody listens any more."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        """The decoded path, by which the request is routed and judged."""
        self.target = (scope.get("raw_path") or quote(self.path).encode()).decode("latin-1")
        """The path as it was sent, which may go into a header or an answer."""
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        client = scope.get("client")
        self.address: str = client[0] if client else ""
        self.id = self._take_id()
        self._send = send
        self._added: dict[bytes, bytes] = {b"x-request-id": self.id.encode()}

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, given in lower case; None if it is not there. Of several the first counts."""
        return next((value.decode("latin-1") for key, value in self._headers if key == name), None)

    def count(self, name: bytes) -> int:
        """Return how often a header is there."""
        return sum(key == name for key, _ in self._headers)

    def add(self, *headers: tuple[bytes, bytes]) -> None:
        """Add headers to the answer, unless it has them by itself. Of two of one name the later one counts."""
        self._added |= dict(headers)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.started

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if self.is_broken_off:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            # Several Vary fields add up; of all others there may be one.
            headers += [item for item in self._added.items() if item[0] not in present or item[0] == b"vary"]
            message = {**message, "headers": headers}
        await self._send(message)

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """Send a whole answer."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    def bounded(self, receive: Receive) -> Receive:
        """Return ``receive`` with a bound on the body; beyond it there is a Refusal."""
        announced = self.header(b"content-length") or "0"
        if announced.isdecimal() and int(announced[:20]) > MAX_BODY:
            raise _too_large()
        received, more = 0, True

        async def bounded() -> Message:
            nonlocal received, more
            message = await receive()
            if message["type"] == "http.disconnect":
                self.is_broken_off = more
                return message
            received, more = received + len(message.get("body", b"")), message.get("more_body", False)
            if received > MAX_BODY:
                raise _too_large()
            return message

        return bounded

    def _take_id(self) -> str:
        """Take the id that a proxy has given, if it can go into logs and headers; else make one."""
        given = self.header(b"x-request-id") or ""
        return given if _SANE_ID.fullmatch(given) else secrets.token_hex(8)


def _too_large() -> Refusal:
    return Refusal(413, f"the body may have {MAX_BODY} bytes")


async def within(seconds: float, work: Awaitable[None]) -> None:
    """Wait for ``work``, for so many seconds. Raises Refusal when they are over."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        raise Refusal(503, f"this took longer than {seconds:g} s", headers={"connection": "close"}) from None
