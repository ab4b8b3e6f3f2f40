"""When to look again."""

import asyncio
import contextlib
from collections.abc import Callable


class Pacer:
    """Says when to look: at once after a quiet time, then less and less often while changes keep coming.

    One change of a person comes as two events, the Service's and then the verdict of its first check; so the first
    two looks of a burst are free. From then on the time between two looks is 100 ms, doubling to 5 s. A burst is
    over when nothing came for half a second, and for as long as the next look would have to wait.

    ``free`` and ``longest`` are for who needs other figures than these.
    """

    FREE = 2
    FIRST = 0.1
    LONGEST = 5.0
    QUIET = 0.5

    def __init__(self, *, free: int = FREE, longest: float = LONGEST) -> None:
        self._free = free
        self._longest = longest
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._looks = 0
        self._last = float("-inf")
        self._since: float | None = None

    @property
    def waiting(self) -> float:
        """Seconds for which a change has been waiting to be looked at; 0 if none is."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    def notify(self) -> None:
        """Something changed. Cheap, and any number of calls before the next look count as one."""
        self._note()

    def hurry(self) -> None:
        """Something changed that cannot wait, whatever burst there is."""
        self._urgent.set()
        self._note()

    def _note(self) -> None:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self._changed.set()

    async def wait(self) -> None:
        """Return when it is time to look."""
        await self._changed.wait()
        now = asyncio.get_running_loop().time()
        if now - self._last > max(self.QUIET, self._pause(max(self._looks, self._free))):
            self._looks = 0
        if self._looks >= self._free:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._last + self._pause(self._looks)):
                    await self._urgent.wait()
        self._changed.clear()
        self._urgent.clear()
        self._since = None
        self._looks += 1
        self._last = asyncio.get_running_loop().time()

    def _pause(self, looks: int) -> float:
        return float(min(self.FIRST * 2 ** min(looks - self._free, 16), self._longest))


class Alarm:
    """Calls back once, after the delay that was set last."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay: float | None) -> None:
        """Call back after so many seconds, and not when it was set to before; None: not at all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else asyncio.get_running_loop().call_later(delay, self._ring)

    @property
    def is_set(self) -> bool:
        """Whether it is still to ring."""
        return self._timer is not None

    def _ring(self) -> None:
        self._timer = None
        self._callback()
