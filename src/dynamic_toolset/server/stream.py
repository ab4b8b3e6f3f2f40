"""Server-sent events (WHATWG HTML, section 9.2): what changes, told to any number of readers.

A slow reader is dropped, and never a brake: each has a queue of bounded length, and whoever lets it run over is cut
off. It comes back with the id of what it saw last (``Last-Event-ID``), and is told what it missed, or to begin anew.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from dynamic_toolset.model import Entry, Report
from dynamic_toolset.server import views
from dynamic_toolset.server.history import History

MAX_READERS = 500
QUEUE = 200
"""Messages of one or more events that may wait for a reader."""

TOGETHER = 0.1
"""Seconds after an event in which others join it. A change is mostly two passes, and many readers take so long to wake
that they must not come between them."""

BEAT = 15.0
"""Seconds of silence after which a comment is sent, so that nobody in between takes the connection for dead."""

_COMMENT = b": still here\n\n"


class TooManyReaders(Exception):
    """No further reader is taken on."""


class Reader:
    """One reader: the events that wait for it. ``cut`` ends its connection at once."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self.is_dropped = False

    def put(self, event: bytes | None) -> None:
        """Hand over an event, None for the end; a reader whose queue is full is cut off."""
        if self.is_dropped:
            return
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.is_dropped = True
            self._cut()

    async def next(self) -> bytes | None:
        """Return what is to be sent next: an event, or a comment after a silence; None at the end."""
        try:
            async with asyncio.timeout(BEAT):
                return await self._waiting.get()
        except TimeoutError:
            return _COMMENT


class Stream:
    """All readers, and what each new one is told first."""

    def __init__(self, history: History, version: str) -> None:
        self._history = history
        self._version = version
        self._readers: set[Reader] = set()
        self._ended = False
        self._untold: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = 0
        """Readers that were cut off because they were too slow."""

    @property
    def readers(self) -> int:
        return len(self._readers)

    def tell(self, entries: Iterable[Entry], report: Report | None) -> None:
        """Tell everybody of changes, and of another report if there is one."""
        if not self._readers:
            return
        self._untold += [event("change", views.entry(one), one.id) for one in entries]
        if report is not None:
            self._untold.append(event("report", {"published": report.published}))
        if self._untold and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER, self.flush)

    def flush(self) -> None:
        """Tell everybody what they have not been told yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        together, self._untold = b"".join(self._untold), []
        if together:
            for reader in tuple(self._readers):
                self._put(reader, together)

    def end(self) -> None:
        """Tell everybody that the server ends, and end every stream."""
        self.flush()
        self._ended = True
        for reader in tuple(self._readers):
            self._put(reader, event("bye", {}))
            self._put(reader, None)

    def read(self, last_id: str | None, cut: Callable[[], None]) -> AsyncIterator[bytes]:
        """Return the events for one reader, who has seen those up to ``last_id``. Raises TooManyReaders."""
        if len(self._readers) >= MAX_READERS:
            raise TooManyReaders
        return self._read(last_id, Reader(cut))

    async def _read(self, last_id: str | None, reader: Reader) -> AsyncIterator[bytes]:
        self.flush()  # to those who were there
        # From here on the reader hears of everything, so what it missed until here is settled now.
        self._readers.add(reader)
        newest = self._history.last_id
        missed, ended = self._missed(last_id, newest), self._ended
        try:
            # Who has seen nothing yet goes on from here when it comes back, also if nothing has changed until then.
            yield event("hello", {"version": self._version, "lastEventId": newest}, None if last_id else newest)
            for one in missed:
                yield one
            if ended:
                yield event("bye", {})
                return
            while (waiting := await reader.next()) is not None:
                yield waiting
        finally:
            self._readers.discard(reader)

    def _missed(self, last_id: str | None, newest: str) -> Iterable[bytes]:
        if not last_id:
            return ()
        missed = self._history.since(last_id)
        if missed is None:
            return (event("reset", {}, newest),)
        return [event("change", views.entry(one), one.id) for one in missed]

    def _put(self, reader: Reader, waiting: bytes | None) -> None:
        reader.put(waiting)
        if reader.is_dropped:
            self._readers.discard(reader)
            self.dropped += 1


def event(name: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event as it goes over the wire. A line end cannot be in JSON: in its strings they are escaped."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
