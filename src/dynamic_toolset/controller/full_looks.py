"""When everything is looked at anew, though nothing says that anything changed."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from dynamic_toolset.controller.statistics import FullLooks
from dynamic_toolset.kube.pulse import Pulse


class Rounds:
    """Has ``look`` called once in each ``interval`` (seconds), once ``run`` is running and the first look is noted.

    A look for another reason, such as that somebody asks for it, is noted too, and the next one is due an interval
    after it. ``now`` is the time of day, for people.
    """

    def __init__(self, interval: float, look: Callable[[], None], now: Callable[[], float] = time.time) -> None:
        self._interval = interval
        self._look = look
        self._now = now
        self._moved = asyncio.Event()
        self._pulse = Pulse()
        self._count = 0
        self._last: float | None = None
        self._last_at: float | None = None

    @property
    def statistics(self) -> FullLooks:
        """How many there were, when the last one was, and when the next one is to be."""
        at = self._last_at
        return FullLooks(self._count, at, None if at is None else at + self._interval)

    @property
    def late(self) -> float:
        """By how many seconds the next look is overdue; 0 if it is not."""
        return self._pulse.late

    def note(self) -> None:
        """Take note that there is a full look now."""
        self._count += 1
        self._last, self._last_at = asyncio.get_running_loop().time(), self._now()
        self._moved.set()

    def every(self, interval: float) -> None:
        """Let the next look come so many seconds after the last one: at once, if that is over already."""
        self._interval = interval
        self._moved.set()

    async def run(self) -> None:
        """Look, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = None if self._last is None else self._last + self._interval
            if due is not None:
                self._pulse.promise(due - loop.time())
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._moved.wait()
                continue
            self.note()
            self._look()
