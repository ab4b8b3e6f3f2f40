"""Requests at a steady rate, and how long each took to be answered: a process of its own, which prints one JSON line.

``python -m benchmarks.load URL FILE RATE SECONDS`` sends GET requests for the paths in FILE (a JSON array), one after
the other and from the beginning again. The schedule is open: each request is sent when it is due, however late the
answers to earlier ones are, and its latency counts from when it was due. So a server that stalls is charged for all
who would have waited. Bounded in rate, time, connections and patience, and on loopback only.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CONNECTIONS = 64
"""Connections, used in turn; a request that is due while none of them is idle waits, and the wait counts."""

PATIENCE = 5.0
"""Seconds after the last request was due in which the answers must have come."""

MAX_RATE, MAX_SECONDS = 2000, 60


class Answer(NamedTuple):
    """How one request ended: when it was due, its latency in seconds, the status, 0 if there was no whole answer."""

    due: float
    seconds: float
    status: int
    path: str


class Connection(asyncio.Protocol):
    """One connection that is kept alive, with at most one request under way."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._received = bytearray()
        self._whole = 0
        self._status = 0
        self._transport: asyncio.Transport | None = None
        self._request: tuple[float, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, due: float, path: str) -> None:
        assert self._transport is not None
        self._request = due, path
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            self._status = int(head[9:12])
            length = head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0]
            self._whole = end + 4 + int(length)
        if len(self._received) >= self._whole:
            self._received.clear()
            self._whole = 0
            self._end(self._status)
            self._load.idle(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._end(0)
        self._load.lost(self)

    def _end(self, status: int) -> None:
        if self._request is not None:
            due, path = self._request
            self._request = None
            self._load.ended(Answer(due, time.perf_counter() - due, status, path))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


class Load:
    """The requests, the connections they go over, and the answers."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._waiting: deque[tuple[float, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: list[Answer] = []
        self._reopened = 0
        self._over = False

    async def run(self, paths: list[str], rate: int, seconds: int) -> dict[str, Any]:
        await asyncio.gather(*(self._open() for _ in range(CONNECTIONS)))
        began = time.perf_counter()
        total = rate * seconds
        for number in range(total):
            due = began + number / rate
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            self._send(due, paths[number % len(paths)])
        with_patience = time.perf_counter() + PATIENCE
        while len(self._answers) < total and time.perf_counter() < with_patience:
            await asyncio.sleep(0.01)
        elapsed = max(time.perf_counter() - began, float(seconds))
        self._over = True
        for connection in list(self._all):
            connection.close()
        return summary(list(self._answers), total, elapsed) | {"reopened": self._reopened}

    def idle(self, connection: Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._over:
            self._reopened += 1
            task = asyncio.create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def ended(self, answer: Answer) -> None:
        self._answers.append(answer)

    def _send(self, due: float, path: str) -> None:
        if self._idle:
            self._idle.popleft().send(due, path)
        else:
            self._waiting.append((due, path))

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        self._all.add(connection)
        self.idle(connection)


def summary(answers: list[Answer], total: int, elapsed: float) -> dict[str, Any]:
    """Return what is printed. A request without an answer of status 200 is an error, and as slow as it gets."""
    good = [one for one in answers if one.status == 200]
    statuses = Counter(one.status for one in answers)
    kinds = sorted({one.path.partition("?")[0] for one in answers})
    return {
        "requests": total,
        "errors": total - len(good),
        "statuses": dict(statuses),
        "rate": round(len(good) / elapsed, 1),
        **percentiles([one.seconds for one in good], total),
        "by_path": {
            kind: percentiles([one.seconds for one in good if one.path.partition("?")[0] == kind]) for kind in kinds
        },
        "p95_of_a_usual_second": usual(good),
        "cpu": round(time.process_time() / elapsed, 3),
    }


def usual(good: list[Answer]) -> float:
    """Return the median of the 95th percentiles of all seconds: that of one in which nobody else took the machine."""
    seconds: dict[int, list[float]] = {}
    for one in good:
        seconds.setdefault(int(one.due - good[0].due), []).append(one.seconds)
    return round(
        statistics.median(statistics.quantiles(each, n=20)[-1] for each in seconds.values() if len(each) > 1), 5
    )


def percentiles(seconds: list[float], total: int | None = None) -> dict[str, float]:
    """Return percentiles in seconds; what is missing of ``total`` took for ever."""
    seconds = sorted(seconds) + [PATIENCE * 10] * ((total or len(seconds)) - len(seconds))
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=1000)
    return {f"p{per_mille / 10:g}": round(cuts[per_mille - 1], 5) for per_mille in (500, 950, 990, 999)} | {
        "max": round(seconds[-1], 5)
    }


def main(url: str, file: str, rate: str, seconds: str) -> None:
    address = urlsplit(url)
    if address.hostname != "127.0.0.1" or address.port is None:
        raise SystemExit("on loopback only")
    paths = json.loads(Path(file).read_text())
    load = Load(address.hostname, address.port)
    print(json.dumps(asyncio.run(load.run(paths, min(int(rate), MAX_RATE), min(int(seconds), MAX_SECONDS)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
