"""Requests to an ASGI application without a port, and what it answers, as uvicorn would send it."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from dynamic_toolset.server.exchange import App, Message


class Answer:
    """What came of a request. ``is_cut``: the connection was broken off; ``is_whole``: the answer came to its end."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.is_whole = False
        self.is_cut = False

    @property
    def headers(self) -> dict[str, str]:
        """The fields; one that is there several times, which only Vary may be, is joined."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            assert name not in found or name == "vary", f"{name} is there twice"
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: App,
    method: str = "GET",
    target: str = "/api/v1/services",
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    body: Iterable[bytes] = (b"",),
    *,
    address: str = "192.0.2.1",
) -> Answer:
    """Send a request with a body in pieces, and return the answer. What the application raises, it raises."""
    answer = Answer()
    gone = asyncio.Event()
    pieces = list(body)

    async def receive() -> Message:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert not answer.is_whole
        if message["type"] == "http.response.start":
            assert not answer.status
            answer.status = message["status"]
            answer.fields = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
            return
        if method != "HEAD":
            answer.body += message.get("body", b"")
        if not message.get("more_body"):
            answer.is_whole = True

    def cut() -> None:
        answer.is_cut = True
        gone.set()

    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if all(name.lower() != "host" for name, _ in fields):
        fields.insert(0, ("host", "toolset"))
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields],
        "client": (address, 40000),
        "state": {"cut": cut},
    }
    await app(scope, receive, send)
    return answer
