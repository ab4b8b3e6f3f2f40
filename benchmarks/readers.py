"""Many readers of the stream of events, and when each of them heard of a Service: a process of its own.

``python -m benchmarks.readers URL COUNT SECONDS`` opens the streams and prints ``open`` once all have been greeted.
When it is told to end (SIGTERM), or after so many seconds, it prints one JSON line: how many streams are still open,
and for each Service that came into the toolset how many readers heard of it, and when the last one did, on the
machine's steady clock (``time.perf_counter`` of any process).
"""

import asyncio
import json
import signal
import sys
import time
from typing import Any
from urllib.parse import urlsplit

PATH = "/api/v1/events"
LISTED = b'"service_listed"'


class Readers:
    """All readers, and what they heard."""

    def __init__(self) -> None:
        self.greeted = 0
        self.open = 0
        self.heard: dict[str, list[float]] = {}

    async def read(self, host: str, port: int) -> None:
        """Follow the stream for ever. Each event comes in a chunk of its own, so its lines hold no chunk's head."""
        reader, writer = await asyncio.open_connection(host, port)
        self.open += 1
        try:
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
            while True:
                block = await reader.readuntil(b"\n\n")
                if b"event: hello" in block:
                    self.greeted += 1
                elif LISTED in block:
                    now = time.perf_counter()
                    entry = json.loads(block.partition(b"data: ")[2])
                    self.heard.setdefault(entry["service"]["name"], []).append(now)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


async def main(url: str, count: str, seconds: str) -> None:
    address = urlsplit(url)
    if address.hostname != "127.0.0.1" or address.port is None:
        raise SystemExit("on loopback only")
    readers, ended = Readers(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    tasks = [asyncio.create_task(readers.read(address.hostname, address.port)) for _ in range(int(count))]
    async with asyncio.timeout(30):
        while readers.greeted < len(tasks):
            await asyncio.sleep(0.05)
    print("open", flush=True)
    try:
        async with asyncio.timeout(float(seconds)):
            await ended.wait()
    except TimeoutError:
        pass
    heard: dict[str, Any] = {name: {"readers": len(at), "last": max(at)} for name, at in readers.heard.items()}
    print(json.dumps({"open": readers.open, "heard": heard}), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
