"""The right of way of a change: who only wants to read waits for a moment while one is on its way.

The service has one event loop. A change takes a dozen short steps there, from the event to the publication, and behind
each of them would stand all requests that came meanwhile. A reader does not notice what that would cost an agent.
"""

import asyncio

HOLD = 0.05
"""Seconds that anybody waits at most: about as long as a change takes from its event to its publication."""

BETWEEN = 0.25
"""Seconds from the beginning of one hold to that of the next at least: a storm of changes keeps nobody out."""


class Precedence:
    """Says whether a change is on its way. It is on its way from ``begin`` to ``end``, for :data:`HOLD` at most."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._began = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that a change has come."""
        loop = asyncio.get_running_loop()
        if self._timer is None and loop.time() - self._began >= BETWEEN:
            self._began = loop.time()
            self._free.clear()
            self._timer = loop.call_later(HOLD, self.end)

    def end(self) -> None:
        """Note that no change is on its way any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.set()

    async def give_way(self) -> None:
        """Wait until no change is on its way."""
        await self._free.wait()
