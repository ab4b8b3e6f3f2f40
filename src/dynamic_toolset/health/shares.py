"""A bound on how many hold something at once, in which nobody can sit on his share while others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """A semaphore of ``size``.

    A share may be kept at will until somebody waits for one; then for ``grace`` seconds, counted from when it was
    taken. So of ``n`` that want one at once, each gets it within ``n / size * grace`` seconds.
    """

    def __init__(self, size: int, grace: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._grace = grace
        self._waiting = 0
        self._ends: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for a share and hold it. Raises TimeoutError in whoever has held it for too long."""
        self._waiting += 1
        self._set_ends()
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            self._set_ends()
        try:
            async with asyncio.timeout(None) as held:
                self._ends[held] = asyncio.get_running_loop().time() + self._grace
                self._set_ends()
                try:
                    yield
                finally:
                    del self._ends[held]
        finally:
            self._free.release()

    def _set_ends(self) -> None:
        """Let every share end if somebody waits for one, and none if nobody does."""
        somebody_waits = self._waiting and self._free.locked()
        for held, end in self._ends.items():
            when = end if somebody_waits else None
            if held.when() != when and not held.expired():
                held.reschedule(when)
