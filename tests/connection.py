"""A connection to an HTTP server on which a test says exactly what it wants, and of which nothing is tried again."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, NamedTuple, Self

PATIENCE = 15.0
"""Seconds after which a test gives up: the machine may be busy."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """An open connection; it is to be closed when the test is over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, data: bytes = b"", *, tls: ssl.SSLContext | None = None, **options: Any) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, **options)
        connection = cls(reader, writer)
        connection.say(data)
        return connection

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        """Return the next answer, which states its length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(int(status_line.split(" ")[1]), headers, body)

    async def get(self, path: str) -> Answer:
        self.say(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await self.answer()

    async def end(self) -> bytes:
        """Return everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self.writer.wait_closed()
