"""A proxy that knows nothing but bytes, between the program and the API, or between the program and a backend::

    with TcpProxy(("127.0.0.1", 9090), listen=(cluster_ip, 9090)) as wire:
        wire.cut()
        with wire.refusing():
            ...

What it does to connections it does to all of them.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster
from tests.faults.loop import LoopThread

Address = tuple[str, int]

_CHUNK = 64 * 1024


class TcpProxy:
    """Accepts connections at ``address`` and carries what is said to ``target`` and back.

    ``bytes_per_second`` limits what each connection carries from the target to the client; None for no limit.
    ``accepted`` counts the connections so far.
    """

    def __init__(self, target: Address, listen: Address = ("127.0.0.1", 0)) -> None:
        self.bytes_per_second: int | None = None
        self.accepted = 0
        self.address = listen
        self._target = target
        self._connections: set[_Connection] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = LoopThread()

    def __enter__(self) -> Self:
        # Held for as long as the proxy lives: while it refuses connections nobody else gets its port.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(self.address)
        self.address = self._place.getsockname()
        self._loop.__enter__()
        self._loop.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop())
        self._loop.__exit__()
        self._place.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def cut(self) -> None:
        """Break every connection, as a crash does (RST)."""
        self._loop.call(self._cut)

    def freeze(self) -> None:
        """Let every connection that is open now carry nothing any more, for ever, and tell nobody.

        So does a firewall that has forgotten them. New connections work.
        """
        self._loop.call(lambda: [connection.freeze() for connection in self._connections])

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept connections inside of the block, but carry nothing; what was said meanwhile arrives after it."""
        self._loop.call(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call(self._flowing.set)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Break every connection, and refuse new ones inside of the block."""
        self._loop.run(self._stop())
        try:
            yield
        finally:
            self._loop.run(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self.address, reuse_port=True)

    async def _stop(self) -> None:
        self._server.close()
        await asyncio.sleep(0)  # whoever was accepted just now is among the connections from here on
        while self._connections:
            self._cut()
            await asyncio.sleep(0)

    def _cut(self) -> None:
        for connection in self._connections:
            connection.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.carry(reader, self._target)
        finally:
            self._connections.discard(connection)


class _Connection:
    """A pair of connections, the client's and the one to the target."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._writers = [client]
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._carrying: asyncio.Task[None] | None = None

    async def carry(self, reader: asyncio.StreamReader, target: Address) -> None:
        """Carry bytes both ways until both sides have said all, or until one breaks: then the other breaks too."""
        self._carrying = asyncio.create_task(self._carry(reader, target))
        try:
            await asyncio.wait([self._carrying])
        finally:
            for writer in self._writers:
                writer.close()

    def freeze(self) -> None:
        self._thawed.clear()

    def cut(self) -> None:
        for writer in self._writers:
            if not writer.transport.is_closing():
                linger_for_no_time = struct.pack("ii", 1, 0)  # so that the kernel sends RST instead of FIN (socket(7))
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
            writer.transport.abort()
        if self._carrying:
            self._carrying.cancel()

    async def _carry(self, reader: asyncio.StreamReader, target: Address) -> None:
        try:
            await self._flow()
            from_target, to_target = await asyncio.open_connection(*target)
            self._writers.append(to_target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry_to_target(reader, to_target))
                ways.create_task(self._carry_to_client(from_target))
        except* OSError:
            self.cut()

    async def _carry_to_target(self, reader: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._send(target, chunk)
        await self._flow()
        target.write_eof()

    async def _carry_to_client(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_CHUNK):
            rate = self._proxy.bytes_per_second
            if rate is None:
                await self._send(self._client, chunk)
                continue
            at_once = max(1, rate // 10)
            for start in range(0, len(chunk), at_once):
                await self._send(self._client, chunk[start : start + at_once])
                await asyncio.sleep(at_once / rate)
        await self._flow()
        self._client.write_eof()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._flow()
        writer.write(data)
        await writer.drain()

    async def _flow(self) -> None:
        """Return when bytes may go on."""
        await self._proxy._flowing.wait()
        await self._thawed.wait()


class ApiWire(TcpProxy):
    """A TCP proxy in front of the cluster's API server, which shows its own certificate through it."""

    def __init__(self, cluster: Cluster) -> None:
        server = urlsplit(cluster.url)
        super().__init__((str(server.hostname), int(server.port or 443)))
        self.ca_file: Path = cluster.ca_file

    @property
    def url(self) -> str:
        return f"https://{self.address[0]}:{self.address[1]}"
