"""A bound on how much runs at once, in which the more urgent waits less."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Urgency(IntEnum):
    """In which order probes get a slot."""

    ANSWERING = 0
    """One that answered last time: what is published must be known to be right."""
    NEW = 1
    """One of which nothing is known yet."""
    FAILING = 2
    """One that did not answer last time. These are what holds a slot for long."""


class Slots:
    """A semaphore whose waiters are served by urgency, and in order of arrival within one urgency."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: dict[Urgency, OrderedDict[asyncio.Future[None], None]] = {u: OrderedDict() for u in Urgency}

    @property
    def taken(self) -> int:
        return self._size - self._free

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    @asynccontextmanager
    async def hold(self, urgency: Urgency) -> AsyncIterator[None]:
        """Wait for a slot and hold it."""
        await self._take(urgency)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, urgency: Urgency) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[urgency][turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting[urgency].pop(turn, None)
            if not turn.cancelled():
                self._give_back()  # it was handed over in the moment of the cancellation
            raise

    def _give_back(self) -> None:
        """Hand the slot to the next in line, so that none who comes later can take it in between."""
        for queue in self._waiting.values():
            while queue:
                turn, _ = queue.popitem(last=False)
                if not turn.cancelled():
                    turn.set_result(None)
                    return
        self._free += 1
